//! `seriatim status`: every node: role, term, commit, lag; and whether each group has its voters.

mod health;
mod json;
mod table;

use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;

use self::health::{Finding, GroupHealth};
use super::connect::{ConnectArgs, Unanswered};
use super::exit::{Exit, Failure};
use super::{output, units};
use crate::client::ClientError;
use crate::pb::admin::{GetNodeResponse, GroupStatus};
use crate::pb::log::{GetServersResponse, Server};

/// Show every node: role, term, commit, lag; and whether a majority of the voters is alive.
///
/// The first node that answers lists the members. Then all members are asked at the same time, which needs the action `admin`.
/// COMMIT is the commit index that the node knows. LAG is the number of committed entries that it has not applied yet, compared with
/// the highest commit index of all nodes.
///
/// NOTE names problems. DAMAGED: the replica takes no part. DAMAGED ON DISK: these records can't be read from this node.
/// ANOTHER CLUSTER: one of the same name answers, and this node refuses appends.
/// STALLED: replication to this replica has stopped, as the leader can't read an entry that it lacks.
/// NOTE also names a certificate of the node that expires within 14 days.
///
/// The line under the table says how many voters the log has, how many are alive, and how many of these may fail. A voter is alive
/// if it answers as itself and its replica is neither damaged nor stalled, and it hears the
/// leader. A line follows for the catalog, and for every other log,
/// if one of its voters or its leader is missing.
///
/// The exit code is that of the most serious finding: 65, data of a node is damaged, in any log; 5, a log or the catalog has no
/// majority of its voters, or no leader; 69, appends are refused, or the node that was asked takes no calls yet; 4, a voter or
/// another member is missing. It is 0 for a cluster of one or two voters that are all alive, although none of them may fail.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The log
    #[arg(long, env = "SERIATIM_LOG", value_parser = units::log_name, value_name = "NAME", default_value = "default")]
    pub log: String,
    /// Also show the retention of the log, and what each node stores now and has refused since its start
    #[arg(long, short)]
    pub verbose: bool,
    /// One JSON object with all of it, in place of the table
    #[arg(long)]
    pub json: bool,
    /// Seconds that each member has to answer; at most --timeout
    #[arg(long, env = "SERIATIM_NODE_TIMEOUT", value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub node_timeout: u32,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A member, and what it said.
struct Line {
    server: Server,
    node: Result<GetNodeResponse, String>,
    /// Another node answered in its place.
    replaced: bool,
}

impl Line {
    /// Another node may answer at the address of a member that is gone: its answer says nothing about that member.
    fn new(server: Server, answer: Result<GetNodeResponse, String>) -> Line {
        let other = answer.as_ref().ok().filter(|node| node.node_id != server.node_id);
        match other.map(|node| format!("another node answers there: {}", node.name)) {
            Some(other) => Line { server, node: Err(other), replaced: true },
            None => Line { server, node: answer, replaced: false },
        }
    }

    /// Its replica of a group.
    fn status(&self, group: u64) -> Option<&GroupStatus> {
        self.node.as_ref().ok()?.groups.iter().find(|status| status.group == group)
    }

    /// Its replica of a log.
    fn group(&self, log: &str) -> Option<&GroupStatus> {
        self.node.as_ref().ok()?.groups.iter().find(|group| group.group != 0 && group.log == log)
    }

    fn is_damaged(&self) -> bool {
        let groups = self.node.iter().flat_map(|node| &node.groups);
        groups.into_iter().any(|group| !group.damage.is_empty() || !group.damaged_ranges.is_empty())
    }
}

/// Everything that was found.
struct Report {
    cluster_id: String,
    log: String,
    lines: Vec<Line>,
    groups: Vec<GroupHealth>,
    findings: Vec<Finding>,
}

impl Report {
    fn new(cluster_id: &str, log: &str, lines: Vec<Line>) -> Report {
        let groups = health::groups(&lines, log);
        let findings = health::findings(&lines, &groups, log);
        Report { cluster_id: cluster_id.to_owned(), log: log.to_owned(), lines, groups, findings }
    }

    fn exit(&self) -> Exit {
        self.findings.first().map_or(Exit::Done, |finding| finding.kind.exit())
    }

    /// All findings, and what to do about the first.
    fn failure(&self) -> Option<Failure> {
        let first = self.findings.first()?;
        let messages: Vec<&str> = self.findings.iter().map(|finding| finding.message.as_str()).collect();
        Some(Failure::new(self.exit(), messages.join("\n"), first.kind.next_step()))
    }
}

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let servers = match args.connect.ask(|client| client.get_servers(&args.log)) {
        Ok((_, servers)) if !servers.servers.is_empty() => servers,
        Ok((client, _)) => {
            let message = format!("{}: this node knows no member yet: it was admitted a moment ago", client.addr());
            return Err(Failure::new(Exit::Unavailable, message, "try again, or ask another node"));
        }
        Err(unanswered) => return Err(not_ready(args, unanswered)),
    };
    let cluster_id = servers.cluster_id.clone();
    let report = Report::new(&cluster_id, &args.log, ask(args, servers)?);
    let mut text = if args.json { format!("{}\n", json::json(&report)) } else { table::table(&report) };
    if args.verbose && !args.json {
        text += &table::details(&report);
    }
    // The exit code says what was found, also if the table can't be written.
    let said = output::say(&text);
    report.failure().map_or(said, Err)
}

/// Nobody named the members. Where a node says what it waits for, that is the result.
fn not_ready(args: &Args, unanswered: Unanswered) -> Failure {
    let waiting = unanswered.statuses().find_map(|(addr, status)| Some((addr, status.metadata.get("waiting_for")?)));
    if let Some((addr, waiting_for)) = waiting.filter(|_| args.json)
        && let Err(failure) = output::say(&format!("{}\n", json::waiting_json(&args.log, addr, waiting_for)))
    {
        return failure;
    }
    unanswered.into()
}

/// Asks all members at the same time.
fn ask(args: &Args, servers: GetServersResponse) -> Result<Vec<Line>, Failure> {
    let mut members = servers.servers;
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let timeout = Duration::from_secs(args.node_timeout.into()).min(args.connect.timeout());
    let dialled = members.iter().map(|server| Ok(args.connect.dial(&server.rpc_addr)?.within(timeout)));
    let clients = dialled.collect::<Result<Vec<_>, Failure>>()?;
    let answers = block_on(join_all(clients.iter().map(crate::client::Client::begin_get_node)));
    let mut lines = Vec::new();
    for ((server, client), answer) in members.into_iter().zip(&clients).zip(answers) {
        let answer = answer.map_err(|error| match &error {
            error if denied(error) => Err(Failure::of_call(client.addr(), error)),
            error if is_late(error) => Ok(format!("{}: nothing came within {} s", client.addr(), timeout.as_secs())),
            error => Ok(Failure::of_call(client.addr(), error).message),
        });
        let answer = match answer {
            Err(Err(failure)) => return Err(failure),
            Err(Ok(why)) => Err(why),
            Ok(node) => Ok(node),
        };
        lines.push(Line::new(server, answer));
    }
    Ok(lines)
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
