//! Histories that are right, and one wrong history for each property.

use super::*;

const fn item(producer: u16, number: u64) -> Item {
    Item { producer, number }
}

/// The append time of an offset is 1,000 more than the offset.
fn found(offset: u64, producer: u16, number: u64) -> Found {
    Found { offset, item: item(producer, number), append_time_us: 1000 + offset }
}

fn log(node: &str, first_offset: u64, records: Vec<Found>) -> FinalLog {
    let next_offset = records.last().map_or(first_offset, |found| found.offset + 1);
    FinalLog { node: node.to_owned(), first_offset, next_offset, records }
}

/// Producer 0 is idempotent and producer 1 is not. Offsets 0 to 3 contain 0.0, 1.0, 0.1 and 1.1; the outcome of 1.1 is
/// unknown, and 1.2 was refused.
fn history() -> Checker {
    let mut checker = Checker::default();
    checker.declare_in_order(0);
    checker.sent(item(0, 0), 10);
    checker.sent(item(1, 0), 11);
    checker.acknowledged(item(0, 0), Some(0), 20);
    checker.acknowledged(item(1, 0), Some(1), 21);
    checker.sent(item(0, 1), 30);
    checker.sent(item(1, 1), 31);
    checker.sent(item(1, 2), 32);
    checker.acknowledged(item(0, 1), Some(2), 40);
    checker.refused(item(1, 2));
    checker
}

fn records() -> Vec<Found> {
    vec![found(0, 0, 0), found(1, 1, 0), found(2, 0, 1), found(3, 1, 1)]
}

fn finish(checker: Checker, records: Vec<Found>) -> Vec<Wrong> {
    checker.finish(&[log("n1", 0, records.clone()), log("n2", 0, records)])
}

#[track_caller]
fn assert_finds(found: &[Wrong], wanted: impl Fn(&Wrong) -> bool) {
    assert!(found.iter().any(wanted), "{found:?}");
}

#[test]
fn accepts_a_right_history() {
    let mut checker = history();
    checker.opened("tail", 0);
    records().into_iter().for_each(|found| checker.read("tail", found));
    checker.reached_end("tail", 41, 4);
    checker.trim_requested(2);
    checker.trim_acknowledged(2);
    // A reader that begins after the trim, and one that was in the middle of it.
    checker.opened("late", 0);
    checker.read("late", found(2, 0, 1));
    checker.commit_requested(3);
    checker.commit_acknowledged(3);
    checker.cursor_is_at(3);
    checker.progress(0, 2);
    let records = records().split_off(2);
    let found = checker.finish(&[log("n1", 2, records.clone()), log("n2", 2, records)]);
    assert_eq!(found, []);
}

/// An unknown outcome may be either.
#[test]
fn accepts_a_record_of_unknown_outcome_that_is_not_there() {
    let mut records = records();
    records.pop();
    assert_eq!(finish(history(), records), []);
}

#[test]
fn finds_an_acknowledged_record_that_is_lost() {
    let mut records = records();
    records.truncate(2);
    assert_finds(&finish(history(), records), |wrong| matches!(wrong, Wrong::Lost { offset: 2, .. }));
}

#[test]
fn finds_a_record_that_only_one_node_lacks() {
    let mut short = records();
    short.pop();
    let wrong = history().finish(&[log("n1", 0, records()), log("n2", 0, short)]);
    assert_finds(&wrong, |wrong| matches!(wrong, Wrong::Lost { offset: 3, node, .. } if node == "n2"));
}

/// The reader saw a record that was not committed.
#[test]
fn finds_a_record_of_unknown_outcome_that_was_read_and_vanished() {
    let mut checker = history();
    checker.opened("tail", 3);
    checker.read("tail", found(3, 1, 1));
    let mut records = records();
    records.pop();
    assert_finds(&finish(checker, records), |wrong| matches!(wrong, Wrong::Lost { offset: 3, .. }));
}

/// One reader saw it, and afterwards the offset contains another record, so that it is both there and not there.
#[test]
fn finds_an_unknown_outcome_that_is_both() {
    let mut checker = history();
    checker.sent(item(1, 3), 50);
    checker.opened("tail", 3);
    checker.read("tail", found(3, 1, 1));
    let mut records = records();
    records[3] = found(3, 1, 3);
    assert_finds(&finish(checker, records), |wrong| matches!(wrong, Wrong::Replaced { offset: 3, .. }));
}

#[test]
fn finds_a_record_that_is_there_twice() {
    let mut records = records();
    records.push(found(4, 1, 1));
    let wrong = finish(history(), records);
    assert_finds(&wrong, |wrong| matches!(wrong, Wrong::Twice { offsets: [3, 4], .. }));
}

#[test]
fn finds_records_in_another_order_than_they_were_sent() {
    let mut checker = history();
    checker.sent(item(0, 2), 50);
    checker.sent(item(0, 3), 51);
    let mut records = records();
    records.extend([found(4, 0, 3), found(5, 0, 2)]);
    assert_finds(&finish(checker, records), |wrong| matches!(wrong, Wrong::Reordered { offset: 5, next: 4, .. }));
}

#[test]
fn finds_a_record_that_was_left_out() {
    let mut checker = history();
    checker.sent(item(0, 2), 50);
    checker.sent(item(0, 3), 51);
    let mut records = records();
    records.push(found(4, 0, 3));
    assert_finds(&finish(checker, records), |wrong| matches!(wrong, Wrong::LeftOut { producer: 0, number: 2, .. }));
}

#[test]
fn finds_an_acknowledgement_without_an_offset_whose_record_is_not_there() {
    let mut checker = history();
    checker.sent(item(0, 2), 50);
    checker.acknowledged(item(0, 2), None, 60);
    assert_finds(&finish(checker, records()), |wrong| matches!(wrong, Wrong::LeftOut { producer: 0, number: 2, .. }));
}

#[test]
fn finds_a_record_that_nobody_sent() {
    let mut records = records();
    records.push(found(4, 1, 7));
    assert_finds(&finish(history(), records), |wrong| matches!(wrong, Wrong::Invented { .. }));
}

#[test]
fn finds_a_refused_record_that_is_there() {
    let mut records = records();
    records.push(found(4, 1, 2));
    assert_finds(&finish(history(), records), |wrong| matches!(wrong, Wrong::RefusedButThere { offset: 4, .. }));
}

/// It was read before its producer learned that it was refused.
#[test]
fn finds_a_record_that_is_refused_after_it_was_read() {
    let mut checker = history();
    checker.opened("tail", 3);
    checker.read("tail", found(3, 1, 1));
    checker.refused(item(1, 1));
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::RefusedButThere { offset: 3, .. }));
}

#[test]
fn finds_a_gap_of_a_reader_and_of_a_log() {
    let mut checker = history();
    checker.opened("tail", 0);
    checker.read("tail", found(0, 0, 0));
    checker.read("tail", found(2, 0, 1));
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Gap { expected: 1, found: 2, .. }));
    let mut records = records();
    records.remove(1);
    let wrong = finish(history(), records);
    assert_finds(&wrong, |wrong| matches!(wrong, Wrong::Gap { expected: 1, found: 2, by } if by == "n1"));
}

/// The trim explains only the offsets below it.
#[test]
fn finds_a_gap_above_a_trim() {
    let mut checker = history();
    checker.trim_requested(1);
    checker.opened("tail", 0);
    checker.read("tail", found(2, 0, 1));
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Gap { expected: 0, found: 2, .. }));
}

#[test]
fn finds_a_reader_that_goes_back() {
    let mut checker = history();
    checker.opened("tail", 1);
    checker.read("tail", found(1, 1, 0));
    checker.read("tail", found(1, 1, 0));
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::WentBack { expected: 2, found: 1, .. }));
}

#[test]
fn finds_an_acknowledged_offset_with_another_record() {
    let mut records = records();
    records.swap(2, 3);
    (records[2].offset, records[3].offset) = (2, 3);
    let wrong = finish(history(), records);
    assert_finds(&wrong, |wrong| matches!(wrong, Wrong::Replaced { offset: 2, .. }));
}

#[test]
fn finds_two_acknowledgements_of_one_offset() {
    let mut checker = history();
    checker.acknowledged(item(1, 1), Some(2), 50);
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Replaced { offset: 2, .. }));
}

#[test]
fn finds_nodes_with_different_append_times() {
    let mut other = records();
    other[1].append_time_us += 1;
    let wrong = history().finish(&[log("n1", 0, records()), log("n2", 0, other)]);
    assert_finds(&wrong, |wrong| matches!(wrong, Wrong::Stamped { offset: 1, .. }));
}

#[test]
fn finds_a_timestamp_that_decreases() {
    let mut records = records();
    records[2].append_time_us = 1;
    assert_finds(&finish(history(), records), |wrong| matches!(wrong, Wrong::TimeDecreases { offset: 2, .. }));
}

#[test]
fn finds_a_later_record_at_a_lower_offset() {
    let mut checker = history();
    checker.sent(item(1, 3), 50);
    checker.acknowledged(item(1, 3), Some(7), 60);
    checker.sent(item(1, 4), 70);
    checker.acknowledged(item(1, 4), Some(5), 80);
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::TooEarly { offset: 5, acknowledged: 7, .. }));
}

#[test]
fn finds_a_stale_read_and_accepts_one_that_began_before_the_acknowledgement() {
    let mut checker = history();
    checker.reached_end("n2", 40, 2);
    assert_eq!(checker.found(), []);
    checker.reached_end("n2", 41, 2);
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Stale { next: 2, acknowledged: 2, .. }));
}

#[test]
fn finds_a_log_that_begins_at_another_offset_than_it_was_trimmed_to() {
    let mut checker = history();
    checker.trim_requested(2);
    checker.trim_acknowledged(2);
    let wrong = checker.finish(&[log("n1", 0, records())]);
    assert_finds(&wrong, |wrong| matches!(wrong, Wrong::Bounds { first: 0, .. }));
    let wrong = history().finish(&[log("n1", 2, records().split_off(2))]);
    assert_finds(&wrong, |wrong| matches!(wrong, Wrong::Bounds { first: 2, .. }));
}

#[test]
fn finds_a_producer_whose_progress_is_wrong() {
    let mut checker = history();
    checker.progress(0, 1);
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Progress { records: 1, acknowledged: 2, .. }));
    let mut checker = history();
    checker.progress(0, 3);
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Progress { records: 3, possible: 2, .. }));
}

/// An error said that a record was not appended, and the next process was told that it is there.
#[test]
fn finds_a_record_that_was_appended_although_its_error_denied_it() {
    let mut checker = history();
    checker.sent(item(0, 2), 50);
    checker.not_done(item(0, 2));
    checker.progress(0, 3);
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Progress { records: 3, possible: 2, .. }));
}

#[test]
fn finds_a_cursor_that_lost_a_commit_and_one_that_nobody_moved() {
    let mut checker = history();
    checker.commit_requested(2);
    checker.commit_acknowledged(2);
    checker.commit_requested(3);
    checker.cursor_is_at(2);
    checker.cursor_is_at(3);
    assert_eq!(checker.found(), []);
    checker.cursor_is_at(1);
    checker.cursor_is_at(4);
    assert_eq!(checker.found().len(), 2, "{:?}", checker.found());
}

#[test]
fn finds_a_request_that_was_appended_at_another_offset_than_it_expected() {
    let mut checker = history();
    checker.acknowledged_at(item(1, 1), 4, 3, 50);
    assert_finds(checker.found(), |wrong| matches!(wrong, Wrong::Unexpected { expected: 4, offset: 3, .. }));
}
