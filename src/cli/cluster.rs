//! `seriatim cluster info` and `cluster upgrade`: the cluster as a whole, and its feature level.

use std::time::Duration;

use serde_json::json;

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::node::{member_json, members_text};
use super::output::OutputArgs;
use super::status::{Answer, ask_members};
use super::subcommand::{Process, Subcommand};
use super::units;
use crate::client::Client;
use crate::pb::v1::GetNodeResponse;

/// The time that each member has to answer which levels it supports.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Print the name, the id, the feature level and the members of the cluster
///
/// Any certificate may ask. `seriatim status` shows the state of the nodes, and whether the feature level can be
/// raised.
#[derive(Clone, Debug, clap::Args)]
pub struct InfoArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for InfoArgs {
    const NAME: &'static str = "info";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim cluster info --certs certs", "seriatim cluster info --certs certs -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let ask = |client: &Client| Ok((client.get_cluster()?, client.get_servers("")?.servers));
        let (_, (cluster, mut members)) = self.connect.resolve()?.ask(ask)?;
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let (name, id, level) = (&cluster.name, &cluster.cluster_id, cluster.feature_level);
        self.output.say(
            || format!("cluster {name} ({id}), at feature level {level}\n{}", members_text(&members)),
            || {
                json!({
                    "name": name,
                    "cluster_id": id,
                    "feature_level": level,
                    "nodes": members.iter().map(member_json).collect::<Vec<_>>(),
                })
            },
        )
    }
}

/// Raise the cluster's feature level, once all nodes run a newer version
///
/// A new version stores and sends new formats only after this command. Before it, each node can go back to the old
/// version. After it, none can: nodes of the old version are refused. This cannot be undone.
///
/// The level is raised only if every member runs and supports it. Otherwise nothing changes, and the command names the
/// members that are missing or too old. It needs the action `admin` on `*` in the access policy.
#[derive(Clone, Debug, clap::Args)]
pub struct UpgradeArgs {
    /// Feature level to raise to; by default the highest that any node supports
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
    level: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for UpgradeArgs {
    const NAME: &'static str = "upgrade";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim cluster upgrade --certs certs", "seriatim cluster upgrade --certs certs --level 2"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let (_, servers) = dialer.ask(|client| client.get_servers(""))?;
        let members = ask_members(&dialer, servers, ANSWER_MAX.min(dialer.timeout))?;
        match plan(&members, self.level).map_err(|why| {
            Failure::new(
                Exit::Failed,
                format!("not raised: {why}"),
                "`seriatim status --verbose` shows what each node supports",
            )
        })? {
            Plan::AlreadyAt(level) => self.output.say(|| level_text(level, level), || level_json(level, level)),
            Plan::RaiseTo(level) => {
                // `ask` may send the request to several nodes, which is safe because it is idempotent.
                let (_, response) = dialer.ask(|client| client.raise_feature_level(level))?;
                let (level, previous) = (response.cluster.get_or_default().feature_level, response.previous_level);
                self.output.confirm(|| level_text(level, previous), || level_json(level, previous));
                Ok(())
            }
        }
    }
}

fn level_text(level: u32, previous: u32) -> String {
    if level > previous {
        format!("feature level raised from {previous} to {level}: older versions are refused from now on\n")
    } else {
        format!("the cluster is already at feature level {level}\n")
    }
}

fn level_json(level: u32, previous: u32) -> serde_json::Value {
    json!({ "feature_level": level, "previous_feature_level": previous })
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    RaiseTo(u32),
    AlreadyAt(u32),
}

/// Determines what to do from the members' answers, or why the level can't be raised. The leader checks it again.
fn plan(members: &[Answer], level: Option<u32>) -> Result<Plan, String> {
    let mut nodes = Vec::new();
    let mut silent = Vec::new();
    for member in members {
        match &member.node {
            Ok(node) => nodes.push((member.server.id.as_str(), node)),
            Err(why) => silent.push(format!("{} does not answer ({why})", member.server.id)),
        }
    }
    let now = nodes.iter().map(|(_, node)| node.feature_level).max().unwrap_or(0);
    let highest = nodes.iter().map(|(_, node)| node.max_feature_level).max().unwrap_or(0);
    let wanted = level.unwrap_or(highest);
    if wanted < now {
        return Err(format!("the cluster is at feature level {now}, and the level never falls"));
    }
    if wanted == now {
        return Ok(Plan::AlreadyAt(now));
    }
    let lacks = |node: &GetNodeResponse| !(node.min_feature_level..=node.max_feature_level).contains(&wanted);
    let too_old = nodes.iter().filter(|(_, node)| lacks(node)).map(|(name, node)| {
        format!(
            "{name} (version {}) supports {}",
            node.version,
            units::feature_levels(node.min_feature_level, node.max_feature_level)
        )
    });
    let obstacles: Vec<String> = silent.into_iter().chain(too_old).collect();
    if obstacles.is_empty() {
        return Ok(Plan::RaiseTo(wanted));
    }
    Err(format!("every member must support feature level {wanted}, and {}", obstacles.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1::Server;

    fn member(name: &str, (level, min, max): (u32, u32, u32)) -> Answer {
        let node = GetNodeResponse {
            version: "0.2.0".into(),
            feature_level: level,
            min_feature_level: min,
            max_feature_level: max,
            ..GetNodeResponse::default()
        };
        Answer::new(Server { id: name.into(), ..Server::default() }, Ok(node))
    }

    fn silent(name: &str) -> Answer {
        Answer::new(Server { id: name.into(), ..Server::default() }, Err("refused".into()))
    }

    #[test]
    fn raises_to_the_highest_level_if_every_member_supports_it() {
        let newer = || [member("n1", (1, 1, 2)), member("n2", (1, 1, 2))];
        assert_eq!(plan(&newer(), None), Ok(Plan::RaiseTo(2)));
        assert_eq!(plan(&newer(), Some(2)), Ok(Plan::RaiseTo(2)));
        assert_eq!(plan(&newer(), Some(1)), Ok(Plan::AlreadyAt(1)));
        let raised = [member("n1", (2, 1, 2)), member("n2", (1, 1, 2))];
        assert_eq!(plan(&raised, None), Ok(Plan::AlreadyAt(2)), "n2 has not applied it yet");
        assert_eq!(
            plan(&raised, Some(1)),
            Err("the cluster is at feature level 2, and the level never falls".to_owned())
        );
    }

    /// Once, if the command happened to ask a node of the old version, it reported that the cluster was at its highest
    /// level.
    #[test]
    fn names_all_members_that_are_missing_or_too_old() {
        let members = [member("n1", (1, 1, 1)), member("n2", (1, 1, 3)), silent("n3"), member("n4", (0, 0, 0))];
        assert_eq!(
            plan(&members, None),
            Err("every member must support feature level 3, and n3 does not answer (refused); n1 (version 0.2.0) supports \
                 feature level 1; n4 (version 0.2.0) supports feature level 1"
                .to_owned())
        );
    }
}
