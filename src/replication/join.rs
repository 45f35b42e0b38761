//! Answers a node that asks to join, or to change its name or its addresses.
//!
//! Only the catalog's leader decides, by a committed entry. Any other member returns the leader's address. It does
//! not forward the request, because the leader must see the certificate of the joining node.
//!
//! A final refusal is never based on the state of a lagging node. The leader decides after it has applied the entry,
//! or after a read index if the entry would change nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::policy::requests::may_replace;
use crate::catalog::policy::voters::CATALOG_VOTERS_MAX;
use crate::catalog::{Catalog, Command, Conflict, Member, is_address};
use crate::consensus::handle::{GroupStatus, ProposeError, ReadIndexError};
use crate::feature_level::Feature;
use crate::pb::peer::{self, JoinRequest, JoinResponse};
use crate::replication::core::MemberCore;
use crate::replication::guard::AuthorizedPeer;
use crate::replication::hello::{PeerIdentity, check_cluster_id, check_removed};
use crate::replication::levels::{PeerLevels, levels_of};
use crate::replication::refusal::{Reason, Refusal};
use crate::reply::Dropped;
use crate::types::{ClusterId, GroupId, NodeId, NodeName};

/// The longest wait until the leader confirms its leadership.
const CONFIRM_MAX: Duration = Duration::from_secs(3);
/// The longest wait for the answer to a probe.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Answers a join request.
///
/// # Errors
/// The refusal, to be sent back.
pub(super) async fn answer(
    cluster_name: &str,
    core: Result<MemberCore, Refusal>,
    caller: &AuthorizedPeer,
    request: JoinRequest,
) -> Result<JoinResponse, Refusal> {
    let (core, member) = check(cluster_name, core, &request)?;
    let catalog = core.peers.catalog().get();
    check_not_me(core.peers.me(), &request)?;
    // A probe checks which node is at an address. It is sent on behalf of another node, and changes nothing.
    let own = if request.probe { Ok(()) } else { caller.joins_as(&member, &core.peers.node().addresses) };
    if request.cluster_id != 0
        && catalog.member(member.id).is_some_and(|known| known.bind_addr != member.bind_addr)
        && caller.is(member.id, &core.peers.node().addresses)
    {
        // All members may have moved at once. Then no leader can be elected until they reach each other at their new
        // addresses. The node there must prove by its certificate that it is that member.
        core.peers.record_changed_address(member.id, &member.bind_addr);
    }
    own?;
    if request.probe || catalog.member(member.id) == Some(&member) {
        return Ok(response(core.peers.me(), &catalog));
    }
    match catalog.member(member.id) {
        None => check_addresses(&core, &catalog, &member, &request).await?,
        Some(old) => check_moved(&core, old, &request).await?,
    }
    let command = match replaced(&core, &catalog, &member)? {
        Some(old) => Command::ReplaceNode(old, member.clone()),
        None => Command::AddNode(member.clone()),
    };
    // While another node is joining, consensus decides whether this one must wait.
    if catalog.would_change(&command).is_err() && joining(&core, &catalog, &member).is_none() {
        match newest(&core).await {
            // Refused without a proposal: an entry that changes nothing would still be kept forever.
            Ok(newest) if newest.would_change(&command).is_err() => return Err(refused(&newest, &command, &member)),
            Ok(_) => {}
            Err(ReadIndexError::NotLeader { leader: Some(leader) }) => return Err(ask_leader(&core, leader)),
            Err(error) => return Err(unconfirmed(error)),
        }
    }
    let levels = levels_of_caller(&request)?;
    match core.consensus.command(command.clone(), levels.range).await {
        Ok(Ok(_)) => decided(&core, &command, &member),
        Ok(Err(ProposeError::NotLeader { leader: Some(leader) })) => Err(ask_leader(&core, leader)),
        Ok(Err(ProposeError::Dropped)) => {
            Err(waits(&core, &member).unwrap_or_else(|| undecided(ProposeError::Dropped)))
        }
        Ok(Err(error @ ProposeError::LevelUnsupported { .. })) => {
            // The level was raised after the check of the request.
            levels.check(|| format!("node {} ({})", member.name, member.id), &core.peers.me().levels)?;
            Err(undecided(error))
        }
        Ok(Err(ProposeError::NodeNeeded { group })) => Err(needed(&core, group, &member)),
        Ok(Err(error)) => Err(undecided(error)),
        Err(Dropped) => Err(Refusal::new(Reason::NotReady, "this node is stopping")),
    }
}

/// Returns the member that a new node replaces: the one with its name, if it is silent and a replacement is allowed.
/// `None` if no member has the name, or if the owner of the new node must choose another one.
fn replaced(core: &MemberCore, catalog: &Catalog, new: &Member) -> Result<Option<NodeId>, Refusal> {
    let Some(old) = catalog.member_named(&new.name).filter(|old| old.id != new.id) else { return Ok(None) };
    if catalog.member(new.id).is_some() || catalog.feature_level() < Feature::Membership.level() {
        return Ok(None);
    }
    let (is_silent, same_address) = (core.consensus.is_silent(old.id), old.bind_addr == new.bind_addr);
    if !is_silent && !same_address {
        return Ok(None);
    }
    let is_allowed = may_replace(catalog, old.id, new);
    let text = match (is_allowed, is_silent) {
        _ if catalog.plan(old.id).leaves.is_some() => {
            format!("member {} ({}) is being removed: {} waits until its name is free", old.name, old.id, new.name)
        }
        (true, true) => return Ok(Some(old.id)),
        (true, false) => format!("member {} ({}) was heard a moment ago: {} waits", old.name, old.id, new.name),
        (false, _) => format!(
            "the name {} belongs to member {} at {}, which does not answer. If this node replaces it because its disk is lost, \
             allow that with `seriatim node replace {}`; otherwise start this node with another name",
            new.name, old.id, old.bind_addr, old.name
        ),
    };
    Err(Refusal::new(Reason::MayReplace, text))
}

/// The refusal of a node that would replace a member without which a group can't continue.
fn needed(core: &MemberCore, group: GroupId, member: &Member) -> Refusal {
    let catalog = core.peers.catalog().get();
    let what = catalog.log(group).map_or_else(|| "the catalog".to_owned(), |log| format!("log {}", log.name));
    let text = format!(
        "{} can't replace the member with its name: {what} has no majority without it. Start the other nodes that have \
         replicas of it; a log whose replicas are all lost must be deleted first",
        member.name
    );
    Refusal::new(Reason::MayReplace, text)
}

/// Returns a member other than the caller that has not finished its join. `None` if the caller itself is a member.
fn joining<'a>(core: &MemberCore, catalog: &'a Catalog, asks: &Member) -> Option<&'a Member> {
    if catalog.member(asks.id).is_some() {
        return None;
    }
    let votes = |group, node| core.consensus.status(group).is_none_or(|status| status.voters.contains(&node));
    // A learner, if the catalog's group has all the voters that it may have.
    let is_learner =
        |status: &GroupStatus, node| status.voters.len() >= CATALOG_VOTERS_MAX && status.learners.contains(&node);
    let in_catalog = |node| {
        let status = core.consensus.status(GroupId::CATALOG);
        votes(GroupId::CATALOG, node) || status.is_some_and(|status| is_learner(&status, node))
    };
    let in_logs = |node| catalog.logs().filter(|log| log.is_on(node)).all(|log| votes(log.group, node));
    catalog.members().find(|m| !in_catalog(m.id) || !in_logs(m.id))
}

/// Returns the refusal of a new node, if it must wait because another one is joining.
fn waits(core: &MemberCore, member: &Member) -> Option<Refusal> {
    let catalog = core.peers.catalog().get();
    let other = joining(core, &catalog, member)?;
    let text = format!(
        "node {} ({}) at {} is joining, and one node joins at a time: {} waits and asks again",
        other.name, other.id, other.bind_addr, member.name
    );
    Some(Refusal::new(Reason::AnotherJoins, text))
}

fn levels_of_caller(request: &JoinRequest) -> Result<PeerLevels, Refusal> {
    PeerLevels::of_request(request.protocol_version, request.levels.as_ref())
}

fn check(
    cluster_name: &str,
    core: Result<MemberCore, Refusal>,
    request: &JoinRequest,
) -> Result<(MemberCore, Member), Refusal> {
    let levels = levels_of_caller(request);
    if request.cluster_name != cluster_name {
        let text = format!("this node is of cluster {cluster_name:?}, not {:?}", request.cluster_name);
        return Err(Refusal::new(Reason::ClusterName, text));
    }
    let core = core?;
    if request.cluster_id != 0 {
        check_cluster_id(core.peers.me().cluster_id, ClusterId(request.cluster_id))?;
    }
    // A removal is never undone, so a lagging node can refuse the caller, too.
    check_removed(NodeId(request.node_id), &core.peers.catalog().get())?;
    let malformed = |text: String| Refusal::new(Reason::Malformed, text);
    let name = NodeName::new(&request.node_name).map_err(|e| malformed(e.to_string()))?;
    for addr in [&request.bind_addr, &request.rpc_addr] {
        if !is_address(addr) {
            return Err(malformed(format!("{addr:?} is not an address of the form host:port")));
        }
    }
    if request.node_id == 0 {
        return Err(malformed("a node needs an id".to_owned()));
    }
    if !request.probe {
        // A probe with any levels is answered: a founder with another version must learn that the cluster exists.
        levels?.check(|| format!("node {name} ({})", NodeId(request.node_id)), &core.peers.me().levels)?;
    }
    let member = Member {
        id: NodeId(request.node_id),
        name,
        bind_addr: request.bind_addr.clone(),
        rpc_addr: request.rpc_addr.clone(),
    };
    Ok((core, member))
}

/// Refuses a caller that has the id of this node but another address. This is checked for all requests, not only for
/// probes: after this node has moved, the catalog still contains its old address.
fn check_not_me(me: &PeerIdentity, request: &JoinRequest) -> Result<(), Refusal> {
    if request.node_id != me.node_id.0 || request.bind_addr == me.bind_addr {
        return Ok(());
    }
    let text = format!(
        "node {} ({}) runs at {} already, and this one at {}: one has a copy of the other's data directory, and two that vote \
         in one name lose records",
        request.node_name, me.node_id, me.bind_addr, request.bind_addr
    );
    Err(Refusal::new(Reason::IdTaken, text))
}

/// Refuses to move a member that still answers at its old address: the caller is then a copy of its data directory,
/// or of its machine.
async fn check_moved(core: &MemberCore, old: &Member, request: &JoinRequest) -> Result<(), Refusal> {
    if old.bind_addr == request.bind_addr {
        return Ok(());
    }
    let probe = JoinRequest { probe: true, ..request.clone() };
    let node = core.peers.node();
    let refusal = match node.dialer.join(&old.bind_addr, &node.addresses.expected(old.id), &probe, PROBE_MAX).await {
        Ok(_) => None,
        Err(error) => Refusal::from_error(&error),
    };
    refusal.filter(|r| r.reason == Reason::IdTaken).map_or(Ok(()), Err)
}

/// Refuses a new node whose address belongs to a member that answers there, for example because its configuration was
/// copied. Otherwise it would become a voter, and calls to it would reach the other node. An address of a member that
/// does not answer can be reused. The refusal is not final, because a lagging node may be wrong.
async fn check_addresses(
    core: &MemberCore,
    catalog: &Catalog,
    new: &Member,
    request: &JoinRequest,
) -> Result<(), Refusal> {
    let same = |m: &&Member| m.id != new.id && (m.bind_addr == new.bind_addr || m.rpc_addr == new.rpc_addr);
    for other in catalog.members().filter(same) {
        let node = core.peers.node();
        let probe = JoinRequest { probe: true, ..request.clone() };
        let expected = node.addresses.expected(other.id);
        // Only a member of this cluster answers a probe. A node that is joining does not.
        if other.id != node.me.node_id
            && node.dialer.join(&other.bind_addr, &expected, &probe, PROBE_MAX).await.is_err()
        {
            continue;
        }
        let (what, addr) =
            if other.bind_addr == new.bind_addr { ("bind_addr", &new.bind_addr) } else { ("rpc_addr", &new.rpc_addr) };
        let text = format!(
            "the address {addr} belongs to the member {}, which answers: give this node a {what} (or \
             advertise_{what}) of its own",
            other.name
        );
        return Err(Refusal::new(Reason::AddressTaken, text));
    }
    Ok(())
}

/// Returns the leader's catalog, with everything that was committed before this call.
async fn newest(core: &MemberCore) -> Result<Arc<Catalog>, ReadIndexError> {
    let deadline = Instant::now() + CONFIRM_MAX;
    let index = core.consensus.read_index(GroupId::CATALOG, Some(deadline)).await;
    let index = index.unwrap_or(Err(ReadIndexError::Stopping))?;
    if core.peers.node().catalog_watermark.get().applied < index {
        return Err(ReadIndexError::Unconfirmed);
    }
    Ok(core.peers.catalog().get())
}

/// Returns the answer after the command was applied on this node.
fn decided(core: &MemberCore, command: &Command, member: &Member) -> Result<JoinResponse, Refusal> {
    let catalog = core.peers.catalog().get();
    if catalog.member(member.id) == Some(member) {
        log::info!("node {} ({}) is a member, at {}", member.name, member.id, member.bind_addr);
        return Ok(response(core.peers.me(), &catalog));
    }
    Err(refused(&catalog, command, member))
}

/// Returns why the catalog does not accept a member.
fn refused(catalog: &Catalog, command: &Command, member: &Member) -> Refusal {
    if let Err(removed) = check_removed(member.id, catalog) {
        return removed;
    }
    match (catalog.would_change(command), catalog.member(member.id)) {
        (Err(Conflict::NameTaken(other)), None) => {
            let text = format!(
                "the name {} belongs to another member of the cluster (node {} at {}): take another node name, or remove \
                 that member first (`seriatim node remove`)",
                member.name, other.id, other.bind_addr
            );
            Refusal::new(Reason::NameTaken, text)
        }
        (Err(Conflict::NameTaken(other)), Some(before)) => {
            let text = format!(
                "node {} at {}, a member with the name {}, can't be called {}: that is the name of another member, node {} at {}",
                before.id, member.bind_addr, before.name, member.name, other.id, other.bind_addr
            );
            Refusal::new(Reason::NameTaken, text)
        }
        (Err(Conflict::TooManyMembers), _) => {
            let text = format!("the cluster has {} members, the maximum", Catalog::MEMBERS_MAX);
            Refusal::new(Reason::TooMany, text)
        }
        (Err(Conflict::Malformed), _) => Refusal::new(Reason::Malformed, "the catalog does not accept such a member"),
        (
            Err(
                Conflict::NodeRemoved(_)
                | Conflict::NoSuchNode(_)
                | Conflict::LogTaken
                | Conflict::NameOfLogTaken(_)
                | Conflict::LogIdTaken(_)
                | Conflict::NoSuchLog(_)
                | Conflict::Deleted(_)
                | Conflict::NotRestored(_)
                | Conflict::NotDeleted(_)
                | Conflict::OtherRevision(_)
                | Conflict::BadLimits(_)
                | Conflict::BadDefaults(_)
                | Conflict::BadPlacement
                | Conflict::OtherPlan(_)
                | Conflict::NodeLeaves(_)
                | Conflict::LastNode(_)
                | Conflict::TooManyLogs,
            )
            | Ok(_),
            _,
        ) => Refusal::new(Reason::NoLeader, "the catalog has changed in the meantime: ask again"),
    }
}

/// The refusal if the leader could not confirm its leadership, or this node does not lead. A retry is safe.
fn unconfirmed(error: ReadIndexError) -> Refusal {
    let text = match error {
        ReadIndexError::NotLeader { .. } => "this node does not know a leader of the catalog",
        ReadIndexError::Unconfirmed => "a majority does not answer the leader",
        ReadIndexError::QueueFull => "the leader is overloaded",
        ReadIndexError::NoSuchGroup => "this node does not have a replica of the catalog yet",
        ReadIndexError::Damaged => "the catalog is damaged on this node",
        ReadIndexError::Stopping => return Refusal::new(Reason::NotReady, "this node is stopping"),
    };
    Refusal::new(Reason::NoLeader, text)
}

fn response(me: &PeerIdentity, catalog: &Catalog) -> JoinResponse {
    let member = |m: &Member| peer::Member {
        node_id: m.id.0,
        node_name: m.name.to_string(),
        bind_addr: m.bind_addr.clone(),
        rpc_addr: m.rpc_addr.clone(),
        ..peer::Member::default()
    };
    JoinResponse {
        cluster_id: me.cluster_id.0,
        levels: Some(levels_of(&me.levels)).into(),
        members: catalog.members().map(member).collect(),
        ..JoinResponse::default()
    }
}

/// Refuses with the leader's address.
fn ask_leader(core: &MemberCore, leader: NodeId) -> Refusal {
    match core.peers.node().addresses.of(leader).into_iter().next() {
        Some(addr) => Refusal::ask_leader(addr),
        None => Refusal::new(Reason::NoLeader, format!("the address of the leader {leader} is not known here")),
    }
}

/// The refusal if the leader could not decide now. A retry is safe, because adding a member is idempotent.
fn undecided(error: ProposeError) -> Refusal {
    let text = match error {
        ProposeError::NotLeader { .. } => "this node does not know a leader of the catalog",
        ProposeError::QueueFull => "the leader is overloaded",
        ProposeError::DiskFull => "the disk of the leader is full",
        ProposeError::Dropped => "the leader is handing over, or the catalog has changed in the meantime",
        ProposeError::OutcomeUnknown => "the leader lost the leadership in the meantime",
        ProposeError::DeadlinePassed => "the leader took too long",
        ProposeError::NoSuchGroup => "this node does not have a replica of the catalog yet",
        ProposeError::Damaged => "the catalog is damaged on this node",
        ProposeError::Stopping => return Refusal::new(Reason::NotReady, "this node is stopping"),
        ProposeError::TooLarge
        | ProposeError::ExpectedOffset { .. }
        | ProposeError::PastEnd { .. }
        | ProposeError::State(_)
        | ProposeError::LevelUnsupported { .. }
        | ProposeError::MemberSilent { .. }
        | ProposeError::NodeNeeded { .. } => "the catalog does not accept the entry",
    };
    Refusal::new(Reason::NoLeader, text)
}
