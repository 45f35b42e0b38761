//! One scripted life of a data directory. At every change of the disk the process dies, by a kill or by power cuts that
//! keep different parts. Then it starts, dies again at every change that the start makes, and starts again.
//!
//! After every start, everything promised must exist: the contents of `node.toml`, every group that it lists, and in
//! each group the state at the last finished sync or a later one.

use std::path::Path;

use super::model::Model;
use crate::storage::error::StorageError;
use crate::storage::format::state::Genesis;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::io::node::{DataDir, NodeFile};
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{ClusterId, GroupId, NodeId, NodeName, ReplicaId};

const HOME: &str = "/mnt/data";
const GROUPS: &str = "/mnt/data/groups";
/// The number of different power cuts at each change.
const CUTS: u64 = 6;

struct Story {
    sim: Sim,
    seed: u64,
    /// The contents of `node.toml`, and in `storing` those that are about to replace it.
    stored: Option<NodeFile>,
    storing: Option<NodeFile>,
    /// The group that is being created.
    making: Option<GroupId>,
    models: Vec<Model>,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 1500 }
}

fn genesis(group: GroupId) -> Genesis {
    if group == GroupId::CATALOG { Genesis::founder(ReplicaId(1)) } else { Genesis::Blank }
}

impl Story {
    fn new(seed: u64) -> Story {
        Story { sim: Sim::default(), seed, stored: None, storing: None, making: None, models: Vec::new() }
    }

    fn tell(&mut self) -> Result<(), StorageError> {
        let data = DataDir::open(&self.sim.disk(), Path::new(HOME))?;
        assert_eq!(data.load()?, None, "a blank directory");
        let mut node = NodeFile::new(NodeId(1), NodeName::new("a").expect("a name"));
        self.store(&data, &node)?;
        node.cluster_id = Some(ClusterId(5));
        for group in [GroupId::CATALOG, GroupId(1)] {
            self.making = Some(group);
            GroupLog::create(&self.sim.disk(), Path::new(GROUPS), group, &options(), genesis(group))?;
            node = node.with_group(group);
            self.store(&data, &node)?;
            self.making = None;
            self.models.push(Model::open(&self.sim, Path::new(GROUPS), group, options(), self.seed)?);
        }
        node.node_name = NodeName::new("b").expect("a name");
        self.store(&data, &node)?;
        let catalog = &mut self.models[0];
        catalog.append(2)?;
        catalog.hard_state()?;
        catalog.sync()?;
        let log = &mut self.models[1];
        log.snapshot()?;
        log.sync()?;
        log.append(3)?;
        log.hard_state()?;
        log.sync()?;
        log.hard_state()?;
        log.sync()?;
        for _ in 0..3 {
            log.append(3)?;
            log.truncate()?;
            log.append_lost()?;
            log.append(2)?;
            log.sync()?;
        }
        log.note()?;
        log.append(1)?;
        log.note()?;
        log.sync()?;
        log.append(1)?;
        log.note()?;
        log.sync()?;
        log.append(4)?;
        log.hard_state()?;
        log.apply()?;
        log.trim()?;
        log.sync()?;
        log.append(5)?;
        log.hard_state()?;
        log.trim()?;
        log.append(1)?;
        log.sync()?;
        log.close()?;
        log.append(2)?;
        log.snapshot()?;
        log.append(3)?;
        log.sync()?;
        log.hard_state()?;
        log.close()?;
        self.models[0].close()
    }

    fn store(&mut self, data: &DataDir, node: &NodeFile) -> Result<(), StorageError> {
        self.storing = Some(node.clone());
        data.store(node)?;
        self.stored = self.storing.take();
        Ok(())
    }

    /// Starts after a crash; returns `false` if the process died during the start.
    fn start(&self, sim: &Sim) -> bool {
        match self.try_start(sim) {
            Ok(started) => started,
            Err(_) if sim.died() => false,
            Err(error) => panic!("refused: {error}"),
        }
    }

    fn try_start(&self, sim: &Sim) -> Result<bool, StorageError> {
        let data = DataDir::open(&sim.disk(), Path::new(HOME))?;
        let node = data.load()?;
        assert!(node == self.stored || node.is_some() && node == self.storing, "{node:?} was never written");
        let groups = node.map(|node| node.groups).unwrap_or_default();
        let mut models = self.models.iter();
        for group in groups.keys() {
            match models.next() {
                Some(model) => {
                    if model.look(sim).is_none() {
                        return Ok(false);
                    }
                }
                None => drop(Model::open(sim, Path::new(GROUPS), *group, options(), 0)?),
            }
        }
        assert!(models.next().is_none(), "a group is not listed any more");
        if let Some(group) = self.making.filter(|group| !groups.contains_key(group)) {
            GroupLog::create(&sim.disk(), Path::new(GROUPS), group, &options(), genesis(group))?;
            Model::open(sim, Path::new(GROUPS), group, options(), 0)?;
        }
        Ok(true)
    }
}

/// Applies one of the kinds of crash to the disk.
fn crash(sim: &Sim, way: u64) {
    match way {
        0 => sim.kill(),
        _ => sim.power_cut(&mut Rng(way)),
    }
}

/// Runs the life up to each change, and dies there. Returns the number of starts.
pub fn told(seed: u64, cuts: u64) -> u64 {
    let mut starts = 0;
    for told in 0.. {
        let mut story = Story::new(seed);
        story.sim.die_after(Some(told));
        let ended = story.tell();
        let died = story.sim.died();
        assert!(ended.is_ok() || died, "it failed for another reason: {ended:?}");
        for way in 0..cuts {
            let left = story.sim.copy();
            crash(&left, way + cuts * told * u64::from(way > 0));
            // The start dies too, at each of its changes, by one kind of crash.
            if (way + told).is_multiple_of(cuts) {
                starts += story.starts_after(&left, way);
            }
            assert!(story.start(&left), "nothing kills it");
            starts += 1;
        }
        if !died {
            break;
        }
    }
    starts
}

impl Story {
    /// Starts after the crash, and dies at each change of that start.
    fn starts_after(&self, left: &Sim, way: u64) -> u64 {
        for deadly in 0.. {
            let sim = left.copy();
            sim.die_after(Some(deadly));
            let started = self.start(&sim);
            sim.die_after(None);
            // The next start must find the same, wherever this one stopped.
            crash(&sim, if deadly.is_multiple_of(4) { 0 } else { way + deadly + 1 });
            assert!(self.start(&sim), "nothing kills it");
            if started {
                return 2 * deadly;
            }
        }
        0
    }
}

#[test]
fn a_crash_at_every_change() {
    let first = super::asked("SERIATIM_SEED", 0);
    for seed in first..first + super::asked("SERIATIM_HISTORIES", 1).div_ceil(1000) {
        let starts = told(seed, CUTS);
        assert!(starts > 10_000, "{starts} starts");
    }
}
