//! Faults of the links between nodes: the rules of the forwarder, and the cable of a host.

use std::time::Duration;

use super::{Target, names, on, victim};
use crate::chaos::forwarder::Rule;
use crate::chaos::world::{HOSTS, World, pick};
use crate::load::Random;

/// Holds the bytes of these directions.
fn hold(
    world: &World<'_>,
    links: Vec<(usize, usize)>,
    impaired: &[usize],
    text: String,
    random: &mut Random,
) -> Option<Target> {
    links.iter().for_each(|(from, to)| world.forwarder.change(*from, *to, |rule| rule.held += 1));
    let cuts = random.below(2) == 0;
    let text = format!("{text}{}", if cuts { "; in the end, connections are lost" } else { "" });
    Some(Target { text, impaired: impaired.to_vec(), links, cuts, ..Target::default() })
}

pub fn heal(world: &mut World<'_>, target: &Target) {
    for (from, to) in &target.links {
        if target.cuts {
            world.forwarder.cut(*from, *to);
        }
        world.forwarder.change(*from, *to, |rule| rule.held -= 1);
    }
}

/// Returns both directions of each link between two sets of hosts.
fn between(some: &[usize], others: &[usize]) -> Vec<(usize, usize)> {
    some.iter().flat_map(|a| others.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect()
}

fn others(world: &World<'_>, some: &[usize]) -> Vec<usize> {
    world.members().into_iter().filter(|host| !some.contains(host)).collect()
}

/// Two sides of random sizes.
pub fn partition(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let (mut some, mut rest): (Vec<_>, Vec<_>) = (Vec::new(), world.members());
    for _ in 0..1 + random.below(rest.len() as u64 / 2) {
        some.push(rest.swap_remove(random.below(rest.len() as u64) as usize));
    }
    let text = format!("{} | {}", names(world, &some), names(world, &rest));
    hold(world, between(&some, &rest), &some, text, random)
}

pub fn one_way(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    let others = others(world, &[host]);
    let (sends, text) = match random.below(2) {
        0 => (true, format!("{} is not heard", world.name(host))),
        _ => (false, format!("{} hears nothing", world.name(host))),
    };
    let links = others.iter().map(|other| if sends { (host, *other) } else { (*other, host) }).collect();
    hold(world, links, &[host], text, random)
}

/// Two nodes do not reach each other, and both reach all others.
pub fn partial(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let one = victim(world, random)?;
    let other = pick(&others(world, &[one]), random)?;
    let text = format!("{} | {}, but not the others", world.name(one), world.name(other));
    hold(world, between(&[one], &[other]), &[other], text, random)
}

pub fn isolate_leader(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let log = world.field.logs[random.below(2) as usize].log;
    let leader = world.leader(log, random)?;
    let others = others(world, &[leader]);
    let text = format!("{} of {log}", world.name(leader));
    hold(world, between(&[leader], &others), &[leader], text, random)
}

/// A firewall that resets everything between a node and the others.
pub fn refuse(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    let links = between(&[host], &others(world, &[host]));
    for (from, to) in &links {
        world.forwarder.change(*from, *to, |rule| rule.refused += 1);
        world.forwarder.cut(*from, *to);
    }
    Some(Target { text: world.name(host), impaired: vec![host], links, ..Target::default() })
}

pub fn admit(world: &mut World<'_>, target: &Target) {
    target.links.iter().for_each(|(from, to)| world.forwarder.change(*from, *to, |rule| rule.refused -= 1));
}

pub fn cut_all(world: &mut World<'_>, _: &mut Random) -> Option<Target> {
    let pairs = (0..HOSTS).flat_map(|a| (a + 1..HOSTS).map(move |b| (a, b)));
    let cut: usize = pairs.map(|(a, b)| world.forwarder.cut(a, b)).sum();
    Some(Target { text: format!("{cut} connections"), ..Target::default() })
}

/// Packets from and to the host are lost, also those of clients.
pub fn cut_off(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    world.bridge.cut(host);
    Some(on(world, &[host]))
}

pub fn plug_in(world: &mut World<'_>, target: &Target) {
    target.hosts.iter().for_each(|host| world.bridge.repair(*host));
}

/// Every direction gets a delay of its own.
pub fn delay(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let most = [5, 20, 60][random.below(3) as usize];
    let text = format!("up to {most} ms, and the same again as jitter");
    each_link(world, text, |rule| {
        rule.delay = Duration::from_millis(random.below(most));
        rule.jitter = Duration::from_millis(most);
    })
}

pub fn lose(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let one_in = [30, 300, 1000][random.below(3) as usize];
    each_link(world, format!("one of {one_in} chunks resets its connection"), |rule| rule.reset_one_in = one_in)
}

fn each_link(world: &World<'_>, text: String, mut change: impl FnMut(&mut Rule)) -> Option<Target> {
    if !world.forwarder.is_plain() {
        return None;
    }
    let links: Vec<_> = (0..HOSTS).flat_map(|a| (0..HOSTS).filter(move |b| a != *b).map(move |b| (a, b))).collect();
    links.iter().for_each(|(from, to)| world.forwarder.change(*from, *to, &mut change));
    Some(Target { text, links, ..Target::default() })
}

pub fn no_rules(world: &mut World<'_>, target: &Target) {
    for (from, to) in &target.links {
        world.forwarder.change(*from, *to, |rule| {
            (rule.delay, rule.jitter, rule.reset_one_in) = (Duration::ZERO, Duration::ZERO, 0);
        });
    }
}
