//! Changes of the members: nodes are added, removed and replaced, as an operator does it.

use super::{Target, until, victim};
use crate::chaos::world::{HOSTS, NODES_MAX, State, World, pick};
use crate::load::Random;

/// The exit code of a node that was removed.
const NOT_ADMITTED: i32 = 78;

fn spare_host(world: &World<'_>, random: &mut Random) -> Option<usize> {
    let empty: Vec<usize> = (0..HOSTS).filter(|host| world.hosts[*host].is_none()).collect();
    pick(&empty, random)
}

pub fn add(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = (world.members().len() < NODES_MAX).then(|| spare_host(world, random)).flatten()?;
    world.add(host, false);
    Some(Target { text: world.name(host), ..Target::default() })
}

/// Half of the time, it is drained first.
pub fn choose_spare(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = (world.members().len() > 3).then(|| victim(world, random)).flatten()?;
    let id = world.member(host)?.node_id;
    if random.below(2) == 0 {
        // It is only a preparation.
        let _ = world.ask(|client| client.drain_node(&id, true).ok());
    }
    Some(Target { text: world.name(host), hosts: vec![host], ..Target::default() })
}

pub fn remove(world: &mut World<'_>, target: &Target) -> Result<(), String> {
    let host = target.hosts[0];
    let name = world.name(host);
    let id = until("the id", || world.member(host).map(|node| node.node_id).ok_or_else(|| "no answer".to_owned()))?;
    until(&format!("{name} may be removed"), || {
        let mut error = "no answer".to_owned();
        let removed = world.ask(|client| client.remove_node(&id).map_err(|e| error = e.to_string()).ok());
        removed.map(drop).ok_or(error)
    })?;
    world.host(host).state = State::Down;
    let status =
        until(&format!("{name} ends"), || world.host(host).node.has_exited().ok_or_else(|| "it runs".to_owned()))?;
    world.forget(host);
    if status.code() == Some(NOT_ADMITTED) {
        Ok(())
    } else {
        Err(format!("{name} was removed, and ended with {status}"))
    }
}

/// A host dies for good, and another one is there.
pub fn die_and_add(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let spare = spare_host(world, random)?;
    let host = victim(world, random)?;
    world.kill(host);
    let name = world.name(host);
    world.add(spare, false);
    let text = format!("{name} by {}", world.name(spare));
    Some(Target { text, hosts: vec![host, spare], impaired: vec![host], ..Target::default() })
}

pub fn replace(world: &mut World<'_>, target: &Target) -> Result<(), String> {
    let [old, new] = [target.hosts[0], target.hosts[1]];
    let id = |host: usize| world.member(host).map(|node| node.node_id).ok_or_else(|| "it is no member".to_owned());
    let (old_id, new_id) = (until("the old id", || id(old))?, until("the new id", || id(new))?);
    until("the node may be replaced", || {
        let mut error = "no answer".to_owned();
        let asked = world.ask(|client| client.replace_node(&old_id, &new_id).map_err(|e| error = e.to_string()).ok());
        asked.map(drop).ok_or(error)
    })?;
    until("the node is out", || {
        let nodes = world.ask(|client| client.list_nodes().ok()).ok_or("no answer")?.nodes;
        match nodes.iter().find(|node| node.node_id == old_id) {
            Some(node) => Err(format!("{node:?}")),
            None => Ok(()),
        }
    })?;
    world.forget(old);
    Ok(())
}
