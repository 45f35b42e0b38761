//! The random events of a cluster's history, its end, and the checks after it.

use super::*;
use crate::consensus::group::Successor;

impl World {
    fn chaos(&mut self) {
        self.step += 1;
        let n = self.nodes.len();
        let i = self.rng.below(n as u64) as usize;
        match self.rng.below(2000) {
            0..400 => self.tick(i),
            400..1000 => (0..n).for_each(|_| self.deliver()),
            1000..1400 => {
                let end = self.rng.once_in(2);
                self.sync(i, end);
            }
            1400..1720 => {
                let to = if self.rng.once_in(8) { Some(i) } else { self.leader() };
                to.into_iter().for_each(|to| self.produce(to));
            }
            1720..1760 => {
                let to = if self.rng.once_in(4) { Some(i) } else { self.leader() };
                to.into_iter().for_each(|to| self.read(to));
            }
            1760..1790 => self.leader().into_iter().for_each(|leader| self.trim(leader)),
            1790..1800 => {
                let all = self.rng.once_in(8);
                let power = !self.rng.once_in(4);
                let which = if all { 0..n } else { i..i + 1 };
                which.for_each(|i| self.kill(i, power));
            }
            1800..1810 => {
                let changes = self.rng.below(12);
                self.nodes[i].sim.die_after(Some(changes));
            }
            1810..1850 => {
                if self.nodes[i].process.is_none() {
                    self.start(i);
                }
            }
            1850..1856 => self.nodes[i].hangs_until = self.step + self.rng.below(3000) as usize,
            1856..1866 => {
                let other = self.rng.below(n as u64) + 1;
                self.cut.insert((i as u64 + 1, other));
                if self.rng.once_in(2) {
                    self.cut.insert((other, i as u64 + 1));
                }
            }
            1866..1876 => self.cut.clear(),
            1876..1884 => {
                if let Some(process) = self.leader().and_then(|leader| self.nodes[leader].process.as_mut()) {
                    process.replica.group.hand_over(Successor::Any);
                }
            }
            1884..1888 => {
                if self.nodes.len() < 8 && self.wanted.len() < 5 {
                    self.add();
                }
            }
            1888..1891 => {
                if self.wanted.len() > 1 {
                    let gone = self.wanted.remove(self.rng.below(self.wanted.len() as u64) as usize);
                    self.removed.insert(gone);
                }
            }
            1891..1950 => {
                (self.nodes[i].wanted, self.nodes[i].removed) = (self.wanted.clone(), self.removed.clone());
            }
            1950..1980 => {
                if let Some(process) = &self.nodes[i].process {
                    process.readers.run();
                    self.perform(i);
                }
            }
            _ => {
                let stop = self.rng.once_in(4);
                if self.nodes[i].hangs_until <= self.step
                    && let Some(process) = &mut self.nodes[i].process
                {
                    let failed = process.writer.quiet(stop).is_err();
                    if failed || stop {
                        self.kill(i, failed);
                    }
                    self.perform(i);
                }
            }
        }
    }

    /// Removes all faults. Returns true once exactly the wanted nodes vote and all have applied the same entries.
    pub(super) fn settle(&mut self, rounds: usize) -> bool {
        self.cut.clear();
        for node in &mut self.nodes {
            node.hangs_until = 0;
            node.sim.die_after(None);
            (node.wanted, node.removed) = (self.wanted.clone(), self.removed.clone());
        }
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for round in 0..rounds {
            self.heal_step(&all, 500);
            let statuses: Vec<_> = self.nodes.iter().filter(|n| self.wanted.contains(&n.id)).collect();
            let statuses: Vec<_> =
                statuses.iter().filter_map(|n| n.process.as_ref()).map(|p| p.replica.group.status()).collect();
            let last = statuses.iter().map(|s| s.last_index).max();
            let same = statuses.iter().all(|s| Some(s.applied_index) == last && s.voters == self.wanted);
            if same && self.leader().is_some() && round > 50 {
                return true;
            }
        }
        false
    }

    fn check_fates(&self) {
        let mut found: BTreeMap<u64, Vec<Offset>> = BTreeMap::new();
        let (mut next, mut time, mut next_index) = (0, 0, LogIndex(2));
        // Nothing is known about offsets that were trimmed before they were read.
        let mut unseen = BTreeSet::new();
        for (index, (term, data)) in &self.committed {
            let entry = Entry { index: *index, term: *term, data: data.clone() };
            let stamp = entry.stamp().expect("a stamp");
            if *index > next_index {
                unseen.extend(next..stamp.base_offset.0);
                next = next.max(stamp.base_offset.0);
            }
            assert_eq!(stamp.base_offset.0, next, "entry {index} of term {term} begins elsewhere: {stamp:?}");
            next_index = index.next();
            next += u64::from(stamp.count);
            if stamp.kind == EntryKind::Records {
                assert!(stamp.append_time_us >= time, "time went back at entry {index}");
                time = stamp.append_time_us;
                let payload = entry.payload();
                let record = payload::records(&payload).next().expect("a record").expect("canonical");
                let value = payload::record_value(record).expect("a value").first_chunk().copied().expect("a number");
                found.entry(u64::from_le_bytes(value)).or_default().push(stamp.base_offset);
            }
        }
        for (value, fate) in &self.fates {
            let places = found.get(value).map_or(&[][..], Vec::as_slice);
            match fate {
                Fate::Appended(offset) if unseen.contains(&offset.0) => assert!(places.is_empty()),
                Fate::Appended(offset) => assert_eq!(places, [*offset], "value {value} was acknowledged"),
                Fate::Not => assert!(places.is_empty(), "value {value} was refused and is stored at {places:?}"),
                Fate::Unknown => assert!(places.len() <= 1, "value {value} stands at {places:?}"),
            }
        }
    }
}

fn history(seed: u64, nodes: u64, steps: usize) -> usize {
    let mut world = World::new(seed, nodes);
    (0..steps).for_each(|_| world.chaos());
    if !world.settle(6000) {
        for node in &world.nodes {
            println!("{:?}: {:#?}", node.id, node.process.as_ref().map(|p| p.replica.group.status()));
        }
        panic!("the nodes {:?} do not converge", world.wanted);
    }
    world.check_fates();
    world.fates.values().filter(|f| matches!(f, Fate::Appended(_))).count()
}

/// `SERIATIM_SEEDS=n` runs n histories instead of a few, from `SERIATIM_SEED` on.
#[test]
fn whole_groups() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let (first, count): (u64, u64) = (number("SERIATIM_SEED").unwrap_or(1), number("SERIATIM_SEEDS").unwrap_or(20));
    let mut appended = 0;
    for seed in first..first + count {
        let failed = std::panic::catch_unwind(|| history(seed, 1 + seed % 4, 6000));
        match failed {
            Ok(n) => appended += n,
            Err(panic) => {
                println!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{appended} records acknowledged in {count} histories");
}
