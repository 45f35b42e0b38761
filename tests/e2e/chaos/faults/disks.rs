//! Faults of disks: full ones, changed bytes, and one that is lost.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{Target, all, on, until, victim};
use crate::chaos::world::{World, pick};
use crate::load::Random;
use crate::repair::segments_of;
use crate::tmpfs::fill;

pub fn fill_one(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    fill(&world.disk(host).join("others"));
    Some(on(world, &[host]))
}

pub fn fill_all(world: &mut World<'_>, _: &mut Random) -> Option<Target> {
    let hosts = all(world)?;
    hosts.iter().for_each(|host| fill(&world.disk(*host).join("others")));
    Some(on(world, &hosts))
}

pub fn empty(world: &mut World<'_>, target: &Target) {
    target.hosts.iter().for_each(|host| fs::remove_file(world.disk(*host).join("others")).expect("removed"));
}

/// Flips bytes of a segment of a log, or overwrites a block with zeros.
pub fn rot(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = pick(&world.free(), random)?;
    // A running node may still write to the newest one.
    damage(world, host, 1, random)
}

pub fn rot_stopped(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    world.kill(host);
    // Without damage it is a kill.
    Some(damage(world, host, 0, random).unwrap_or_else(|| on(world, &[host])))
}

/// Deletes a file of a log while the process is down: a segment, the manifest or another one.
pub fn delete_stopped(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    world.kill(host);
    // Without a log it is a kill.
    Some(delete(world, host, random).unwrap_or_else(|| on(world, &[host])))
}

fn delete(world: &World<'_>, host: usize, random: &mut Random) -> Option<Target> {
    let file = any(paths_in(&a_log(world, host, random)?), random)?;
    fs::remove_file(&file).ok()?;
    Some(Target { text: format!("{}: {}", world.name(host), file.display()), ..on(world, &[host]) })
}

/// The paths in a directory, in the order of their names.
fn paths_in(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).into_iter().flatten().flatten().map(|of| of.path()).collect();
    paths.sort();
    paths
}

fn any(mut paths: Vec<PathBuf>, random: &mut Random) -> Option<PathBuf> {
    let indexes: Vec<usize> = (0..paths.len()).collect();
    Some(paths.swap_remove(pick(&indexes, random)?))
}

/// The directory of a log. A node may have no replica, for example one that was just added.
fn a_log(world: &World<'_>, host: usize, random: &mut Random) -> Option<PathBuf> {
    let mut groups = paths_in(&world.data(host).join("groups"));
    // Group 0 is the catalog, whose damage ends the process.
    groups.retain(|group| !group.ends_with("0"));
    any(groups, random)
}

fn damage(world: &World<'_>, host: usize, spare: usize, random: &mut Random) -> Option<Target> {
    let mut segments = segments_of(&a_log(world, host, random)?);
    segments.truncate(segments.len().checked_sub(spare)?);
    let file = any(segments, random)?;
    let open = fs::OpenOptions::new().read(true).write(true).open(&file).ok()?;
    let bytes = open.metadata().ok()?.len();
    let at = random.below((bytes / 2).max(1));
    let mut damaged = vec![0; [1, 16, 512, 4096][random.below(4) as usize].min((bytes - at) as usize)];
    open.read_exact_at(&mut damaged, at).ok()?;
    let intact = damaged.clone();
    match random.below(2) {
        0 => damaged.iter_mut().for_each(|byte| *byte ^= 0x41),
        _ => damaged.fill(0),
    }
    if damaged == intact {
        return None;
    }
    open.write_all_at(&damaged, at).ok()?;
    let text = format!("{}: {} bytes of {} at {at}", world.name(host), damaged.len(), file.display());
    Some(Target { text, damage: Some((file, at, damaged)), ..on(world, &[host]) })
}

/// The damage is gone. Until then, the node may not have found it.
pub fn is_repaired(_: &mut World<'_>, target: &Target) -> Result<(), String> {
    let Some((file, at, damaged)) = &target.damage else { return Ok(()) };
    let is_there = || {
        let mut bytes = vec![0; damaged.len()];
        let read = fs::File::open(file).and_then(|file| file.read_exact_at(&mut bytes, *at));
        read.is_ok() && bytes == *damaged
    };
    until("the damage is repaired", || if is_there() { Err("it is there".to_owned()) } else { Ok(()) })
}

/// The host loses its disk. `auto_replace_wiped` lets it join again.
pub fn wipe(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    world.kill(host);
    fs::remove_dir_all(world.data(host)).expect("removed");
    Some(on(world, &[host]))
}
