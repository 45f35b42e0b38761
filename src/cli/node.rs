//! `seriatim node list` and `node info`: the members of the cluster, and what one node reports of itself.

use std::fmt::Write as _;

use grpcio::RpcStatusCode;
use serde_json::{Value, json};

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use super::status::answer::role;
use super::status::{json, table};
use super::subcommand::{Process, Subcommand};
use super::units;
use crate::client::{Client, ClientError};
use crate::pb::v1::{GetNodeResponse, ListNodesResponse, Node, NodeState, Server};

/// Print the members of the cluster
///
/// Each line is a node with its id and its client address. Any certificate may ask. With the action `admin` on `*` in the
/// access policy, it also prints what happens to each node, and how far a removal is. `seriatim status` shows more.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Print what one node reports of itself: version, disk, replicas
///
/// It dials the client address of that node. Without a name, it prints the node that answers, also before that node is
/// a member of a cluster. It needs the action `admin` on `*` in the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct InfoArgs {
    /// Name or id of the node; by default the one that answers
    node: Option<String>,
    /// Also print the metrics that are not 0
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for ListArgs {
    const NAME: &'static str = "list";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim node list --certs certs", "seriatim node list --certs certs -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let question = |client: &Client| match client.list_nodes() {
            Err(error) if error.status().is_some_and(|status| status.code == RpcStatusCode::PERMISSION_DENIED) => {
                Ok(None)
            }
            answer => answer.map(Some),
        };
        if let (_, Some(answer)) = dialer.ask(question)? {
            return self.output.say(|| nodes_text(&answer), || nodes_json(&answer));
        }
        let mut nodes = dialer.ask(|client| client.get_servers(""))?.1.servers;
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        self.output
            .say(|| members_text(&nodes), || json!({ "nodes": nodes.iter().map(member_json).collect::<Vec<_>>() }))
    }
}

impl Subcommand for InfoArgs {
    const NAME: &'static str = "info";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim node info --certs certs n1", "seriatim node info --certs certs -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let (addr, node) = match &self.node {
            None => dialer.ask(|client| client.get_node()).map(|(client, node)| (client.addr().to_owned(), node))?,
            Some(name) => {
                let members = dialer.ask(|client| client.get_servers(""))?.1.servers;
                let addr = find(&members, name)?.rpc_addr.clone();
                let failed = |error: ClientError| Failure::of_call(&addr, &error);
                let node = dialer.dial(&addr)?.get_node().map_err(failed)?;
                (addr, node)
            }
        };
        self.output.say(|| described(&addr, &node, self.verbose), || to_json(&addr, &node))
    }
}

/// Returns the member of that name or id.
pub(super) fn find<'a>(members: &'a [Server], wanted: &str) -> Result<&'a Server, Failure> {
    let found = members.iter().find(|member| member.id == wanted || member.node_id == wanted);
    found.ok_or_else(|| {
        let mut names: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
        names.sort_unstable();
        let message = format!("the cluster has no node {wanted:?}; its nodes are {}", names.join(", "));
        Failure::new(Exit::NotFound, message, "`seriatim node list` prints names and ids")
    })
}

/// Returns the members as a table.
pub(super) fn members_text(members: &[Server]) -> String {
    let mut rows = vec![["NODE", "ID", "ADDRESS"].map(str::to_owned)];
    rows.extend(members.iter().map(|member| [member.id.clone(), member.node_id.clone(), member.rpc_addr.clone()]));
    output::columns(&rows)
}

/// Returns the object of a member.
pub(super) fn member_json(member: &Server) -> Value {
    json!({ "name": member.id, "node_id": member.node_id, "rpc_addr": member.rpc_addr })
}

fn nodes_text(answer: &ListNodesResponse) -> String {
    let mut rows = vec![["NODE", "ID", "ADDRESS", "STATE", "REPLICAS", "NOTE"].map(str::to_owned)];
    rows.extend(answer.nodes.iter().map(|node| {
        let name_of = |id: &str| answer.nodes.iter().find(|other| other.node_id == id).map(|other| other.name.clone());
        [
            node.name.clone(),
            node.node_id.clone(),
            node.client_addr.clone(),
            state(node).to_owned(),
            node.replicas.to_string(),
            note(node, name_of(&node.replaced_by)),
        ]
    }));
    let balancing =
        if answer.balancing { "balancing: replicas move until every node has about the same number\n" } else { "" };
    output::columns(&rows) + balancing
}

/// Returns what happens to a node.
pub(super) fn state(node: &Node) -> &'static str {
    match node.state.enum_value_or_default() {
        NodeState::NODE_STATE_UNSPECIFIED => "unknown",
        NodeState::NODE_STATE_JOINING => "joining",
        NodeState::NODE_STATE_ACTIVE => "active",
        NodeState::NODE_STATE_DRAINED => "drained",
        NodeState::NODE_STATE_REMOVING => "removing",
    }
}

/// Returns what else is known of a node. `by` is the name of the node that replaces it.
pub(super) fn note(node: &Node, by: Option<String>) -> String {
    let mut notes = Vec::new();
    if !node.is_heard {
        notes.push("does not answer".to_owned());
    }
    notes.extend(by.map(|by| format!("replaced by {by}")));
    if node.logs_to_move > 0 {
        let noun = if node.logs_to_move == 1 { "log" } else { "logs" };
        notes.push(format!("{} {noun} to move", node.logs_to_move));
    }
    if !node.waits_for.is_empty() {
        notes.push(format!("waits for {}", node.waits_for));
    }
    if node.may_be_replaced {
        notes.push("a new node with this name and an empty data directory may replace it".to_owned());
    }
    notes.join(", ")
}

fn nodes_json(answer: &ListNodesResponse) -> Value {
    json!({ "nodes": answer.nodes.iter().map(node_json).collect::<Vec<_>>(), "balancing": answer.balancing })
}

/// Returns the object of a node.
pub(super) fn node_json(node: &Node) -> Value {
    json!({
        "name": node.name,
        "node_id": node.node_id,
        "rpc_addr": node.client_addr,
        "bind_addr": node.peer_addr,
        "state": state(node),
        "is_heard": node.is_heard,
        "replicas": node.replicas,
        "logs_to_move": node.logs_to_move,
        "waits_for": node.waits_for,
        "replaced_by": node.replaced_by,
        "may_be_replaced": node.may_be_replaced,
    })
}

fn described(addr: &str, node: &GetNodeResponse, verbose: bool) -> String {
    let mut text = format!("node {} ({}) at {addr}\n", node.name, node.node_id);
    let levels = units::feature_levels(node.min_feature_level, node.max_feature_level);
    // Writing to a string can't fail.
    let _ = writeln!(text, "version   {}, supports {levels}", node.version);
    let _ = match node.cluster_id.as_str() {
        "" => writeln!(text, "cluster   not a member yet: {}", node.waiting_for),
        id => writeln!(text, "cluster   {} ({id}), at feature level {}", node.cluster_name, node.feature_level),
    };
    let disk = node.disk.get_or_default();
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let _ = writeln!(text, "disk      {} of {} free", mib(disk.free_bytes), mib(disk.total_bytes));
    let mut rows = vec![["LOG", "ROLE", "TERM", "COMMIT", "RECORDS", "STORED", "NOTE"].map(str::to_owned)];
    rows.extend(node.groups.iter().map(|group| {
        let log = if group.log.is_empty() { "(catalog)" } else { &group.log };
        [
            log.to_owned(),
            role(group).to_owned(),
            group.term.to_string(),
            group.commit_index.to_string(),
            format!("{}..{}", group.first_offset, group.next_offset),
            group.stored_bytes.to_string(),
            table::note(node, Some(group)),
        ]
    }));
    text += &output::columns(&rows);
    if verbose {
        text += &table::metrics(node);
    }
    text
}

fn to_json(addr: &str, node: &GetNodeResponse) -> Value {
    let mut object = json!({
        "name": node.name,
        "node_id": node.node_id,
        "rpc_addr": addr,
        "cluster_name": node.cluster_name,
        "cluster_id": node.cluster_id,
    });
    json::add_node(&mut object, node);
    let replicas = node.groups.iter().map(|group| {
        let mut replica = json::replica_json(group);
        replica["log"] = if group.log.is_empty() { Value::Null } else { json!(group.log) };
        replica
    });
    object["replicas"] = replicas.collect();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1::GroupStatus;

    #[test]
    fn finds_a_member_by_name_or_id() {
        let server = |name: &str, id: &str| Server { id: name.into(), node_id: id.into(), ..Server::default() };
        let members = [server("n1", "0000000000000001"), server("n2", "00000000000000ff")];
        assert_eq!(find(&members, "n1").expect("a member").node_id, "0000000000000001");
        assert_eq!(find(&members, "00000000000000ff").expect("a member").id, "n2");
        let missing = find(&members, "n3").expect_err("none");
        assert_eq!((missing.exit, missing.message.contains("n1, n2")), (Exit::NotFound, true), "{missing}");
        assert_eq!(members_text(&members).lines().count(), 3);
    }

    #[test]
    fn describes_a_node_and_its_replicas() {
        let catalog = GroupStatus { term: 3, ..GroupStatus::default() };
        let log = GroupStatus { log: "default".into(), next_offset: 7, ..GroupStatus::default() };
        let mut node = GetNodeResponse {
            name: "n1".into(),
            node_id: "00000000000000ff".into(),
            version: "0.1.0".into(),
            waiting_for: "a majority".into(),
            groups: vec![catalog, log],
            ..GetNodeResponse::default()
        };
        let text = described("n1:8400", &node, true);
        assert!(text.starts_with("node n1 (00000000000000ff) at n1:8400\nversion   0.1.0, supports feature level 1\n"));
        assert!(text.contains("cluster   not a member yet: a majority\n"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("(catalog)  ")) && text.contains("  0..7  "), "{text}");
        node.cluster_id = "c0ffee".into();
        assert!(described("a", &node, false).contains("cluster    (c0ffee), at feature level 0\n"));
        let json = to_json("n1:8400", &node);
        assert_eq!((&json["node_id"], &json["replicas"][1]["log"]), (&"00000000000000ff".into(), &"default".into()));
        assert!(json["replicas"][0]["log"].is_null());
    }
}
