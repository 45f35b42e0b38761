//! `seriatim node drain`, `undrain`, `remove` and `replace`, and `cluster balance`: what happens to the nodes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::connect::ConnectArgs;
use super::dialer::Dialer;
use super::exit::{Exit, Failure};
use super::log_name::LogOperand;
use super::node::{find, node_json, note, state};
use super::output::{self, OutputArgs};
use super::subcommand::{Process, Subcommand};
use super::units;
use crate::client::{Client, ClientError};
use crate::pb::v1::Node;

/// The pause between two questions for the progress.
const PAUSE: Duration = Duration::from_millis(250);

/// Make a node hand over the logs that it leads
///
/// The node keeps its replicas, and leads no log while another node can, also after a restart, until
/// `seriatim node undrain`. Use it before maintenance. It needs the action `admin` on `*` in the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// Name or id of the node
    node: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// End the draining or the removal of a node
///
/// Replicas that have moved to other nodes do not come back: `seriatim cluster balance` evens the numbers out. It needs
/// the action `admin` on `*` in the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct UndrainArgs {
    /// Name or id of the node
    node: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Remove a node from the cluster
///
/// Its replicas move to other nodes, log by log: an old replica leaves once the new one has every record. If no other
/// node is free for it, it leaves without a successor. Then the node is out, for ever: its process ends, and its id is
/// never used again. A node that is lost can be removed, too.
///
/// It is refused while a log or the catalog could not continue without the node. It needs the action `admin` on `*` in
/// the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoveArgs {
    /// Name or id of the node
    node: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Replace a node by another one
///
/// With --by, the replicas of the node move to that member, log by log, and then the node is removed (see
/// `seriatim node remove`).
///
/// Without --by, a node with the same name and an empty data directory may take its place once it does not answer: for a
/// host whose disk was lost, or for a new host that takes over its name. Start that node with its usual configuration,
/// before or after this command. It needs the action `admin` on `*` in the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplaceArgs {
    /// Name or id of the node to replace
    node: String,
    /// Name or id of the member that gets its replicas
    #[arg(long, value_name = "NODE")]
    by: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Move replicas until every node has about the same number
///
/// Use it after nodes were added. The replicas move log by log, a few at a time; `seriatim node list` shows whether it is
/// under way. It needs the action `admin` on `*` in the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct BalanceArgs {
    /// Stop, after the replicas that move already
    #[arg(long)]
    stop: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Hand over the leadership of a log
///
/// The node that leads the log hands over to another one that has a replica of it, or to the one that --to names. Leaders
/// are balanced among the nodes, so the log may move again later. It needs the action `admin` on `*` in the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct LeadArgs {
    #[command(flatten)]
    log: LogOperand,
    /// Name or id of the node that leads next
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct WaitArgs {
    /// Wait until the node is out of the cluster, at most for this time (90s, 10m); prints the progress
    #[arg(long, value_name = "TIME", value_parser = units::milliseconds)]
    wait: Option<u64>,
}

impl Subcommand for DrainArgs {
    const NAME: &'static str = "drain";
    const EXAMPLES: &'static [&'static str] = &["seriatim node drain --certs certs n2"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let id = node_id(&dialer, &self.node)?;
        say(self.output, &self.node, dialer.ask(|client| client.drain_node(&id, true))?.1);
        Ok(())
    }
}

impl Subcommand for UndrainArgs {
    const NAME: &'static str = "undrain";
    const EXAMPLES: &'static [&'static str] = &["seriatim node undrain --certs certs n2"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let id = node_id(&dialer, &self.node)?;
        say(self.output, &self.node, dialer.ask(|client| client.drain_node(&id, false))?.1);
        Ok(())
    }
}

impl Subcommand for RemoveArgs {
    const NAME: &'static str = "remove";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim node remove --certs certs n3", "seriatim node remove --certs certs n3 --wait 10m"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let id = node_id(&dialer, &self.node)?;
        let node = dialer.ask(|client| client.remove_node(&id))?.1;
        say(self.output, &self.node, self.wait.wait(&dialer, &id, node)?);
        Ok(())
    }
}

impl Subcommand for ReplaceArgs {
    const NAME: &'static str = "replace";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim node replace --certs certs n3", "seriatim node replace --certs certs n3 --by n4 --wait 10m"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let id = node_id(&dialer, &self.node)?;
        let by = self.by.as_ref().map(|by| node_id(&dialer, by)).transpose()?.unwrap_or_default();
        let node = dialer.ask(|client| client.replace_node(&id, &by))?.1;
        say(self.output, &self.node, self.wait.wait(&dialer, &id, node)?);
        Ok(())
    }
}

impl Subcommand for BalanceArgs {
    const NAME: &'static str = "balance";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim cluster balance --certs certs", "seriatim cluster balance --certs certs --stop"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let balancing = dialer.ask(|client| client.balance_cluster(self.stop))?.1;
        let text = || match balancing {
            true => "balancing: replicas move until every node has about the same number\n".to_owned(),
            false => "balancing stops after the replicas that move already\n".to_owned(),
        };
        self.output.confirm(text, || json!({ "balancing": balancing }));
        Ok(())
    }
}

impl Subcommand for LeadArgs {
    const NAME: &'static str = "lead";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim cluster lead --certs certs orders", "seriatim cluster lead --certs certs orders --to n2"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let log = self.log.name(&dialer)?;
        let to = self.to.as_ref().map(|to| node_id(&dialer, to)).transpose()?.unwrap_or_default();
        let servers = dialer.ask(|client| client.get_servers(&log))?.1.servers;
        let leader = servers.iter().find(|server| server.is_leader).ok_or_else(|| {
            Failure::new(Exit::Unavailable, format!("no node leads log {log}"), "`seriatim status` says why")
        })?;
        let failed = |error: ClientError| Failure::of_call(&leader.rpc_addr, &error);
        let next = dialer.dial(&leader.rpc_addr)?.transfer_leadership(&log, &to).map_err(failed)?;
        let name = servers.iter().find(|server| server.node_id == next).map_or(next.as_str(), |server| &server.id);
        self.output.confirm(
            || format!("node {name} leads log {log}\n"),
            || json!({ "log": log, "leader": name, "leader_node_id": next }),
        );
        Ok(())
    }
}

/// Returns the id of the member with this name or id. A node that was removed is known by its id.
fn node_id(dialer: &Dialer, wanted: &str) -> Result<String, Failure> {
    let members = dialer.ask(|client| client.get_servers(""))?.1.servers;
    match find(&members, wanted) {
        Ok(member) => Ok(member.node_id.clone()),
        Err(_) if wanted.len() == 16 && u64::from_str_radix(wanted, 16).is_ok() => Ok(wanted.to_owned()),
        Err(failure) => Err(failure),
    }
}

impl WaitArgs {
    /// Waits until the node is out of the cluster, if that is wanted. Returns the node; `None` if it is out.
    fn wait(&self, dialer: &Dialer, id: &str, node: Option<Node>) -> Result<Option<Node>, Failure> {
        let Some(wait_ms) = self.wait else { return Ok(node) };
        let until = Instant::now() + Duration::from_millis(wait_ms);
        let mut shown = String::new();
        loop {
            // The node that answered last may be the one that is removed.
            let question = |client: &Client| -> Result<_, ClientError> { client.list_nodes() };
            let nodes = dialer.ask_until_served(question)?.1.nodes;
            let Some(node) = nodes.iter().find(|node| node.node_id == id) else { return Ok(None) };
            let by = nodes.iter().find(|other| other.node_id == node.replaced_by).map(|other| other.name.clone());
            let line = format!("node {}: {}, {}", node.name, state(node), note(node, by));
            if line != shown {
                output::tell(&line);
                shown = line;
            }
            if Instant::now() >= until {
                let message = format!("node {} is still in the cluster", node.name);
                let next =
                    "the removal continues: `seriatim node list` shows the progress, `seriatim node undrain` stops it";
                return Err(Failure::new(Exit::Unavailable, message, next));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn say(output: OutputArgs, name: &str, node: Option<Node>) {
    let text = || match &node {
        Some(node) => {
            let by = Some(node.replaced_by.clone()).filter(|by| !by.is_empty()).map(|by| format!("node {by}"));
            let notes = note(node, by);
            let notes = if notes.is_empty() { notes } else { format!(": {notes}") };
            format!("node {} ({}) is {}{notes}\n", node.name, node.node_id, state(node))
        }
        None => format!("node {name} is removed\n"),
    };
    output.confirm(text, || node.as_ref().map_or_else(|| json!({ "removed": true }), node_json));
}
