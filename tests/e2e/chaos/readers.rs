//! The readers of a run: tails, reads of whole logs from every node, and a reader with a cursor.

use std::time::{Duration, Instant};

use seriatim::client::{ConsumerOptions, ReceivedRecord, StartAt};
use seriatim::pb::v1::{ConsumeRequest, Start};

use super::checker::Found;
use super::field::{Clients, Field, Observed, found, item};
use crate::load::Random;

/// The name of the cursor of [`committer`].
const CURSOR: &str = "chaos";

fn received(record: &ReceivedRecord) -> Found {
    let since = record.append_time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let append_time_us = since.as_micros() as u64;
    Found { offset: record.offset, item: item(&record.record.value), append_time_us }
}

/// Follows a log with a consumer of the client library, which is opened again at random, at the next offset.
pub fn tail(field: &Field, observed: &Observed, mut random: Random) {
    let reader = format!("the tail of {}", observed.log);
    let mut next = 0;
    while !field.stops() {
        let options = ConsumerOptions {
            start: StartAt::Offset(next),
            skip_trimmed: true,
            heartbeat: Duration::from_secs(1),
            ..ConsumerOptions::new(observed.log)
        };
        let Ok(consumer) = field.cluster().consumer(&options) else {
            field.pause(Duration::from_millis(100));
            continue;
        };
        field.note(observed, |checker, _| checker.opened(&reader, next));
        let until = Instant::now() + Duration::from_secs(2 + random.below(30));
        while !field.stops() && Instant::now() < until {
            match consumer.recv_timeout(Duration::from_millis(200)) {
                Ok(Some(record)) => {
                    next = record.offset + 1;
                    field.note(observed, |checker, _| checker.read(&reader, received(&record)));
                }
                Ok(None) => {}
                // A consumer that may try without an end has none, unless every node has lost a record.
                Err(error) => {
                    field.problem(format!("{reader} has ended at {next}: {error:?}"));
                    break;
                }
            }
        }
    }
}

/// Reads a log from its begin to its end, from one node after the other.
pub fn sweep(field: &Field, observed: &Observed, mut random: Random) {
    let mut clients = Clients::new(field, &mut random);
    while !field.stops() {
        clients.next();
        let client = clients.get();
        let reader = format!("a read of {} at {}", observed.log, client.addr());
        let request = ConsumeRequest {
            log: observed.log.to_owned(),
            start: Start::START_EARLIEST.into(),
            stop_at_end: true,
            ..ConsumeRequest::default()
        };
        let began = field.note(observed, |checker, now| {
            checker.opened(&reader, 0);
            now
        });
        let time = Instant::now();
        let (mut next, mut is_complete) = (0, false);
        if let Ok(stream) = client.consume_stream(&request, Some(Duration::from_secs(5))) {
            is_complete = true;
            for message in stream {
                let Ok(message) = message else {
                    is_complete = false;
                    break;
                };
                next = message.resume_offset;
                field.note(observed, |checker, _| {
                    message.records.iter().for_each(|record| checker.read(&reader, found(record)));
                });
            }
        }
        if is_complete {
            field.note(observed, |checker, _| checker.reached_end(&reader, began, next));
        }
        // Long logs are read less often.
        field.pause(Duration::from_millis(300) + time.elapsed() * 3);
    }
}

/// Reads with a cursor and commits its position. It is opened again at random, and must continue where the cursor is.
pub fn committer(field: &Field, observed: &Observed, mut random: Random) {
    let reader = format!("the cursor of {}", observed.log);
    let mut exists = false;
    while !field.stops() {
        let cluster = field.cluster();
        if exists {
            match cluster.cursor(observed.log, CURSOR) {
                Ok(state) => field.note(observed, |checker, _| checker.cursor_is_at(state.next_offset)),
                Err(error) if error.reason() == "NO_SUCH_CURSOR" => field.problem(format!("{reader}: {error:?}")),
                Err(_) => {
                    field.pause(Duration::from_millis(100));
                    continue;
                }
            }
        }
        let options = ConsumerOptions {
            cursor: Some(CURSOR.to_owned()),
            skip_trimmed: true,
            heartbeat: Duration::from_secs(1),
            ..ConsumerOptions::new(observed.log)
        };
        let Ok(consumer) = cluster.consumer(&options) else {
            field.pause(Duration::from_millis(100));
            continue;
        };
        exists = true;
        let until = Instant::now() + Duration::from_secs(1 + random.below(10));
        let mut is_first = true;
        while !field.stops() && Instant::now() < until {
            for _ in 0..1 + random.below(200) {
                match consumer.recv_timeout(Duration::from_millis(50)) {
                    Ok(Some(record)) => field.note(observed, |checker, _| {
                        if std::mem::take(&mut is_first) {
                            checker.cursor_is_at(record.offset);
                            checker.opened(&reader, record.offset);
                        }
                        checker.commit_requested(record.offset + 1);
                        checker.read(&reader, received(&record));
                    }),
                    Ok(None) => break,
                    Err(error) => {
                        field.problem(format!("{reader} has ended: {error:?}"));
                        break;
                    }
                }
            }
            match consumer.commit() {
                Ok(position) => field.note(observed, |checker, _| checker.commit_acknowledged(position)),
                // It is tried again.
                Err(_) => field.pause(Duration::from_millis(100)),
            }
        }
    }
}
