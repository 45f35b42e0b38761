//! `seriatim status`: prints every node's role, term, commit index and lag, and the health of each group.

pub(super) mod answer;
mod finding;
mod health;
pub(super) mod json;
mod report;
pub(super) mod table;

use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;

pub(super) use self::answer::Answer;
use self::finding::CheckState;
use self::report::ClusterReport;
use super::connect::ConnectArgs;
use super::dialer::{Dialer, Unanswered};
use super::exit::{Exit, Failure};
use super::log_list::logs;
use super::log_name::LogArg;
use super::output::OutputArgs;
use super::subcommand::{Process, Subcommand};
use super::{output, units};
use crate::client::ClientError;
use crate::pb::v1::GetServersResponse;

/// Print every node's role, term, commit index and lag
///
/// The first node that answers lists the members. Then all members are asked at the same time, which requires the
/// action `admin` on `*` in the access policy. ROLE is `-` on a node without a replica of the log, which is not a
/// problem. COMMIT is the commit index that the node knows. LAG is how many committed entries it has not applied yet;
/// the highest COMMIT of all nodes says what is committed.
///
/// NOTE names problems. DAMAGED: the replica takes no part in its group. DAMAGED ON DISK: these records can't be read
/// from this node. ANOTHER CLUSTER: a second cluster of the same name answers, and this node refuses appends.
/// STALLED: replication to this replica has stopped, because the leader can't read an entry that the replica lacks.
/// NOTE also names a certificate of the node that expires within 14 days.
///
/// The line below the table says how many voters the log has, how many are alive, and how many of these may fail. A
/// voter is alive if it answers with its own node id, its replica is neither damaged nor stalled, and it knows the
/// leader, if any node leads. A line follows for the catalog, and for every other log, if one of its voters or its
/// leader is missing.
///
/// Findings, like a voter that is missing, are printed on stderr with the next step. The exit code is 0 if the state of
/// the cluster could be determined, whatever it is. With --check it is that of a monitoring plugin (Nagios, Icinga),
/// which prints one line: 0, OK; 1, WARNING: a voter or another member is missing, a log has fewer voters than its
/// settings say, a disk fills, or a certificate expires within 14 days; 2, CRITICAL: data of a node is damaged, a log or
/// the catalog has no majority of its voters or no leader, appends are refused, or no node answers; 3, UNKNOWN: the
/// command itself could not ask, for example because of its certificate. It is OK for a cluster of one or two voters that
/// are all alive, although none of them may fail.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArg,
    /// Print one line, and exit with the code of a monitoring plugin: 0, 1 or 2; or 3 if it could not ask
    #[arg(long)]
    pub check: bool,
    /// Also print the retention of the log, and for each node its stored bytes and its counters since the start
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Seconds to wait for the answer of each member; at most --timeout
    #[arg(long, env = "SERIATIM_CLIENT_NODE_TIMEOUT", value_name = "SECONDS", default_value = "3", value_parser = units::timeout)]
    pub node_timeout: Duration,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "status";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim status --addr 10.0.0.1:8400,10.0.0.2:8400 --certs certs",
        "seriatim status --certs certs -o json | jq .findings",
        "seriatim status --certs certs --check",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    if args.check {
        return check(args);
    }
    let report = report(args)?;
    let mut text = args.output.format(|| table::table(&report), || json::json(&report));
    if args.verbose && !args.output.is_json() {
        text += &table::details(&report);
    }
    if let Some(problems) = report.problems() {
        output::tell(&format!("seriatim: {problems}"));
    }
    output::say(&text)
}

/// Prints one line, and ends with the exit code of a monitoring plugin.
fn check(args: &Args) -> Result<(), Failure> {
    let (state, text) = match report(args) {
        Ok(report) => (report.state(), args.output.format(|| report.line(), || json::json(&report))),
        Err(failure) => {
            let state = match failure.exit {
                Exit::Unavailable | Exit::RefusedForNow | Exit::BadData => CheckState::Critical,
                _ => CheckState::Unknown,
            };
            let why = failure.message.lines().collect::<Vec<_>>().join("; ");
            (state, args.output.format(|| state.line(&why), || json::not_told(state, &why)))
        }
    };
    // The exit code reports the state even if standard output can't be written.
    let written = output::say(&text);
    state.exit().map_or(written, |exit| Err(Failure::told(exit)))
}

fn report(args: &Args) -> Result<ClusterReport, Failure> {
    let dialer = args.connect.resolve()?;
    let log = args.log.name(&dialer)?;
    let servers = match dialer.ask(|client| client.get_servers(&log)) {
        Ok((_, servers)) if !servers.servers.is_empty() => servers,
        Ok((client, _)) => {
            let message = format!("{}: this node knows no members yet: it was admitted a moment ago", client.addr());
            return Err(Failure::new(Exit::Unavailable, message, "try again, or ask another node"));
        }
        Err(unanswered) => return Err(not_ready(args, &log, unanswered)),
    };
    let cluster_id = servers.cluster_id.clone();
    let timeout = args.node_timeout.min(dialer.timeout);
    // Without the list, only logs of which no replica answers are not noticed.
    let listed = dialer.ask(|client| logs(client, "", false)).map(|(_, logs)| logs).unwrap_or_default();
    let answers = ask_members(&dialer, servers, timeout)?;
    Ok(ClusterReport::new(&cluster_id, &log, answers, &listed))
}

/// Returns the failure if no node lists the members. As JSON, also prints what the first node that is not ready waits
/// for.
fn not_ready(args: &Args, log: &str, unanswered: Unanswered) -> Failure {
    let waiting = unanswered.statuses().find_map(|(addr, status)| Some((addr, status.metadata.get("waiting_for")?)));
    if let Some((addr, waiting_for)) = waiting.filter(|_| args.output.is_json() && !args.check)
        && let Err(failure) = output::say(&format!("{}\n", json::waiting_json(log, addr, waiting_for)))
    {
        return failure;
    }
    unanswered.into()
}

/// Asks all members at the same time, and waits for each of them at most `timeout`.
///
/// # Errors
/// A member refuses the caller's certificate or name.
pub(super) fn ask_members(
    dialer: &Dialer,
    servers: GetServersResponse,
    timeout: Duration,
) -> Result<Vec<Answer>, Failure> {
    let mut members = servers.servers;
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let dialled = members.iter().map(|server| Ok(dialer.dial(&server.rpc_addr)?.within(timeout)));
    let clients = dialled.collect::<Result<Vec<_>, Failure>>()?;
    let answers = block_on(join_all(clients.iter().map(crate::client::Client::begin_get_node)));
    let mut result = Vec::new();
    for ((server, client), answer) in members.into_iter().zip(&clients).zip(answers) {
        let answer = answer.map_err(|error| match &error {
            error if denied(error) => Err(Failure::of_call(client.addr(), error)),
            error if is_late(error) => Ok(format!("{}: no answer within {} s", client.addr(), timeout.as_secs_f64())),
            error => Ok(Failure::of_call(client.addr(), error).message),
        });
        let answer = match answer {
            Err(Err(failure)) => return Err(failure),
            Err(Ok(why)) => Err(why),
            Ok(node) => Ok(node),
        };
        result.push(Answer::new(server, answer));
    }
    Ok(result)
}

fn denied(error: &ClientError) -> bool {
    use grpcio::RpcStatusCode as Code;
    error.status().is_some_and(|s| s.code == Code::PERMISSION_DENIED || s.code == Code::UNAUTHENTICATED)
}

fn is_late(error: &ClientError) -> bool {
    error.status().is_some_and(|s| s.code == grpcio::RpcStatusCode::DEADLINE_EXCEEDED && s.reason.is_empty())
}

#[cfg(test)]
mod tests;
