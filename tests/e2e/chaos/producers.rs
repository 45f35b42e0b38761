//! The producers of a run. Each numbers its records, and notes what it learns about each of them.

use std::collections::VecDeque;
use std::time::Duration;

use seriatim::client::{AckHandle, Outcome, Producer, ProducerOptions};
use seriatim::pb::v1::{ProduceRequest, Record};

use super::checker::Item;
use super::field::{Clients, Field, Observed, value};
use crate::harness::record;
use crate::load::Random;

/// A request of a client that does not retry takes at most this long. So the figures of a run are exact to about this
/// time, if a node does not answer.
const TRY_MAX: Duration = Duration::from_millis(500);
/// The number of unanswered records of an idempotent producer.
const UNANSWERED_MAX: usize = 64;
/// How long an idempotent producer tries to append a record, so that some outcomes become unknown during long faults.
const DELIVERY_MAX: Duration = Duration::from_secs(15);

/// Returns the padding of a record: mostly short.
fn padding(random: &mut Random) -> usize {
    if random.below(30) == 0 { random.below(8_000) as usize } else { random.below(120) as usize }
}

/// Sends one request at a time, each to the node that answered last, and never twice.
pub fn plain(field: &Field, observed: &Observed, producer: u16, mut random: Random) {
    let mut clients = Clients::new(field, &mut random);
    let mut number = 0;
    while !field.stops() {
        let count = 1 + random.below(3);
        let items: Vec<Item> = (number..number + count).map(|number| Item { producer, number }).collect();
        number += count;
        let records: Vec<Record> = items.iter().map(|item| record(value(*item, padding(&mut random)))).collect();
        let client = clients.get();
        let sent = field.note(observed, |checker, now| {
            items.iter().for_each(|item| checker.sent(*item, now));
            now
        });
        match client.within(TRY_MAX).produce(observed.log, records) {
            Ok(response) => {
                let now = field.note(observed, |checker, now| {
                    for (item, offset) in items.iter().zip(response.offset..) {
                        checker.acknowledged(*item, Some(offset), now);
                    }
                    now
                });
                observed.acks.lock().expect("no panic").push(sent, now);
                // Some use another node each time.
                if random.below(20) == 0 {
                    clients.next();
                }
            }
            Err(error) => {
                if error.outcome() == Outcome::None {
                    field.note(observed, |checker, _| items.iter().for_each(|item| checker.refused(*item)));
                }
                observed.failed(field, sent, &client, &error);
                clients.next();
            }
        }
        field.pause(Duration::from_millis(2 + random.below(8)));
    }
}

/// Appends at the offset that it expects. Several compete for the same log, so that most requests are refused.
pub fn expecting(field: &Field, observed: &Observed, producer: u16, mut random: Random) {
    let mut clients = Clients::new(field, &mut random);
    let (mut number, mut expected) = (0, 0);
    while !field.stops() {
        let item = Item { producer, number };
        number += 1;
        let request = ProduceRequest {
            log: observed.log.to_owned(),
            records: vec![record(value(item, padding(&mut random)))],
            expected_offset: Some(expected),
            ..ProduceRequest::default()
        };
        let client = clients.get();
        field.note(observed, |checker, now| checker.sent(item, now));
        match client.within(TRY_MAX).produce_request(&request) {
            Ok(response) => {
                field.note(observed, |checker, now| checker.acknowledged_at(item, expected, response.offset, now));
                expected = response.offset + 1;
            }
            Err(error) => {
                if error.outcome() == Outcome::None {
                    field.note(observed, |checker, _| checker.refused(item));
                }
                let mismatch = error.status().filter(|status| status.reason == "EXPECTED_OFFSET_MISMATCH");
                match mismatch.and_then(|status| status.number("next_offset")) {
                    Some(next) => expected = next,
                    None => clients.next(),
                }
            }
        }
        field.pause(Duration::from_millis(2 + random.below(8)));
    }
}

/// A named producer of the client library. It is closed and opened again at random, like a process that is restarted, and
/// then continues after the records of its name.
pub fn idempotent(field: &Field, observed: &Observed, producer: u16, mut random: Random) {
    field.note(observed, |checker, _| checker.declare_in_order(producer));
    while !field.stops() {
        let options = ProducerOptions {
            name: Some(format!("p{producer}")),
            delivery_timeout: DELIVERY_MAX,
            ..ProducerOptions::new(observed.log)
        };
        let Ok(opened) = field.cluster().producer(&options) else {
            field.pause(Duration::from_millis(100));
            continue;
        };
        let records = opened.progress().records;
        field.note(observed, |checker, _| checker.progress(producer, records));
        send_until_closed(field, observed, producer, &opened, records, &mut random);
    }
}

fn send_until_closed(
    field: &Field,
    observed: &Observed,
    producer: u16,
    opened: &Producer,
    first: u64,
    random: &mut Random,
) {
    let mut unanswered: VecDeque<(Item, AckHandle)> = VecDeque::new();
    let last = first + 200 + random.below(3_000);
    'sending: for number in first..last {
        let item = Item { producer, number };
        field.note(observed, |checker, now| checker.sent(item, now));
        match opened.send_timeout(value(item, padding(random)), Duration::from_secs(1)) {
            Ok(handle) => unanswered.push_back((item, handle)),
            Err(_) => {
                field.note(observed, |checker, _| checker.not_done(item));
                break;
            }
        }
        field.pause(Duration::from_millis(random.below(12)));
        while let Some((item, handle)) = unanswered.pop_front() {
            // At the limit, and at the end, it waits.
            let wait = if unanswered.len() < UNANSWERED_MAX { Duration::ZERO } else { Duration::from_millis(200) };
            match handle.wait_timeout(wait) {
                Some(Ok(ack)) => {
                    field.note(observed, |checker, now| checker.acknowledged(item, ack.offset, now));
                }
                Some(Err(error)) => {
                    if !error.may_have_been_done() {
                        field.note(observed, |checker, _| checker.not_done(item));
                    }
                    break 'sending;
                }
                None if wait.is_zero() || field.stops() => {
                    unanswered.push_front((item, handle));
                    break;
                }
                None => unanswered.push_front((item, handle)),
            }
        }
        if field.stops() {
            break;
        }
    }
    // Sometimes it ends in the middle, like a process that is killed.
    let patience = if field.stops() || random.below(2) == 0 { DELIVERY_MAX } else { Duration::ZERO };
    // What is left is answered by its handle.
    let _ = opened.close(patience);
    for (item, handle) in unanswered {
        match handle.wait() {
            Ok(ack) => field.note(observed, |checker, now| checker.acknowledged(item, ack.offset, now)),
            Err(error) if !error.may_have_been_done() => {
                field.note(observed, |checker, _| checker.not_done(item));
            }
            Err(_) => {}
        }
    }
}
