use super::cursors::{AcquireCursor, CommitCursor, DeleteCursor};
use super::faults::{Fault, set};
use super::producers::{ANSWERS_MAX, Answer, InitProducer, PRODUCERS_MAX, ProducerRequest};
use super::{StateCommand, StateRefusal, Tables};
use crate::types::{CursorName, LogIndex, Offset, ProducerId, ProducerName, Term};

fn init(id: u64, name: Option<&str>, instance: u64) -> InitProducer {
    let name = name.map(|name| ProducerName::new(name).expect("a name"));
    InitProducer { id: ProducerId(id), name, instance, ..InitProducer::default() }
}

fn request(id: u64, epoch: u32, sequence: u64) -> ProducerRequest {
    ProducerRequest { id: ProducerId(id), epoch, sequence }
}

fn answer(index: u64) -> Answer {
    Answer { offset: Offset(10 * index), count: 2, term: Term(1), index: LogIndex(index), append_time_us: 7 }
}

fn cursor_name() -> CursorName {
    CursorName::new("reader").expect("a name")
}

fn acquire(instance: u64) -> AcquireCursor {
    let name = cursor_name();
    AcquireCursor { name, instance, expected_epoch: None, next_offset: Offset(5), owner: "host".into() }
}

fn commit(next_offset: u64, epoch: u64) -> CommitCursor {
    CommitCursor {
        name: cursor_name(),
        next_offset: Offset(next_offset),
        epoch,
        expected_revision: None,
        allow_rewind: false,
        metadata: b"m".to_vec(),
    }
}

#[test]
fn a_retry_gets_the_first_answer_and_gaps_are_refused() {
    let mut tables = Tables::default();
    let producers = &mut tables.producers;
    assert_eq!(producers.check(request(1, 1, 1), 2), Err(StateRefusal::ProducerUnknown(1)));
    producers.init(&init(1, None, 9), LogIndex(1));
    for sequence in 1..=100 {
        assert_eq!(producers.check(request(1, 1, sequence + 1), 2), Err(StateRefusal::SequenceGap(sequence - 1)));
        assert_eq!(producers.check(request(1, 1, sequence), 2), Ok(None));
        producers.appended(ProducerId(1), sequence, answer(sequence));
        assert_eq!(producers.check(request(1, 1, sequence), 2), Ok(Some(answer(sequence))));
        assert_eq!(producers.check(request(1, 1, sequence), 3), Err(StateRefusal::SequenceReused(2)));
    }
    let oldest = 100 - ANSWERS_MAX as u64 + 1;
    assert_eq!(producers.check(request(1, 1, oldest), 2), Ok(Some(answer(oldest))));
    assert_eq!(producers.check(request(1, 1, oldest - 1), 2), Err(StateRefusal::SequenceTooOld(100)));
    assert_eq!(producers.get(ProducerId(1)).map(|producer| producer.records), Some(200));
}

#[test]
fn a_name_is_taken_over_by_another_instance_and_not_by_a_retry() {
    let mut tables = Tables::default();
    let producers = &mut tables.producers;
    let name = ProducerName::new("a").expect("a name");
    assert_eq!(producers.check_init(&init(1, Some("a"), 8)), Ok(true));
    producers.init(&init(1, Some("a"), 8), LogIndex(2));
    producers.appended(ProducerId(1), 1, answer(3));
    assert_eq!(producers.check_init(&init(2, Some("a"), 8)), Ok(false), "a retry");
    let only_new = InitProducer { expected_epoch: Some(0), ..init(2, Some("a"), 9) };
    assert_eq!(producers.check_init(&only_new), Err(StateRefusal::ProducerEpoch(1)));
    producers.init(&init(2, Some("a"), 9), LogIndex(4));
    let taken = producers.named(&name).expect("it is there");
    assert_eq!((taken.id, taken.epoch, taken.last_sequence), (ProducerId(1), 2, 1));
    assert_eq!(producers.check(request(1, 1, 2), 2), Err(StateRefusal::ProducerFenced(2)));
    assert_eq!(producers.check(request(1, 2, 2), 2), Ok(None));
    assert_eq!(producers.check(request(1, 2, 1), 2), Ok(Some(answer(3))), "in any epoch");
    assert_eq!(producers.check_init(&init(1, None, 3)), Err(StateRefusal::ProducerIdTaken(1)));
}

#[test]
fn the_unnamed_producer_that_was_used_least_recently_is_replaced() {
    let mut tables = Tables::default();
    let producers = &mut tables.producers;
    producers.init(&init(1, Some("a"), 1), LogIndex(1));
    for id in 2..=PRODUCERS_MAX as u64 {
        producers.init(&init(id, None, id), LogIndex(id));
    }
    producers.appended(ProducerId(2), 1, answer(9000));
    producers.init(&init(5000, None, 5000), LogIndex(9001));
    assert_eq!(producers.len(), PRODUCERS_MAX);
    let is_there = |id| tables.producers.get(ProducerId(id)).is_some();
    assert_eq!([1, 2, 3, 4, 5000].map(is_there), [true, true, false, true, true]);

    let mut named = Tables::default();
    for id in 1..=PRODUCERS_MAX as u64 {
        named.producers.init(&init(id, Some(&format!("p{id}")), id), LogIndex(id));
    }
    let full = Err(StateRefusal::ProducersFull(PRODUCERS_MAX as u64));
    assert_eq!(named.producers.check_init(&init(5000, None, 5000)), full);
}

/// A retry is recognized however late it is.
#[test]
fn a_producer_is_known_however_long_it_pauses() {
    let year_us = 365 * 24 * 3_600_000_000;
    let retry = || {
        let mut tables = Tables::default();
        tables.apply(&StateCommand::InitProducer(init(1, None, 9)), LogIndex(1), 7);
        tables.producers.appended(ProducerId(1), 1, answer(2));
        tables.apply(&StateCommand::InitProducer(init(2, None, 10)), LogIndex(3), 7 + year_us);
        tables.producers.check(request(1, 1, 1), 2)
    };
    assert_eq!(retry(), Ok(Some(answer(2))));
    set(Some(Fault::EvictedByTime));
    assert_eq!(retry(), Err(StateRefusal::ProducerUnknown(1)), "the rule is needed");
    set(None);
}

#[test]
fn a_cursor_moves_forward_and_belongs_to_its_last_reader() {
    let mut tables = Tables::default();
    let apply = |tables: &mut Tables, command: StateCommand, index| {
        let changes = tables.would_change(&command);
        tables.apply(&command, LogIndex(index), 1000 + index);
        changes
    };
    assert_eq!(apply(&mut tables, StateCommand::CommitCursor(commit(7, 3)), 1), Err(StateRefusal::NoSuchCursor(0)));
    assert_eq!(apply(&mut tables, StateCommand::AcquireCursor(acquire(8)), 2), Ok(true));
    assert_eq!(apply(&mut tables, StateCommand::AcquireCursor(acquire(8)), 3), Ok(false), "a retry");
    let epoch = tables.cursors.get(&cursor_name()).expect("it is there").epoch;
    assert_eq!(apply(&mut tables, StateCommand::CommitCursor(commit(9, epoch)), 4), Ok(true));
    assert_eq!(apply(&mut tables, StateCommand::CommitCursor(commit(9, epoch)), 5), Ok(false), "a retry");
    assert_eq!(apply(&mut tables, StateCommand::CommitCursor(commit(8, epoch)), 6), Err(StateRefusal::CursorBehind(9)));
    let back = CommitCursor { allow_rewind: true, ..commit(8, epoch) };
    assert_eq!(apply(&mut tables, StateCommand::CommitCursor(back), 7), Ok(true));
    let cursor = tables.cursors.get(&cursor_name()).expect("it is there").clone();
    assert_eq!((cursor.next_offset, cursor.commit_time_us, cursor.owner.as_str()), (Offset(8), 1007, "host"));

    let other = CommitCursor { expected_revision: Some(cursor.revision + 1), ..commit(10, epoch) };
    let refused = Err(StateRefusal::CursorRevision(cursor.revision));
    assert_eq!(tables.would_change(&StateCommand::CommitCursor(other.clone())), refused);
    set(Some(Fault::RevisionIgnored));
    assert_eq!(tables.would_change(&StateCommand::CommitCursor(other)), Ok(true), "the rule is needed");
    set(None);

    assert_eq!(apply(&mut tables, StateCommand::AcquireCursor(acquire(9)), 8), Ok(true));
    let next = tables.cursors.get(&cursor_name()).expect("it is there").epoch;
    assert_eq!(
        apply(&mut tables, StateCommand::CommitCursor(commit(10, epoch)), 9),
        Err(StateRefusal::CursorFenced(next))
    );
    let delete = DeleteCursor { name: cursor_name(), epoch: Some(next), expected_revision: None };
    assert_eq!(apply(&mut tables, StateCommand::DeleteCursor(delete), 10), Ok(true));
    assert_eq!(apply(&mut tables, StateCommand::AcquireCursor(acquire(10)), 11), Ok(true));
    let again = tables.cursors.get(&cursor_name()).expect("it is there");
    assert!(again.epoch > next && again.next_offset == Offset(5), "an old reader stays fenced");
}

#[test]
fn tables_and_commands_decode_as_encoded() {
    let commands = [
        StateCommand::InitProducer(InitProducer {
            expected_epoch: Some(0),
            owner: "host".into(),
            ..init(1, Some("a"), 2)
        }),
        StateCommand::InitProducer(init(3, None, 4)),
        StateCommand::AcquireCursor(AcquireCursor { expected_epoch: Some(0), ..acquire(6) }),
        StateCommand::CommitCursor(CommitCursor { expected_revision: Some(1), ..commit(9, 1) }),
        StateCommand::DeleteCursor(DeleteCursor { name: cursor_name(), epoch: Some(7), expected_revision: Some(8) }),
    ];
    let mut tables = Tables::default();
    let mut joined = Vec::new();
    for command in &commands {
        let bytes = command.encode();
        assert_eq!(StateCommand::decode_all(&bytes).as_deref(), Ok(std::slice::from_ref(command)));
        joined.extend(bytes);
        tables.apply(command, LogIndex(5), 6);
    }
    assert_eq!(StateCommand::decode_all(&joined).as_deref(), Ok(&commands[..]), "payloads can be joined");
    tables.producers.appended(ProducerId(1), 1, answer(8));
    let bytes = tables.encode();
    assert_eq!(Tables::decode(&bytes).as_ref(), Ok(&tables));
    assert!(StateCommand::decode_all(&[]).is_err() && StateCommand::decode_all(&[0xff]).is_err());
    // A field of a newer version is never ignored.
    assert!(Tables::decode(&[&bytes[..], &[0xa0, 0x1f, 1]].concat()).is_err());
    assert!(StateCommand::decode_all(&[&joined[..], &[0xa0, 0x1f, 1]].concat()).is_err());
}
