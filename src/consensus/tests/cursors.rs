//! Random histories of readers: several processes acquire the same cursors and commit their positions, through any leader and
//! several times, while nodes crash, the network is cut and the log is trimmed. The committed commands are compared with a
//! model: each one fits the state before it, so that no process moves a cursor that another one has acquired, and no commit
//! replaces one that it has not seen.

use std::collections::BTreeMap;

use super::sim::{Answer, World, answered};
use super::violations;
use crate::consensus::group::Rules;
use crate::consensus::handle::{Appended, Proposal, ProposeError};
use crate::log_state::cursors::{AcquireCursor, CommitCursor, Cursor};
use crate::log_state::faults::{Fault, set};
use crate::log_state::{LogState, StateCommand, StateRefusal};
use crate::storage::entry::{Entry, EntryKind};
use crate::storage::faults as storage;
use crate::types::{CursorName, GroupId, LogIndex, Offset, Term};

const NODES: usize = 3;
const CURSORS: [&str; 2] = ["a", "b"];

/// A process that reads with a cursor. When it restarts, it is another instance.
struct Reader {
    cursor: CursorName,
    instance: u64,
    acquiring: Option<Answer>,
    /// The epoch and the revision that it knows.
    has: Option<(u64, u64)>,
    position: u64,
    attempts: Vec<(StateCommand, Answer)>,
}

struct History {
    world: World,
    readers: Vec<Reader>,
    instances: u64,
    trims: u64,
    /// Commands that were acknowledged as changes.
    done: Vec<(Appended, StateCommand)>,
}

fn name(cursor: &str) -> CursorName {
    CursorName::new(cursor).expect("a name")
}

fn proposal(command: &StateCommand) -> Proposal {
    Proposal::state(GroupId(1), command)
}

impl Reader {
    fn new(cursor: &str, instance: u64) -> Reader {
        Reader { cursor: name(cursor), instance, acquiring: None, has: None, position: 0, attempts: Vec::new() }
    }

    fn acquire(&self) -> StateCommand {
        StateCommand::AcquireCursor(AcquireCursor {
            name: self.cursor.clone(),
            instance: self.instance,
            expected_epoch: None,
            next_offset: Offset(0),
            owner: String::new(),
        })
    }
}

impl History {
    fn new(seed: u64) -> History {
        let world = World::new(seed, NODES as u64, Rules::default());
        let readers = (0..4).map(|i| Reader::new(CURSORS[i % 2], i as u64 + 1)).collect();
        History { world, readers, instances: 10, trims: 0, done: Vec::new() }
    }

    fn below(&mut self, n: usize) -> usize {
        self.world.rng.below(n)
    }

    fn cursor_on(&self, node: usize, cursor: &CursorName) -> Option<Cursor> {
        self.world.nodes[node].group.as_ref()?.log_state().0.tables.cursors.get(cursor).cloned()
    }

    fn round(&mut self) {
        for i in 0..NODES {
            self.world.tick(i);
            self.world.sync(i);
            // Also one that was replaced and does not know it yet.
            let leads = self.world.nodes[i].group.as_ref().is_some_and(|group| group.leads());
            if leads {
                // Several commands in one turn become one entry.
                let commands = self.below(4);
                (0..commands).for_each(|_| self.act(i));
                self.world.perform(i);
            }
        }
        for _ in 0..self.world.network.len().min(60) {
            self.world.deliver();
            let i = self.below(NODES);
            if self.below(3) == 0 {
                self.world.sync(i);
            }
        }
        self.take_answers();
    }

    fn take_answers(&mut self) {
        for number in 0..self.readers.len() {
            let acquire = self.readers[number].acquire();
            let reader = &mut self.readers[number];
            if let Some(answer) = reader.acquiring.as_mut().and_then(answered) {
                reader.acquiring = None;
                if let Ok(appended) = answer {
                    self.done.push((appended, acquire));
                }
                let is_there = matches!(answer, Ok(_) | Err(ProposeError::State(StateRefusal::Unchanged(_))));
                let (cursor, instance) = (reader.cursor.clone(), reader.instance);
                let found = (0..NODES).filter_map(|node| self.cursor_on(node, &cursor));
                let mine = found.filter(|cursor| cursor.instance == instance).max_by_key(|cursor| cursor.revision);
                if let Some(cursor) = mine.filter(|_| is_there) {
                    self.readers[number].has = Some((cursor.epoch, cursor.revision));
                    self.readers[number].position = cursor.next_offset.0;
                }
            }
            let reader = &mut self.readers[number];
            for (command, mut answer) in std::mem::take(&mut reader.attempts) {
                match answered(&mut answer) {
                    None => reader.attempts.push((command, answer)),
                    Some(Ok(appended)) => self.done.push((appended, command)),
                    Some(Err(_)) => {}
                }
            }
        }
    }

    fn act(&mut self, leader: usize) {
        let number = self.below(self.readers.len());
        match self.below(12) {
            0 => {
                self.instances += 1;
                let cursor = self.readers[number].cursor.to_string();
                self.readers[number] = Reader::new(&cursor, self.instances);
            }
            1 => {
                let end = self.world.nodes[leader].group.as_ref().map(|group| group.visible().next_offset);
                self.trims += 1;
                self.world.trim(leader, 1_000_000 + self.trims, end.unwrap_or_default());
            }
            2 => self.world.propose(leader, 2_000_000 + self.instances * 1000 + self.trims),
            _ => {
                let Some((epoch, revision)) = self.readers[number].has else {
                    if self.readers[number].acquiring.is_none() {
                        let command = self.readers[number].acquire();
                        let answer = self.world.ask_later(leader, proposal(&command));
                        self.readers[number].acquiring = Some(answer);
                    }
                    return;
                };
                // Sometimes a commit that moves back, and sometimes one that expects the revision that the reader knows.
                let step = self.below(4) as u64;
                let reader = &mut self.readers[number];
                reader.position += step;
                let position = if step == 0 { reader.position.saturating_sub(2) } else { reader.position };
                let cursor = reader.cursor.clone();
                let expects = self.below(2) == 0;
                let seen = self.cursor_on(leader, &cursor).filter(|cursor| cursor.epoch == epoch);
                let revision = seen.map_or(revision, |cursor| cursor.revision);
                let command = StateCommand::CommitCursor(CommitCursor {
                    name: cursor,
                    next_offset: Offset(position),
                    epoch,
                    expected_revision: expects.then_some(revision),
                    allow_rewind: step == 0 && self.below(2) == 0,
                    metadata: Vec::new(),
                });
                let answer = self.world.ask_later(leader, proposal(&command));
                self.readers[number].attempts.push((command, answer));
            }
        }
    }

    fn episode(&mut self) {
        self.world.disturb();
        let rounds = 20 + self.below(60);
        (0..rounds).for_each(|_| self.round());
        self.world.start_some();
    }

    /// Compares all committed commands with the model, and the state of the replicas with its end.
    fn check(&self) {
        let mut model = Model::default();
        let mut entries: BTreeMap<LogIndex, (Term, Vec<StateCommand>)> = BTreeMap::new();
        for (index, (term, data)) in &self.world.committed {
            let entry = Entry { index: *index, term: *term, data: data.clone() };
            let Ok(stamp) = entry.stamp() else { continue };
            if stamp.kind == EntryKind::State {
                let commands = StateCommand::decode_all(&entry.payload()).expect("commands");
                commands.iter().for_each(|command| model.apply(command));
                entries.insert(*index, (*term, commands));
            }
        }
        for (appended, command) in &self.done {
            let (term, commands) = entries.get(&appended.index).expect("an acknowledged command is missing");
            assert!(*term == appended.term && commands.contains(command), "an acknowledged command was replaced");
        }
        let states: Vec<LogState> =
            self.world.nodes.iter().filter_map(|node| Some(node.group.as_ref()?.log_state().0)).collect();
        assert!(states.iter().all(|state| state.tables == states[0].tables), "the replicas differ");
        for (name, expected) in &model.cursors {
            let cursor = states[0].tables.cursors.get(name).expect("a cursor is lost");
            assert_eq!(
                (cursor.next_offset, cursor.instance),
                (expected.next_offset, expected.instance),
                "cursor {name}"
            );
        }
    }
}

/// What the commands mean, without the code that it checks.
#[derive(Default)]
pub struct Model {
    changes: u64,
    pub cursors: BTreeMap<CursorName, ModelCursor>,
}

pub struct ModelCursor {
    pub next_offset: Offset,
    pub instance: u64,
    epoch: u64,
    revision: u64,
}

impl Model {
    pub fn apply(&mut self, command: &StateCommand) {
        match command {
            StateCommand::AcquireCursor(acquire) => {
                self.changes += 1;
                let before = self.cursors.get(&acquire.name);
                assert!(before.is_none_or(|cursor| cursor.instance != acquire.instance), "it has the cursor already");
                let next_offset = before.map_or(acquire.next_offset, |cursor| cursor.next_offset);
                let (epoch, revision, instance) = (self.changes, self.changes, acquire.instance);
                self.cursors.insert(acquire.name.clone(), ModelCursor { next_offset, instance, epoch, revision });
            }
            StateCommand::CommitCursor(commit) => {
                self.changes += 1;
                let cursor = self.cursors.get_mut(&commit.name).expect("a cursor");
                assert_eq!(commit.epoch, cursor.epoch, "a reader that was replaced moved cursor {}", commit.name);
                if let Some(expected) = commit.expected_revision {
                    assert_eq!(expected, cursor.revision, "a commit replaced another that it has not seen");
                }
                assert!(commit.allow_rewind || commit.next_offset >= cursor.next_offset, "the cursor moved back");
                (cursor.next_offset, cursor.revision) = (commit.next_offset, self.changes);
            }
            StateCommand::InitProducer(_) => {}
            StateCommand::DeleteCursor(_) => panic!("nobody has sent it"),
        }
    }
}

fn history(seed: u64) {
    let mut history = History::new(seed);
    (0..100).for_each(|_| history.round());
    for _ in 0..8 {
        history.episode();
    }
    assert!(history.world.settle(4000), "the nodes do not converge");
    history.take_answers();
    history.check();
}

fn seeds() -> u64 {
    std::env::var("SERIATIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

#[test]
fn a_cursor_belongs_to_its_last_reader_and_no_commit_is_lost() {
    for seed in 1..=seeds() {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Several commands of one turn need one entry, so one write and one sync.
#[test]
fn commands_of_one_turn_share_an_entry_and_each_gets_its_answer() {
    let mut world = World::new(1, 1, Rules::default());
    assert!(world.settle(200));
    let last = |world: &World| world.nodes[0].group.as_ref().expect("it runs").last_index();
    let before = last(&world);
    let mut readers: Vec<Reader> = (0..100).map(|i| Reader::new(&format!("c{i}"), i + 1)).collect();
    readers.push(Reader::new("c7", 8));
    let answers = readers.iter().map(|reader| world.ask_later(0, proposal(&reader.acquire())));
    let mut answers: Vec<Answer> = answers.collect();
    world.perform(0);
    assert_eq!(last(&world).0, before.0 + 1);
    assert!(world.settle(200));
    let results: Vec<_> = answers.iter_mut().map(|answer| answered(answer).expect("an answer")).collect();
    assert!(results[..100].iter().all(|result| result.is_ok_and(|appended| appended.index.0 == before.0 + 1)));
    // The same request twice in one turn: the second one changes nothing.
    assert_eq!(results[100], Err(ProposeError::State(StateRefusal::Unchanged(0))));
    assert_eq!(world.nodes[0].group.as_ref().expect("it runs").log_state().0.tables.cursors.len(), 100);
}

#[test]
fn histories_of_cursors_detect_each_broken_rule() {
    for fault in [
        Fault::RevisionIgnored,
        Fault::CursorEpochIgnored,
        Fault::CursorsNotInSnapshot,
        Fault::NotInSnapshot,
        Fault::NotRolledBack,
    ] {
        set(Some(fault));
        let found = violations(400, history);
        set(None);
        println!("{fault:?}: {found} of 400 histories");
        assert!(found > 0, "no history detects {fault:?}");
    }
}

/// The simulated disk stores the tables as `storage/write/state_files.rs` does. The log is trimmed so often here that a
/// snapshot's state file is soon replaced; `producers.rs` detects that one is missing.
#[test]
fn histories_of_cursors_detect_a_missing_state_file() {
    let fault = storage::Fault::TrimBeyondState;
    storage::set(Some(fault));
    let found = violations(400, history);
    storage::set(None);
    println!("{fault:?}: {found} of 400 histories");
    assert!(found > 0, "no history detects {fault:?}");
}
