//! What each event does to the cluster.

use super::super::cluster::{id, this};
use super::super::machines::{Pace, Running};
use super::super::network::Weather;
use super::look::target;
use super::*;
use crate::catalog::{Catalog, Destination, LogMeta, Plan};
use crate::types::Offset;

/// At most this many machines, with those that are gone.
pub(super) const MACHINES_MAX: usize = 8;

impl Simulation {
    fn node(&self, number: usize) -> usize {
        number % self.cluster.running.len()
    }

    /// Returns a log; `number` is modulo the number of logs.
    pub(super) fn log(&self, number: usize) -> Option<LogMeta> {
        let mut logs = self.cluster.logs();
        (!logs.is_empty()).then(|| logs.swap_remove(number % logs.len()))
    }

    pub(super) fn happen(&mut self, event: &Event) {
        let nodes = self.cluster.running.len();
        match *event {
            Event::Nothing => {}
            Event::Weather { lost, doubled, overtaken, delay } => {
                self.cluster.weather = Weather { lost, doubled, overtaken, delay, busy: true };
            }
            Event::Calm => {
                self.cluster.weather = Weather::CALM;
                self.cluster.cut.clear();
            }
            Event::CutOneWay(a, b) => self.cluster.cut(a % nodes, b % nodes),
            Event::Cut(a, b) => {
                self.cluster.cut(a % nodes, b % nodes);
                self.cluster.cut(b % nodes, a % nodes);
            }
            Event::Isolate(a) => self.cluster.isolate(a % nodes),
            Event::Split(set) => {
                self.cluster.cut.clear();
                for (a, b) in (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))) {
                    if set >> a & 1 != set >> b & 1 {
                        self.cluster.cut(a, b);
                    }
                }
            }
            Event::Heal => self.cluster.cut.clear(),
            Event::Crash(a) => self.cluster.crash(a % nodes),
            Event::Blackout => {
                (0..nodes).for_each(|i| self.cluster.crash(i));
                self.cluster.start_all();
            }
            Event::Kill(a) => {
                self.cluster.kill(a % nodes);
                self.refuse_some(a % nodes);
            }
            Event::Refuse(a, b) => self.refuse(a % nodes, b % nodes),
            Event::CrashAfter(a, changes) => {
                let machine = &mut self.cluster.machines[a % nodes];
                machine.may_die = true;
                machine.disk.die_after(Some(changes));
            }
            Event::Stop(a) => {
                let node = self.node(a);
                self.hand_over(node);
                (0..4).for_each(|_| self.round());
                self.cluster.stop(node);
                self.refuse_some(node);
            }
            Event::Start(a) => self.cluster.start(a % nodes),
            Event::StartAll => self.cluster.start_all(),
            Event::SlowDisk(a, steps) => self.cluster.machines[a % nodes].pace = Pace::Slow(steps),
            Event::StuckDisk(a) => self.cluster.machines[a % nodes].pace = Pace::Stuck,
            Event::FullDisk(a) => {
                let node = self.node(a);
                self.cluster.set_free_bytes(node, 0);
            }
            Event::NoSpace(a, bytes) => {
                let machine = &mut self.cluster.machines[a % nodes];
                machine.may_die = true;
                machine.disk.fill_up(Some(bytes));
            }
            Event::RepairDisks => self.repair_disks(),
            Event::Rot(a) => self.rot(a % nodes),
            Event::RotRunning(a) => self.rot_running(a % nodes),
            Event::Lie(a) => self.cluster.liar = Some(id(a % nodes)),
            Event::Clock(a, seconds) => self.cluster.machines[a % nodes].clock_ahead_us = seconds * 1_000_000,
            Event::Pause(a, rounds) => self.cluster.machines[a % nodes].paused = rounds.into(),
            Event::Lead(log, a) => {
                let node = self.node(a);
                if let Some(log) = self.log(log) {
                    self.lead(log.group, node);
                }
            }
            Event::HandOver(a) => self.hand_over(a % nodes),
            Event::CreateLog(replicas) => {
                if self.cluster.logs().len() < 5 {
                    self.logs += 1;
                    let name = format!("more-{}", self.logs % 3);
                    let command = self.cluster.create_log(&name, replicas);
                    self.command(command);
                }
            }
            Event::DeleteLog(log, after_ms) => {
                if let Some(log) = self.log(log) {
                    self.command(Command::DeleteLog(log.group, Some(after_ms), None));
                }
            }
            Event::UndeleteLog(log) => {
                if let Some(log) = self.log(log) {
                    self.command(Command::UndeleteLog(log.group));
                }
            }
            Event::Resize(log, replicas) => {
                // A log with fewer replicas may be lost with a disk.
                let keeps = !self.cluster.machines.iter().any(|machine| machine.damaged || machine.gone);
                if let Some(log) = self.log(log).filter(|_| keeps && self.is_whole()) {
                    let settings = LogSettings { replicas: Some(replicas), ..log.settings.clone() };
                    self.command(Command::UpdateLog(log.group, settings, log.revision));
                }
            }
            Event::Move(log, a) => {
                let node = self.node(a);
                if let Some(log) = self.log(log).filter(|log| log.leaving.is_empty()) {
                    let others = log.replicas.iter().filter(|placement| placement.node != id(node));
                    if let Some(old) = others.max_by_key(|placement| placement.replica) {
                        self.command(Command::MoveReplica(log.group, old.replica, id(node)));
                    }
                }
            }
            Event::Trim(log, keep) => {
                if let Some(log) = self.log(log) {
                    self.trim(log.group, keep);
                }
            }
            Event::Join => {
                if nodes < MACHINES_MAX && self.joining.is_empty() {
                    let i = self.cluster.add_machine();
                    self.joining.push(i);
                }
            }
            Event::Replace(a) => {
                if self.may_lose(a % nodes) && nodes < MACHINES_MAX {
                    self.replace(a % nodes);
                }
            }
            Event::Remove(a) => {
                let members = self.catalog().map_or(0, |catalog| catalog.members().count());
                if members > 3 && self.may_lose(a % nodes) {
                    self.removing.push(id(a % nodes));
                    self.keep_up();
                }
            }
            Event::Drain(a) => self.plan(a, |plan| Plan { drained: true, ..plan }),
            Event::Leave(a, to) => {
                let to = to.map_or(Destination::AnyNode, |to| Destination::Node(id(self.node(to))));
                let members = self.catalog().map_or(0, |catalog| catalog.members().count());
                if members > 3 {
                    self.plan(a, |plan| Plan { leaves: Some(to), ..plan });
                }
            }
            Event::Undrain(a) => self.plan(a, |_| Plan::default()),
            Event::Wipe(a) => {
                if self.may_lose(a % nodes) && nodes < MACHINES_MAX {
                    self.wipe(a % nodes);
                }
            }
            Event::Balance => self.command(Command::SetBalancing(true)),
            Event::Load(requests) => self.clients.load = requests.into(),
            Event::Story(story, number) => self.tell(story, number),
        }
    }

    /// The catalog of the node that leads it, or else the newest one.
    pub(super) fn catalog(&self) -> Option<&Catalog> {
        let newest = || {
            let running = (0..self.cluster.running.len()).filter(|i| self.cluster.driver(*i).is_some());
            running.max_by_key(|i| self.cluster.driver(*i).map(|d| d.governor.catalog().members().count()))
        };
        let node = self.cluster.leader(GroupId::CATALOG).or_else(newest)?;
        self.cluster.driver(node).map(|driver| driver.governor.catalog())
    }

    pub(super) fn repair_disks(&mut self) {
        for i in 0..self.cluster.machines.len() {
            self.cluster.machines[i].pace = Pace::Usual;
            self.cluster.machines[i].disk.fill_up(None);
            self.cluster.set_free_bytes(i, 1 << 30);
        }
        self.cluster.liar = None;
    }

    /// Ends all faults.
    pub(super) fn calm(&mut self) {
        self.cluster.weather = Weather::CALM;
        self.cluster.cut.clear();
        self.repair_disks();
        for machine in &mut self.cluster.machines {
            machine.paused = 0;
            machine.disk.die_after(None);
        }
        self.cluster.start_all();
    }

    /// A node's connection to another one is refused.
    fn refuse(&mut self, a: usize, b: usize) {
        if let Some(Running { driver, .. }) = self.cluster.running[a].as_mut().filter(|_| a != b) {
            driver.peers.put_gone(id(b));
            self.cluster.perform(a);
        }
    }

    /// A process has ended. Some of the others notice it at once.
    fn refuse_some(&mut self, ended: usize) {
        for a in 0..self.cluster.running.len() {
            let is_cut =
                self.cluster.cut.contains(&(id(a), id(ended))) || self.cluster.cut.contains(&(id(ended), id(a)));
            if !is_cut && self.cluster.one_in(2) {
                self.refuse(a, ended);
            }
        }
    }

    fn plan(&mut self, node: usize, change: impl FnOnce(Plan) -> Plan) {
        let node = id(self.node(node));
        let Some(present) = self.catalog().map(|catalog| catalog.plan(node)) else { return };
        self.command(Command::PlanNode(node, change(present), present));
    }

    fn hand_over(&mut self, node: usize) {
        self.cluster.handle(node, ConsensusMsg::HandOver(reply().0));
    }

    pub(super) fn lead(&mut self, group: GroupId, node: usize) {
        let Some(leader) = self.cluster.leader(group) else { return };
        let Some(running) = &mut self.cluster.running[leader] else { return };
        if let Some(replica) = running.driver.quiet.wake(group, &mut running.driver.groups) {
            group::quiet::hand_over_to(&mut replica.group, id(node));
        }
        self.cluster.perform(leader);
    }

    fn trim(&mut self, group: GroupId, keep: i64) {
        let Some(node) = target(&mut self.cluster, group) else { return };
        let replica = self.cluster.driver(node).and_then(|driver| driver.groups.get(&group));
        let end = replica.map(|replica| replica.watermark.get().next_offset).unwrap_or_default();
        let first = Offset(end.0.saturating_sub_signed(keep));
        self.cluster.handle(node, ConsensusMsg::Propose(Proposal::trim(group, first), reply().0));
    }

    /// Asks for what is not done yet: joins and removals.
    pub(super) fn keep_up(&mut self) {
        self.note_healed();
        let Some(catalog) = self.catalog() else { return };
        // A node that was removed before it knew that it is a member does not join any more.
        let is_settled = |i: usize| catalog.member(id(i)).is_some() || catalog.is_removed(id(i));
        let joined: Vec<usize> = self.joining.iter().copied().filter(|i| is_settled(*i)).collect();
        let removed: Vec<NodeId> = self.removing.iter().copied().filter(|node| catalog.is_removed(*node)).collect();
        self.joining.retain(|i| !joined.contains(i));
        self.removing.retain(|node| !removed.contains(node));
        for i in self.joining.clone() {
            let plan = |old: &NodeId| self.catalog().map(|catalog| catalog.plan(*old)).unwrap_or_default();
            // If its old self was removed meanwhile, it joins as any other node does.
            let is_removed = |old: &NodeId| self.catalog().is_some_and(|catalog| catalog.is_removed(*old));
            let old = self.wiped.get(&i).filter(|old| !is_removed(old));
            let command = match old.map(|old| (*old, plan(old))) {
                Some((old, plan)) if !plan.may_be_replaced || plan.leaves.is_some() => {
                    Command::PlanNode(old, Plan { may_be_replaced: true, ..Plan::default() }, plan)
                }
                Some((old, _)) => Command::ReplaceNode(old, this(i)),
                None => Command::AddNode(this(i)),
            };
            self.command(command);
        }
        self.cluster.checks.forced.extend(&self.removing);
        for node in self.removing.clone() {
            self.command(Command::RemoveNode(node));
        }
    }

    /// Returns true if no disk is lost or damaged, or each of them is replaced.
    pub(super) fn is_whole(&self) -> bool {
        let damaged = self.cluster.machines.iter().any(|machine| machine.damaged && !machine.gone);
        !damaged && self.joining.is_empty() && self.removing.is_empty()
    }

    /// Returns true if the cluster can lose the disk of a machine: every group keeps a majority, whichever of its voters
    /// are the present ones.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        let machines = 0..self.cluster.machines.len();
        if self.joining.contains(&node) {
            return false;
        }
        if self.cluster.machines[node].gone || machines.clone().any(|i| i != node && self.cluster.machines[i].damaged) {
            return false;
        }
        // A node that is down may know other voters.
        let is_down = |i: usize| i != node && !self.cluster.machines[i].gone && self.cluster.running[i].is_none();
        if machines.clone().any(is_down) {
            return false;
        }
        // Nothing is under way.
        let end = |driver: &Driver| {
            let catalog = &driver.groups[&GroupId::CATALOG].group;
            (catalog.last_index(), catalog.visible().applied)
        };
        let ends: Vec<_> = machines.clone().filter_map(|i| self.cluster.driver(i)).map(end).collect();
        if ends.iter().any(|(last, applied)| last != applied || *last != ends[0].0) {
            return false;
        }
        let keeps = |driver: &Driver| {
            let catalog = driver.governor.catalog();
            catalog.logs().all(|log| {
                let lost = log.placements().filter(|placement| self.is_lost_with(node, placement.node)).count();
                let here = driver.groups.get(&log.group).map(|replica| replica.status().voters.len());
                let is_done = here.is_none_or(|voters| voters == log.replicas.len());
                // The policy has not acted yet after a change of the setting.
                let wanted = (catalog.settings_of(log).replicas as usize).min(catalog.members().count());
                let is_placed = log.replicas.len() == wanted && log.leaving.is_empty();
                wanted >= 3 && is_placed && lost <= 1 && is_done
            })
        };
        self.keeps_majorities(node, None)
            && (0..self.cluster.running.len()).filter_map(|i| self.cluster.driver(i)).all(keeps)
    }

    /// Returns true if `of` counts as lost once this machine is lost.
    fn is_lost_with(&self, node: usize, of: NodeId) -> bool {
        let lost = |i: usize| {
            let machine = &self.cluster.machines[i];
            i == node || machine.gone || machine.damaged
        };
        (0..self.cluster.machines.len()).any(|i| id(i) == of && lost(i)) || self.removing.contains(&of)
    }

    /// Returns true if every group, perhaps except one, keeps a majority of its voters without this machine.
    pub(super) fn keeps_majorities(&self, node: usize, except: Option<GroupId>) -> bool {
        let keeps = |driver: &Driver| {
            driver.groups.iter().filter(|(group, _)| Some(**group) != except).all(|(_, replica)| {
                let voters = replica.status().voters;
                voters.iter().filter(|voter| self.is_lost_with(node, **voter)).count() * 2 < voters.len().max(1)
            })
        };
        (0..self.cluster.running.len()).filter_map(|i| self.cluster.driver(i)).all(keeps)
    }

    /// A machine's disk is lost, and another machine joins in its place.
    pub(super) fn replace(&mut self, node: usize) {
        self.cluster.crash(node);
        self.cluster.machines[node].gone = true;
        self.removing.push(id(node));
        let new = self.cluster.add_machine();
        self.joining.push(new);
        self.keep_up();
    }

    /// A machine's disk is lost. It comes back with an empty one, and takes the place of its old self.
    pub(super) fn wipe(&mut self, node: usize) {
        self.cluster.crash(node);
        self.cluster.machines[node].gone = true;
        let new = self.cluster.add_machine();
        self.joining.push(new);
        self.wiped.insert(new, id(node));
        self.keep_up();
    }
}
