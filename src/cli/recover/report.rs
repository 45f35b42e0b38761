//! What `seriatim recover` prints: what is kept, and what may be lost.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::catalog::{LogMeta, Member};
use crate::cli::output::columns;
use crate::lost_quorum::compare::Survivor;
use crate::lost_quorum::plan::{Fate, Plan, Question};
use crate::lost_quorum::survey::{Found, LogCopy, LogSurvey, Survey};
use crate::storage::verify::Severity;
use crate::types::{ClusterId, ReplicaId};

/// The result of a recovery.
pub(super) struct Applied {
    pub(super) cluster_id: ClusterId,
    /// Where the replaced files are.
    pub(super) kept: PathBuf,
}

/// Returns why the operator must decide about a log.
pub(super) fn reason(question: &Question) -> String {
    match question {
        Question::Lost => "this node has no usable replica of it".to_owned(),
        Question::Elsewhere(node) => format!("this node has no usable replica of it, but node {node} has one"),
        Question::Damaged => "damaged".to_owned(),
        Question::HasLeft => "the replica was moved to another node, and may be old".to_owned(),
        Question::Behind(node) => format!("node {node} has more of it"),
    }
}

/// Returns the command that performs the plan.
pub(super) fn command(survey: &Survey, plan: &Plan, path: &Path) -> String {
    let names: Vec<&str> = plan.removed.iter().map(|member| member.name.as_str()).collect();
    let mut command = format!("seriatim recover --data-dir {} --apply --remove {}", path.display(), names.join(","));
    let of = |wanted: &dyn Fn(&LogSurvey, &Fate) -> bool| {
        let logs = survey.logs.iter().zip(&plan.fates).filter(|(log, fate)| wanted(log, fate));
        logs.map(|(log, _)| log.name.to_string()).collect::<Vec<_>>().join(",")
    };
    let dropped = of(&|log, fate| *fate == Fate::Dropped && log.meta.is_some());
    if !dropped.is_empty() {
        command += &format!(" --drop {dropped}");
    }
    let kept = of(&|log, fate| {
        let is_doubtful = |copy: &LogCopy| !copy.damage.is_empty() || copy.has_left;
        *fate == Fate::NewId && matches!(&log.found, Found::Copy(copy) if is_doubtful(copy))
    });
    if !kept.is_empty() {
        command += &format!(" --keep {kept}");
    }
    command
}

pub(super) fn to_text(survey: &Survey, plan: &Plan, path: &Path, applied: Option<&Applied>) -> String {
    let mut text = String::new();
    let (me, cluster) = (&survey.me, survey.cluster_id);
    // Writing to a string can't fail.
    let _ = writeln!(text, "{}: node {} ({}) of cluster {cluster}", path.display(), me.name, me.id);
    let becomes = if applied.is_some() { "is now" } else { "will be" };
    let _ = writeln!(text, "It {becomes} the only member of a new cluster. Removed for good:");
    for member in &plan.removed {
        let _ = writeln!(text, "  {} ({}) at {}", member.name, member.id, member.bind_addr);
    }
    let _ = writeln!(text, "{}\n", catalog_line(survey, plan));
    let heading = ["LOG", "GROUP", "RECORDS", "COMMITTED", "ID", "WHAT MAY BE LOST"].map(str::to_owned);
    let rows: Vec<[String; 6]> =
        survey.logs.iter().zip(&plan.fates).map(|(log, fate)| row(survey, log, fate)).collect();
    text += &columns(&[vec![heading], rows].concat());
    for (log, copy) in survey.logs.iter().filter_map(|log| Some((log, copy_of(log)?))) {
        for finding in &copy.damage {
            let file = finding.file.strip_prefix(path).unwrap_or(&finding.file);
            let _ = writeln!(text, "DAMAGE in {}: {} {finding}", log.name, file.display());
        }
    }
    for log in &survey.logs {
        if let Found::Refused(why) = &log.found {
            let _ = writeln!(text, "DAMAGE in {}: a node does not start with it: {why}", log.name);
        }
    }
    text += "\nAll records in RECORDS are kept. Those in COMMITTED are known to be committed. Later ones may or may not have been\n\
             acknowledged, and removed members may have acknowledged other records at the same offsets: these are lost.\n\
             A log with a new id refuses readers and cursors that name the old one (LOG_ID_MISMATCH).\n";
    if survey.report.is_none() {
        text += "Not every byte was checked (--no-verify).\n";
    }
    let _ = match applied {
        None => writeln!(text, "dry run: nothing was changed"),
        Some(Applied { cluster_id, kept }) => writeln!(
            text,
            "done: the new cluster is {cluster_id}. Start the node as usual, and let blank nodes join it.\n\
             The replaced files are in {}",
            kept.display()
        ),
    };
    text
}

fn catalog_line(survey: &Survey, plan: &Plan) -> String {
    let level = survey.catalog.feature_level();
    let last = survey.catalog_index;
    let state = match (&plan.newer_catalog, plan.is_catalog_complete) {
        (Some(node), _) => {
            format!("OLDER THAN THAT OF NODE {node}: recover that node instead, or its changes are lost")
        }
        (None, true) => "complete".to_owned(),
        (None, false) => {
            "changes that only the removed members have are lost, for example logs that were created last".to_owned()
        }
    };
    format!("catalog: up to entry {last}, feature level {level}; {state}")
}

fn copy_of(log: &LogSurvey) -> Option<&LogCopy> {
    match &log.found {
        Found::Copy(copy) => Some(copy),
        Found::Nothing | Found::Blank | Found::Refused(_) => None,
    }
}

fn row(survey: &Survey, log: &LogSurvey, fate: &Fate) -> [String; 6] {
    let (records, committed) = match copy_of(log) {
        Some(copy) => {
            let (first, next) = (copy.facts.first_offset, copy.facts.last.offset);
            (format!("{first}..{next}"), format!("{first}..{}", copy.committed_offset.max(first)))
        }
        None => ("-".to_owned(), "-".to_owned()),
    };
    let id = match fate {
        Fate::Same => "same",
        Fate::NewId => "new",
        Fate::Dropped => "dropped",
        Fate::Undecided(_) => "DECIDE",
    };
    [log.name.to_string(), log.group.to_string(), records, committed, id.to_owned(), loss(survey, log, fate)]
}

/// What may be lost of a log.
fn loss(survey: &Survey, log: &LogSurvey, fate: &Fate) -> String {
    let all = |log: &LogSurvey| match &log.meta {
        Some(meta) => format!("all records: {}", places(survey, meta)),
        None => "nothing: it was never used here".to_owned(),
    };
    let deleted = if log.meta.as_ref().is_some_and(|meta| meta.deletion.is_some()) { " (a deleted log)" } else { "" };
    let what = match (fate, copy_of(log)) {
        (Fate::Same, _) => "nothing".to_owned(),
        (Fate::NewId, Some(copy)) => {
            let from = copy.committed_offset;
            let unnamed = if log.meta.is_none() { "the name and settings of the log, and " } else { "" };
            format!("{unnamed}records from {from} on that only removed members have")
        }
        (Fate::Dropped, Some(_)) => {
            format!("all records, those of this node too; its files are kept: {}", moved(survey, log))
        }
        (Fate::Undecided(question), Some(_)) => reason(question),
        (Fate::Undecided(question @ Question::Elsewhere(_)), None) => reason(question),
        (Fate::NewId | Fate::Dropped | Fate::Undecided(_), None) => all(log),
    };
    format!("{what}{deleted}")
}

fn moved(survey: &Survey, log: &LogSurvey) -> String {
    format!("groups/{}.replaced-{}", log.group, survey.cluster_id)
}

/// Says on which nodes a log's replicas are.
fn places(survey: &Survey, log: &LogMeta) -> String {
    let name = |node| survey.catalog.member(node).map_or_else(|| format!("{node}"), |member| member.name.to_string());
    let nodes: Vec<String> = log.placements().map(|placement| name(placement.node)).collect();
    format!("its replicas are on {}", nodes.join(", "))
}

pub(super) fn to_json(survey: &Survey, plan: &Plan, path: &Path, applied: Option<&Applied>) -> Value {
    // With these fields other hosts compare (`--compare`).
    let own = serde_json::to_value(Survivor::of(survey)).unwrap_or_default();
    let member = |member: &Member| json!({ "name": member.name.to_string(), "id": member.id.to_string(), "bind_addr": member.bind_addr });
    let logs: Vec<Value> = survey.logs.iter().zip(&plan.fates).map(|(log, fate)| log_json(log, fate)).collect();
    json!({
        "data_dir": path.display().to_string(),
        "node_name": own["node_name"],
        "node_id": own["node_id"],
        "cluster_id": own["cluster_id"],
        "catalog": own["catalog"],
        "catalog_complete": plan.is_catalog_complete,
        "newer_catalog": plan.newer_catalog,
        "feature_level": survey.catalog.feature_level().0,
        "replicas": own["replicas"],
        "removed": plan.removed.iter().map(member).collect::<Vec<_>>(),
        "logs": logs,
        "verified": survey.report.is_some(),
        "applied": applied.is_some(),
        "new_cluster_id": applied.map(|applied| applied.cluster_id.to_string()),
        "replaced_files": applied.map(|applied| applied.kept.display().to_string()),
    })
}

fn log_json(log: &LogSurvey, fate: &Fate) -> Value {
    let copy = copy_of(log);
    let (fate, why) = match fate {
        Fate::Same => ("same_id", None),
        Fate::NewId => ("new_id", None),
        Fate::Dropped => ("dropped", None),
        Fate::Undecided(question) => ("undecided", Some(reason(question))),
    };
    let found = match &log.found {
        Found::Nothing => "nothing",
        Found::Blank => "blank",
        Found::Refused(_) => "refused",
        Found::Copy(_) => "replica",
    };
    let ids = |ids: &[ReplicaId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let damage = |copy: &LogCopy| {
        let findings = copy.damage.iter().filter(|finding| finding.severity >= Severity::Format);
        findings.map(|finding| format!("{}: {finding}", finding.file.display())).collect::<Vec<_>>()
    };
    let refused = match &log.found {
        Found::Refused(why) => Some(why),
        Found::Nothing | Found::Blank | Found::Copy(_) => None,
    };
    json!({
        "name": log.name.to_string(),
        "group": log.group.0,
        "log_id": log.meta.as_ref().map(|meta| meta.log_id.to_string()),
        "found": found,
        "refused": refused,
        "fate": fate,
        "undecided": why,
        "replica": copy.map(|copy| copy.replica.to_string()),
        "first_offset": copy.map(|copy| copy.facts.first_offset.0),
        "committed_offset": copy.map(|copy| copy.committed_offset.0),
        "next_offset": copy.map(|copy| copy.facts.last.offset.0),
        "committed_index": copy.map(|copy| copy.facts.committed.0),
        "last_index": copy.map(|copy| copy.facts.last.index.0),
        "last_term": copy.map(|copy| copy.facts.last.term.0),
        "term": copy.map(|copy| copy.facts.term.0),
        "digest": copy.map(|copy| format!("{:016x}", copy.facts.last.digest.0)),
        "voters": copy.map(|copy| ids(&copy.facts.conf_state.voters)),
        "differs": copy.map(|copy| copy.facts.differing.is_some()),
        "torn_bytes": copy.map(|copy| copy.facts.torn_bytes),
        "damage": copy.map(damage),
    })
}
