//! `seriatim status`: prints every node's role, term, commit index and lag, and the health of each group.

mod answer;
mod health;
mod json;
mod report;
mod table;

use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;

pub(super) use self::answer::Answer;
use self::report::ClusterReport;
use super::connect::{ConnectArgs, Unanswered};
use super::exit::{Exit, Failure};
use super::subcommand::{Process, Subcommand};
use super::{output, units};
use crate::client::ClientError;
use crate::pb::log::GetServersResponse;

/// Print every node's role, term, commit index and lag
///
/// The first node that answers lists the members. Then all members are asked at the same time, which requires the
/// action `admin`. COMMIT is the commit index that the node knows. LAG is how many committed entries it has not applied
/// yet; the highest COMMIT of all nodes says what is committed.
///
/// NOTE names problems. DAMAGED: the replica takes no part in its group. DAMAGED ON DISK: these records can't be read
/// from this node. ANOTHER CLUSTER: a second cluster of the same name answers, and this node refuses appends.
/// STALLED: replication to this replica has stopped, because the leader can't read an entry that the replica lacks.
/// NOTE also names a certificate of the node that expires within 14 days.
///
/// The line below the table says how many voters the log has, how many are alive, and how many of these may fail. A voter is alive
/// if it answers with its own node id, its replica is neither damaged nor stalled, and it knows the leader, if any node leads. A line follows for the
/// catalog, and for every other log, if one of its voters or its leader is missing.
///
/// The exit code is that of the most serious finding: 65, data of a node is damaged, in any log; 5, a log or the
/// catalog has no majority of its voters, or no leader; 69, appends are refused, or the node that was asked is not
/// ready yet; 4, a voter or another member is missing. It is 0 for a cluster of one or two voters that are all alive,
/// although none of them may fail.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the log
    #[arg(long, env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "NAME", default_value = "default")]
    pub log: String,
    /// Also print the retention of the log, and for each node its stored bytes and its counters since the start
    #[arg(long, short)]
    pub verbose: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Seconds to wait for the answer of each member; at most --timeout
    #[arg(long, env = "SERIATIM_NODE_TIMEOUT", value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub node_timeout: u32,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "status";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim status --addr 10.0.0.1:8400,10.0.0.2:8400 --certs certs",
        "seriatim status --certs certs --json | jq .findings",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let servers = match args.connect.ask(|client| client.get_servers(&args.log)) {
        Ok((_, servers)) if !servers.servers.is_empty() => servers,
        Ok((client, _)) => {
            let message = format!("{}: this node knows no members yet: it was admitted a moment ago", client.addr());
            return Err(Failure::new(Exit::Unavailable, message, "try again, or ask another node"));
        }
        Err(unanswered) => return Err(not_ready(args, unanswered)),
    };
    let cluster_id = servers.cluster_id.clone();
    let timeout = Duration::from_secs(args.node_timeout.into()).min(args.connect.timeout());
    let report = ClusterReport::new(&cluster_id, &args.log, ask_members(&args.connect, servers, timeout)?);
    let mut text = if args.json { format!("{}\n", json::json(&report)) } else { table::table(&report) };
    if args.verbose && !args.json {
        text += &table::details(&report);
    }
    // The exit code reports the findings even if standard output can't be written.
    let written = output::say(&text);
    report.failure().map_or(written, Err)
}

/// Returns the failure if no node lists the members. With --json, also prints what the first node that is not ready
/// waits for.
fn not_ready(args: &Args, unanswered: Unanswered) -> Failure {
    let waiting = unanswered.statuses().find_map(|(addr, status)| Some((addr, status.metadata.get("waiting_for")?)));
    if let Some((addr, waiting_for)) = waiting.filter(|_| args.json)
        && let Err(failure) = output::say(&format!("{}\n", json::waiting_json(&args.log, addr, waiting_for)))
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
    connect: &ConnectArgs,
    servers: GetServersResponse,
    timeout: Duration,
) -> Result<Vec<Answer>, Failure> {
    let mut members = servers.servers;
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let dialled = members.iter().map(|server| Ok(connect.dial(&server.rpc_addr)?.within(timeout)));
    let clients = dialled.collect::<Result<Vec<_>, Failure>>()?;
    let answers = block_on(join_all(clients.iter().map(crate::client::Client::begin_get_node)));
    let mut result = Vec::new();
    for ((server, client), answer) in members.into_iter().zip(&clients).zip(answers) {
        let answer = answer.map_err(|error| match &error {
            error if denied(error) => Err(Failure::of_call(client.addr(), error)),
            error if is_late(error) => Ok(format!("{}: no answer within {} s", client.addr(), timeout.as_secs())),
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
