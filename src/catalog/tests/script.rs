//! The language of the scripts in `scripts/`.
//!
//! A command of the catalog is applied as a committed entry. With the tag `[request]`, it is requested on the node
//! that the prefix names; with `[forward]`, a peer forwards it to the catalog's leader; with `[encode]`, its bytes
//! are printed.

use std::error::Error;

use goldenscript::Context;

use super::cluster::{Cluster, member, show};
use super::show::{show_catalog, show_groups};
use super::span::Span;
use crate::catalog::policy::facts::{ReplicaFacts, ReplicaProgress};
use crate::catalog::policy::requests::{PeerDecision, decide_for_peer};
use crate::catalog::{Catalog, ClusterSettings, Command, Destination, LogSettings, Member, NewLog, Origin, Plan};
use crate::feature_level::FeatureLevel;
use crate::storage::entry::Unstamped;
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, LogId, LogIndex, LogName, NodeId, ReplicaId};

/// A line of a script.
#[derive(goldenscript::Command)]
pub enum Line {
    // Commands of the catalog.
    AddNode {
        id: u64,
        name: String,
        #[arg(key)]
        bind: Option<String>,
        #[arg(key)]
        rpc: Option<String>,
    },
    RemoveNode {
        id: u64,
    },
    CreateLog {
        group: u64,
        name: String,
        #[arg(key)]
        founder: Option<u64>,
        /// The form of feature level 2: `group` is the id of the log, and the nodes are separated by commas.
        #[arg(key)]
        nodes: Option<String>,
        #[arg(key)]
        replicas: Option<u32>,
        #[arg(key)]
        record_bytes_max: Option<u32>,
        #[arg(key)]
        request_bytes_max: Option<u32>,
        #[arg(key)]
        retention_bytes: Option<u64>,
        #[arg(key)]
        retention_ms: Option<u64>,
        /// The first and the end offset of the backup that it is restored from, like `5-9`.
        #[arg(key)]
        restore: Option<String>,
    },
    FinishRestore {
        group: u64,
    },
    Founded {
        group: u64,
    },
    ConfigureLog {
        group: u64,
        #[arg(key)]
        record_bytes_max: Option<u32>,
        #[arg(key)]
        request_bytes_max: Option<u32>,
        #[arg(key)]
        retention_bytes: Option<u64>,
        #[arg(key)]
        retention_ms: Option<u64>,
        /// The number of records that a forwarding peer claims.
        #[arg(key)]
        count: Option<u32>,
    },
    RaiseFeatureLevel {
        level: u32,
    },
    UpdateLog {
        group: u64,
        revision: u64,
        #[arg(key)]
        replicas: Option<u32>,
        #[arg(key)]
        retention_ms: Option<u64>,
        #[arg(key)]
        label: Option<String>,
    },
    DeleteLog {
        group: u64,
        #[arg(key)]
        purge_after_ms: Option<u64>,
        #[arg(key)]
        revision: Option<u64>,
    },
    UndeleteLog {
        group: u64,
    },
    PurgeLog {
        group: u64,
    },
    PlaceReplica {
        group: u64,
        id: u64,
    },
    RemoveReplica {
        group: u64,
        replica: u64,
    },
    ReplicaRemoved {
        group: u64,
        replica: u64,
    },
    UpdateCluster {
        revision: u64,
        #[arg(key)]
        replicas: Option<u32>,
        #[arg(key)]
        record_bytes_max: Option<u32>,
        #[arg(key)]
        create_on_append: Option<bool>,
    },
    /// Changes the plan of a node. What is not given ends.
    PlanNode {
        id: u64,
        #[arg(key, optional)]
        drained: bool,
        #[arg(key, optional)]
        leaves: bool,
        #[arg(key)]
        to: Option<u64>,
        #[arg(key, optional)]
        replaceable: bool,
        /// The plan is expected to be another one than it is.
        #[arg(key, optional)]
        outdated: bool,
    },
    ReplaceNode {
        old: u64,
        id: u64,
        name: String,
    },
    MoveReplica {
        group: u64,
        replica: u64,
        id: u64,
    },
    SetBalancing {
        balancing: bool,
    },
    /// Decodes the value of a record, given in hexadecimal digits.
    Decode {
        hex: String,
    },
    /// Adds members whose ids are in a range.
    AddNodes {
        from: u64,
        to: u64,
    },
    /// Prints the catalog.
    Catalog,

    // The cluster.
    /// Sets the highest feature level of the nodes that are started later. A node of level 1 founds a cluster of that
    /// level.
    Level {
        max: u32,
    },
    /// Starts or restarts a node.
    Start {
        id: u64,
        name: Option<String>,
    },
    /// Lets a node found the catalog, and with it the cluster.
    Found {
        id: u64,
    },
    /// Prints the groups.
    Groups,
    /// Ticks all nodes and prints the actions of their policies. With `[lost]`, the actions are not performed.
    Tick {
        times: Option<u64>,
    },
    /// Makes a node the leader of a group. Without a node, the group has no leader.
    Lead {
        group: u64,
        id: Option<u64>,
    },
    /// Replicates all entries of the leader to a replica, or those up to an index.
    Replicate {
        group: u64,
        id: u64,
        up_to: Option<u64>,
    },
    /// Makes a node silent: no other node hears it.
    Silence {
        id: u64,
    },
    /// Ends a node's silence.
    Hear {
        id: u64,
    },
    /// Damages a node's replica.
    Damage {
        group: u64,
        id: u64,
    },
    /// Sets whether a leader has unapplied entries.
    Busy {
        group: u64,
        busy: bool,
    },
    /// Sets whether a conf change of a group is pending.
    Changing {
        group: u64,
        changing: bool,
    },

    // Records and time.
    /// Appends records of some bytes each.
    Append {
        group: u64,
        records: u64,
        #[arg(key)]
        bytes: Option<u64>,
    },
    /// Stops all nodes for a time.
    Down {
        time: Span,
    },
    /// The wall clock jumps ahead, or back with `back=true`.
    Jump {
        by: Span,
        #[arg(key, optional)]
        back: bool,
    },
}

#[derive(Default)]
pub struct Script {
    cluster: Cluster,
}

impl Line {
    /// The command of the catalog that the line contains.
    fn command(&self, catalog: &Catalog) -> Result<Option<Command>, Box<dyn Error>> {
        Ok(Some(match self {
            Line::AddNode { id, name, bind, rpc } => {
                let plain = member(*id, name);
                Command::AddNode(Member {
                    bind_addr: bind.clone().unwrap_or(plain.bind_addr.clone()),
                    rpc_addr: rpc.clone().unwrap_or(plain.rpc_addr.clone()),
                    ..plain
                })
            }
            Line::RemoveNode { id } => Command::RemoveNode(NodeId(*id)),
            Line::CreateLog {
                group,
                name,
                founder,
                nodes,
                replicas,
                record_bytes_max,
                request_bytes_max,
                retention_bytes,
                retention_ms,
                restore,
            } => {
                let settings = LogSettings {
                    record_bytes_max: *record_bytes_max,
                    request_bytes_max: *request_bytes_max,
                    retention_bytes: *retention_bytes,
                    retention_ms: *retention_ms,
                    replicas: *replicas,
                    ..LogSettings::default()
                };
                let name = LogName::new(name)?;
                Command::CreateLog(match nodes {
                    None => {
                        // The form of level 1 contains every limit.
                        let all = settings.effective(&LogSettings::default());
                        let settings = LogSettings {
                            record_bytes_max: Some(all.record_bytes_max),
                            request_bytes_max: Some(all.request_bytes_max),
                            retention_bytes: Some(all.retention_bytes),
                            retention_ms: Some(all.retention_ms),
                            ..LogSettings::default()
                        };
                        let origin = Origin::Founder(GroupId(*group), NodeId(founder.unwrap_or(1)));
                        NewLog { name, log_id: LogId(group.wrapping_add(8)), origin, settings, restore: None }
                    }
                    Some(nodes) => {
                        let nodes = nodes.split(',').filter(|node| !node.is_empty());
                        let nodes: Result<Vec<u64>, _> = nodes.map(str::parse).collect();
                        let origin = Origin::Nodes(nodes?.into_iter().map(NodeId).collect());
                        let restore = restore.as_deref().map(super::restore_of).transpose()?;
                        NewLog { name, log_id: LogId(*group), origin, settings, restore }
                    }
                })
            }
            Line::UpdateLog { group, revision, replicas, retention_ms, label } => {
                let label = label.as_ref().and_then(|label| label.split_once(':'));
                let labels = label.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
                let (replicas, retention_ms) = (*replicas, *retention_ms);
                let settings = LogSettings { replicas, retention_ms, labels, ..LogSettings::default() };
                Command::UpdateLog(GroupId(*group), settings, *revision)
            }
            Line::DeleteLog { group, purge_after_ms, revision } => {
                Command::DeleteLog(GroupId(*group), *purge_after_ms, *revision)
            }
            Line::UndeleteLog { group } => Command::UndeleteLog(GroupId(*group)),
            Line::FinishRestore { group } => Command::FinishRestore(GroupId(*group)),
            Line::PurgeLog { group } => Command::PurgeLog(GroupId(*group)),
            Line::PlaceReplica { group, id } => Command::PlaceReplica(GroupId(*group), NodeId(*id)),
            Line::RemoveReplica { group, replica } => Command::RemoveReplica(GroupId(*group), ReplicaId(*replica)),
            Line::ReplicaRemoved { group, replica } => Command::ReplicaRemoved(GroupId(*group), ReplicaId(*replica)),
            Line::UpdateCluster { revision, replicas, record_bytes_max, create_on_append } => {
                let log_defaults =
                    LogSettings { replicas: *replicas, record_bytes_max: *record_bytes_max, ..LogSettings::default() };
                let create_on_append = create_on_append.unwrap_or(false);
                let settings = ClusterSettings { log_defaults, create_on_append, ..ClusterSettings::default() };
                Command::UpdateCluster(settings, *revision)
            }
            Line::PlanNode { id, drained, leaves, to, replaceable, outdated } => {
                let to = to.map(|to| Destination::Node(NodeId(to)));
                let leaves = to.or(leaves.then_some(Destination::AnyNode));
                let plan = Plan { drained: *drained, leaves, may_be_replaced: *replaceable };
                let present = catalog.plan(NodeId(*id));
                let expected = Plan { drained: present.drained != *outdated, ..present };
                Command::PlanNode(NodeId(*id), plan, expected)
            }
            Line::ReplaceNode { old, id, name } => Command::ReplaceNode(NodeId(*old), member(*id, name)),
            Line::MoveReplica { group, replica, id } => {
                Command::MoveReplica(GroupId(*group), ReplicaId(*replica), NodeId(*id))
            }
            Line::SetBalancing { balancing } => Command::SetBalancing(*balancing),
            Line::Founded { group } => Command::Founded(GroupId(*group)),
            Line::RaiseFeatureLevel { level } => Command::RaiseFeatureLevel(FeatureLevel(*level)),
            Line::ConfigureLog {
                group, record_bytes_max, request_bytes_max, retention_bytes, retention_ms, ..
            } => Command::ConfigureLog(
                GroupId(*group),
                LogSettings {
                    record_bytes_max: *record_bytes_max,
                    request_bytes_max: *request_bytes_max,
                    retention_bytes: *retention_bytes,
                    retention_ms: *retention_ms,
                    ..LogSettings::default()
                },
            ),
            _ => return Ok(None),
        }))
    }
}

impl goldenscript::Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, context: &Context) -> Result<String, Box<dyn Error>> {
        if let Some(command) = line.command(&self.cluster.catalog)? {
            // An applied command was stored before.
            assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(&command));
            let count = if let Line::ConfigureLog { count, .. } = line { *count } else { None };
            return self.command(command, count, context);
        }
        let cluster = &mut self.cluster;
        let mut out = String::new();
        match line {
            Line::Decode { hex } => {
                let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
                let decoded = Command::decode(&bytes.collect::<Result<Vec<_>, _>>()?)?;
                return Ok(show(&decoded));
            }
            Line::AddNodes { from, to } => {
                for id in *from..=*to {
                    out = cluster.apply(Command::AddNode(member(id, &format!("n{id}"))));
                }
            }
            Line::Catalog => out = show_catalog(cluster)?,
            Line::Start { id, name } => cluster.start(*id, name.as_deref().unwrap_or(&format!("n{id}"))),
            Line::Found { id } => cluster.groups.entry(GroupId::CATALOG).or_default().found(NodeId(*id)),
            Line::Level { max } => cluster.level_max = FeatureLevel(*max),
            Line::Groups => out = show_groups(cluster)?,
            Line::Tick { times } => {
                for _ in 0..times.unwrap_or(1) {
                    out.push_str(&cluster.tick(context.tags.contains("lost")));
                }
            }
            Line::Lead { group, id } => self.group(*group)?.elect(id.map(NodeId)),
            Line::Replicate { group, id, up_to } => {
                let group = self.group(*group)?;
                let replica = *group.hosts.entry(NodeId(*id)).or_insert(ReplicaId(*id));
                group.matched.insert(replica, up_to.unwrap_or(group.last));
            }
            Line::Silence { id } => _ = cluster.silent.insert(NodeId(*id)),
            Line::Hear { id } => _ = cluster.silent.remove(&NodeId(*id)),
            Line::Damage { group, id } => _ = self.group(*group)?.damaged.insert(NodeId(*id)),
            Line::Busy { group, busy } => self.group(*group)?.busy = *busy,
            Line::Changing { group, changing } => self.group(*group)?.changing = *changing,
            Line::Append { group, records, bytes } => {
                let wall_us = cluster.wall_us();
                let group = self.group(*group)?;
                group.last += records;
                group.log.append(*records, bytes.unwrap_or(100), wall_us);
            }
            Line::Down { time } => cluster.pass(time.0),
            Line::Jump { by, back } => {
                let by_us = i64::try_from(by.0.as_micros())?;
                cluster.jump(if *back { -by_us } else { by_us });
            }
            Line::AddNode { .. }
            | Line::RemoveNode { .. }
            | Line::CreateLog { .. }
            | Line::Founded { .. }
            | Line::ConfigureLog { .. }
            | Line::RaiseFeatureLevel { .. }
            | Line::UpdateLog { .. }
            | Line::DeleteLog { .. }
            | Line::UndeleteLog { .. }
            | Line::FinishRestore { .. }
            | Line::PurgeLog { .. }
            | Line::PlaceReplica { .. }
            | Line::RemoveReplica { .. }
            | Line::ReplicaRemoved { .. }
            | Line::UpdateCluster { .. }
            | Line::PlanNode { .. }
            | Line::ReplaceNode { .. }
            | Line::MoveReplica { .. }
            | Line::SetBalancing { .. } => {}
        }
        Ok(out)
    }
}

impl Script {
    fn command(&mut self, command: Command, count: Option<u32>, context: &Context) -> Result<String, Box<dyn Error>> {
        if context.tags.contains("encode") {
            return Ok(command.encode().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        if context.tags.contains("request") {
            let node = context.prefix.as_deref().and_then(|name| name.strip_prefix('n')).unwrap_or("1");
            return Ok(self.cluster.request(node.parse()?, command));
        }
        if !context.tags.contains("forward") {
            return Ok(self.cluster.apply(command));
        }
        let headers: &[(&str, &[u8])] = if context.tags.contains("header") { &[("a", b"b")] } else { &[] };
        let mut payload = Unstamped::room(0);
        let records = if context.tags.contains("twice") { 2 } else { 1 };
        for _ in 0..records {
            let value = command.encode();
            encode_record(&mut payload, &RecordFields { value: &value, headers, ..RecordFields::default() });
        }
        let payload = Unstamped::new(payload).payload();
        let replica = self.replica_of_leader(context);
        let levels_of = |node: NodeId| (node != NodeId(9)).then(|| super::levels(node));
        let count = count.unwrap_or(records);
        Ok(match decide_for_peer(&self.cluster.catalog, &payload, count, &replica, levels_of) {
            PeerDecision::Accept => format!("accepted: {}", self.cluster.apply(command)),
            PeerDecision::Place(new) => {
                let placed = self.cluster.place(new);
                format!("{}: {}", show(&placed), self.cluster.apply(placed))
            }
            PeerDecision::Drop => "dropped".to_owned(),
            PeerDecision::LevelUnsupported(member) => format!("refused: node {} does not support it", member.0),
            PeerDecision::MemberSilent(member) => format!("refused: node {} is silent", member.0),
            PeerDecision::NodeNeeded(group) => format!("refused: group {group} needs the node"),
        })
    }

    /// Every member is heard from, but for node 8 and those that are silent. `[busy]`: an entry is not applied yet.
    fn replica_of_leader(&self, context: &Context) -> ReplicaFacts {
        let progress = |member: &Member| ReplicaProgress {
            replica: ReplicaId::of_node(member.id),
            voter: true,
            matched: LogIndex(1),
            active: member.id != NodeId(8) && !self.cluster.silent.contains(&member.id),
        };
        let of_catalog = self.cluster.groups.get(&GroupId::CATALOG);
        ReplicaFacts {
            leads: true,
            is_idle: !context.tags.contains("busy"),
            progress: self.cluster.catalog.members().map(progress).collect(),
            voters: of_catalog.map(|group| group.voters.iter().copied().collect()).unwrap_or_default(),
            ..ReplicaFacts::default()
        }
    }

    fn group(&mut self, group: u64) -> Result<&mut super::cluster::Group, Box<dyn Error>> {
        self.cluster.groups.get_mut(&GroupId(group)).ok_or_else(|| "the group does not exist".into())
    }
}
