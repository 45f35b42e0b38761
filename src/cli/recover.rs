//! `seriatim recover`: a node continues alone after the majority of its cluster is lost for good.

mod report;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use self::report::{Applied, command, to_json, to_text};
use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use super::subcommand::{Process, Subcommand};
use super::verify::failure;
use crate::clock::wall_us;
use crate::lost_quorum::compare::Survivor;
use crate::lost_quorum::perform::{Inputs, finish, kept_dir, perform, unfinished};
use crate::lost_quorum::plan::{Consent, Plan, Question, plan};
use crate::lost_quorum::survey::{RecoverError, Survey, survey};
use crate::storage::disk::Disk;
use crate::storage::node::DataDir;
use crate::types::{ClusterId, LogId, LogName};

/// Continue with one node after the majority of the hosts is lost for good
///
/// ONLY if the lost hosts never come back: the node becomes the founder of a new cluster, and continues its logs with the
/// records that it has. What only the lost hosts had is lost. Without --apply it changes nothing: it prints what will be
/// kept, and what may be lost. Copy the data directory before you use --apply.
///
/// Of several survivors, recover the one with the most. Compare them with `seriatim recover -o json` on each host, and
/// --compare on one of them. The others must join the new cluster as new nodes, with empty data directories.
///
/// A log keeps its id if nothing that was acknowledged can be missing. Otherwise it gets a new one, so that no reader
/// and no cursor continues in another history (LOG_ID_MISMATCH). A log of which this node has nothing, or only a part
/// that is known to be incomplete, needs a decision: --drop or --keep.
///
/// The exit code is 4 if the operator must decide something first. If it is interrupted, run it again: the node does not
/// start before it is finished. The files that it replaces are kept inside the data directory, in `replaced-...`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Data directory; no node may run on it
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR", default_value = "/var/lib/seriatim")]
    data_dir: PathBuf,
    /// Do it. Needs --remove with the names of all other members
    #[arg(long)]
    apply: bool,
    /// Names of the members that are removed for good: all except this one
    #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
    remove: Vec<String>,
    /// Remove a log of which this node has nothing, or too little
    #[arg(long, value_name = "LOG,...", value_delimiter = ',', value_parser = LogName::new)]
    drop: Vec<LogName>,
    /// Remove all logs of which no survivor has anything
    #[arg(long)]
    drop_lost: bool,
    /// Continue a log with what this node has, although it is damaged or another host has more
    #[arg(long, value_name = "LOG,...", value_delimiter = ',', value_parser = LogName::new)]
    keep: Vec<LogName>,
    /// Output of `seriatim recover -o json` on another surviving host
    #[arg(long, value_name = "FILE")]
    compare: Vec<PathBuf>,
    /// Read only what a start reads, and not every byte: after `seriatim data verify`
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "recover";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim recover --data-dir /var/lib/seriatim",
        "seriatim recover --data-dir /var/lib/seriatim -o json > b.json",
        "seriatim recover --data-dir /var/lib/seriatim --compare b.json",
        "seriatim recover --data-dir /var/lib/seriatim --apply --remove b,c",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let data_dir = DataDir::look(&Disk::real(), &args.data_dir).map_err(|error| failure(&error))?;
    if let Some(cluster_id) = unfinished(&data_dir).map_err(|error| refused(&error))? {
        return finish_interrupted(args, &data_dir, cluster_id);
    }
    let survey = survey(&data_dir, !args.no_verify).map_err(|error| refused(&error))?;
    let others = args.compare.iter().map(|file| read_survivor(file)).collect::<Result<Vec<_>, _>>()?;
    let consent = Consent {
        drop: args.drop.iter().cloned().collect(),
        drop_lost: args.drop_lost,
        keep: args.keep.iter().cloned().collect(),
    };
    let plan = plan(&survey, &consent, &others).map_err(|error| Failure::new(Exit::Usage, error, ""))?;
    let say = |applied: Option<&Applied>| {
        let path = &args.data_dir;
        args.output.format(|| to_text(&survey, &plan, path, applied), || to_json(&survey, &plan, path, applied))
    };
    let undecided = decisions(&survey, &plan);
    if !args.apply {
        output::say(&say(None))?;
        return match undecided {
            Some(failure) => Err(failure),
            None if args.output.is_json() => Ok(()),
            None => output::say(&format!("to do it: {}\n", command(&survey, &plan, &args.data_dir))),
        };
    }
    if let Some(failure) = undecided {
        output::say(&say(None))?;
        return Err(failure);
    }
    check_removed(args, &survey, &plan)?;
    check_owner(&args.data_dir)?;
    let random = |error: &dyn std::fmt::Display| error.to_string();
    let cluster_id = ClusterId::random().map_err(|e| refused(&RecoverError::Random(random(&e))))?;
    let mut new_log_id = || LogId::random().map_err(|e| random(&e));
    let inputs = Inputs { cluster_id, new_log_id: &mut new_log_id, now_us: wall_us() };
    perform(&data_dir, &survey, &plan, inputs).map_err(|error| {
        let next =
            "run it without --apply: it says whether a recovery was interrupted, which --apply finishes; otherwise nothing was changed";
        Failure { next: next.to_owned(), ..refused(&error) }
    })?;
    output::confirm(&say(Some(&Applied { cluster_id, kept: args.data_dir.join(kept_dir(&survey)) })));
    Ok(())
}

/// Finishes a recovery that was interrupted, or says that it must be finished.
fn finish_interrupted(args: &Args, data_dir: &DataDir, cluster_id: ClusterId) -> Result<(), Failure> {
    if !args.apply {
        let message = format!("a recovery of {} was interrupted", args.data_dir.display());
        return Err(Failure::new(Exit::Precondition, message, "`seriatim recover --apply` finishes it"));
    }
    check_owner(&args.data_dir)?;
    finish(data_dir).map_err(|error| refused(&error))?;
    let dir = args.data_dir.display();
    args.output.confirm(
        || format!("finished: the new cluster is {cluster_id}. Start the node on {dir}, and let blank nodes join it\n"),
        || serde_json::json!({ "applied": true, "finished": true, "new_cluster_id": cluster_id.to_string() }),
    );
    Ok(())
}

fn read_survivor(file: &Path) -> Result<Survivor, Failure> {
    let bad = |error: String| {
        let next = "it must be the output of `seriatim recover -o json` on another surviving host";
        Failure::new(Exit::BadData, format!("{}: {error}", file.display()), next)
    };
    let text = std::fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
}

/// The failure if the operator must decide about a log.
fn decisions(survey: &Survey, plan: &Plan) -> Option<Failure> {
    let open: Vec<(&LogName, &Question)> = plan.questions(survey).collect();
    if open.is_empty() {
        return None;
    }
    let logs: Vec<String> =
        open.iter().map(|(log, question)| format!("{log} ({})", report::reason(question))).collect();
    let message = format!("nothing was changed: decide about {}", logs.join(", "));
    let next = "--keep LOG continues a log with what this node has; --drop LOG removes it; --drop-lost removes all logs that no \
                compared survivor has. `seriatim data dump` on another survivor saves the records that it has of a log";
    Some(Failure::new(Exit::Precondition, message, next))
}

/// The operator names what is removed, so that no member is removed by mistake.
fn check_removed(args: &Args, survey: &Survey, plan: &Plan) -> Result<(), Failure> {
    let named: BTreeSet<&str> = args.remove.iter().map(String::as_str).collect();
    let members: BTreeSet<&str> = plan.removed.iter().map(|member| member.name.as_str()).collect();
    if members.is_empty() {
        let message = format!("node {} is the only member of its cluster: there is nothing to recover", survey.me.name);
        return Err(Failure::new(Exit::Precondition, message, ""));
    }
    if named == members {
        return Ok(());
    }
    let members: Vec<&str> = members.into_iter().collect();
    let message = "nothing was changed: --remove must name all members except this one, and no other";
    Err(Failure::new(Exit::Precondition, message, format!("--remove {}", members.join(","))))
}

/// The node could not read files of another user, for example of root.
fn check_owner(data_dir: &Path) -> Result<(), Failure> {
    let owner = std::fs::metadata(data_dir).map(|metadata| metadata.uid());
    let owner = owner.map_err(|e| Failure::new(Exit::Failed, format!("{}: {e}", data_dir.display()), ""))?;
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let message = format!("nothing was changed: {} belongs to another user (id {owner})", data_dir.display());
    Err(Failure::new(
        Exit::NotAllowed,
        message,
        "run the command as that user: OPERATIONS, \"Lost quorum\", says how, also if the user exists only while the service runs",
    ))
}

fn refused(error: &RecoverError) -> Failure {
    let exit = match error {
        RecoverError::Storage(error) => return failure(error),
        RecoverError::Damaged { .. } | RecoverError::ConfChange(_) => Exit::BadData,
        RecoverError::Catalog(_) | RecoverError::FeatureLevel { .. } => Exit::BadConfig,
        RecoverError::Blank(_)
        | RecoverError::NotMember(_)
        | RecoverError::NoCatalog(_)
        | RecoverError::Removed(_)
        | RecoverError::Undecided(_) => Exit::Precondition,
        RecoverError::Random(_) | RecoverError::Changed(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string(), "")
}

#[cfg(test)]
mod tests;
