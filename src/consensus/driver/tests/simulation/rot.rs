//! Synced bytes that change on a disk. A start finds them, or the scrub of a node that runs. The cluster heals itself: the
//! node writes its files again, from memory or with the entries of a peer, or gets new replicas.

use std::path::{Path, PathBuf};

use super::super::machines::Running;
use super::*;

impl Simulation {
    /// Everything of a node is synced, and protected by its manifests; then a byte on its disk changes, and it starts again.
    pub(super) fn rot(&mut self, node: usize) {
        if !self.may_rot(node) {
            return;
        }
        self.cluster.flush(node);
        self.cluster.crash(node);
        if self.change_bytes(node, |path| path.to_string_lossy().contains("/groups/")) {
            self.cluster.start(node);
        }
    }

    /// Bytes on the disk of a running node change, mostly in a segment that is not written any more.
    pub(super) fn rot_running(&mut self, node: usize) {
        if !self.may_rot(node) || self.cluster.machines[node].paused > 0 {
            return;
        }
        self.cluster.flush(node);
        if self.cluster.running[node].is_none() {
            return;
        }
        let newest = self.newest_segments(node);
        let (is_segment, sealed_only) =
            (|path: &Path| path.extension().is_some_and(|e| e == "seg"), !self.cluster.one_in(4));
        let is_derived = |path: &Path| path.extension().is_some_and(|e| e == "idx" || e == "tmp" || e == "lock");
        self.change_bytes(node, |path| match sealed_only {
            true => is_segment(path) && !newest.contains(&path.to_owned()),
            false => path.to_string_lossy().contains("/groups/") && !is_derived(path),
        });
        self.scrub(node);
    }

    fn may_rot(&self, node: usize) -> bool {
        self.may_lose(node) && !self.cluster.machines.iter().any(|machine| machine.gone)
    }

    /// The newest segment of each group of a node.
    fn newest_segments(&self, node: usize) -> Vec<PathBuf> {
        let groups = self.cluster.driver(node).into_iter().flat_map(|driver| driver.groups.iter());
        let newest = groups.filter_map(|(_, replica)| Some(replica.reader.view().parts.last()?.segment.path()));
        newest.collect()
    }

    /// Changes a bit, or zeros some bytes, in a file of a node. Returns false if there is none.
    fn change_bytes(&mut self, node: usize, may_change: impl Fn(&Path) -> bool) -> bool {
        let files = self.cluster.machines[node].disk.files().into_iter();
        let files: Vec<_> = files.filter_map(|(path, bytes)| Some((path, bytes?))).collect();
        let files: Vec<_> = files.into_iter().filter(|(path, bytes)| may_change(path) && !bytes.is_empty()).collect();
        if files.is_empty() {
            return false;
        }
        let (path, mut bytes) = files[self.cluster.rng.below(files.len())].clone();
        let at = self.cluster.rng.below(bytes.len());
        if self.cluster.one_in(2) {
            bytes[at] ^= 1 << self.cluster.rng.below(8);
        } else {
            let end = bytes.len().min(at + 1 + self.cluster.rng.below(700));
            bytes[at..end].fill(0);
        }
        self.cluster.checks.trace.line(|| format!("byte {at} of {} of node {node} is changed", path.display()));
        self.cluster.machines[node].disk.damage(&path, bytes);
        (self.cluster.machines[node].damaged, self.cluster.machines[node].rots) = (true, true);
        true
    }

    /// The scrub reads all files of a node.
    fn scrub(&mut self, node: usize) {
        if let Some(Running { driver, .. }) = &self.cluster.running[node] {
            driver.host.scrub.pass_by_hand(&driver.host.disk, driver.host.data_dir.path());
        }
    }

    /// Notes which nodes have healed: the scrub finds nothing, and every replica takes part.
    pub(super) fn note_healed(&mut self) {
        for i in 0..self.cluster.machines.len() {
            if !self.cluster.machines[i].rots {
                continue;
            }
            // It does not start without its catalog: another machine replaces it.
            if self.cluster.machines[i].refused {
                self.cluster.machines[i].rots = false;
            }
            self.scrub(i);
            let is_healed = self.cluster.driver(i).is_some_and(|driver| {
                let sound = |replica: &crate::consensus::replica::Replica| {
                    !replica.group.is_damaged() && replica.reader.published().damages().list().is_empty()
                };
                driver.host.lost.iter().next().is_none() && driver.groups.iter().all(|(_, replica)| sound(replica))
            });
            if is_healed {
                self.cluster.checks.trace.line(|| format!("node {i} has healed"));
                (self.cluster.machines[i].damaged, self.cluster.machines[i].rots) = (false, false);
            }
        }
    }
}
