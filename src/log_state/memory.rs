//! How much memory the largest tables take. `docs/PROTOCOL.md` has the numbers, section "Memory".

use super::cursors::{AcquireCursor, CURSORS_MAX, CommitCursor, METADATA_BYTES_MAX};
use super::producers::{ANSWERS_MAX, Answer, InitProducer, PRODUCERS_MAX};
use super::{StateCommand, Tables};
use crate::types::{CursorName, LogIndex, Offset, ProducerId, ProducerName, Term};

/// What the documentation says.
const PRODUCER_BYTES: u64 = 4 << 10;
const CURSOR_BYTES: u64 = 6 << 10;
const ENCODED_BYTES: u64 = 9 << 20;
/// So many tables are measured at once, because the system counts whole pages.
const TABLES: u64 = 8;

fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    let kib: u64 = line.trim().strip_suffix(" kB").expect("a unit").parse().expect("a number");
    kib << 10
}

/// Tables with the largest names, owners and metadata.
fn full(producers: usize, cursors: usize) -> Tables {
    let mut tables = Tables::default();
    // Every number takes as many bytes as it ever does.
    let large = (1 << 61) - 1;
    for number in 0..producers as u64 {
        let id = ProducerId(u64::MAX - number);
        let name = Some(ProducerName::new(&format!("{number:0255}")).expect("a name"));
        let init = InitProducer { id, name, instance: u64::MAX, owner: "o".repeat(255), ..InitProducer::default() };
        tables.apply(&StateCommand::InitProducer(init), LogIndex(large), large);
        for sequence in 1..=2 * ANSWERS_MAX as u64 {
            let (offset, term, index) = (Offset(large), Term(large), LogIndex(large));
            tables.producers.appended(
                id,
                sequence,
                Answer { offset, count: u32::MAX, term, index, append_time_us: large },
            );
        }
    }
    for number in 0..cursors {
        let name = CursorName::new(&format!("{number:0255}")).expect("a name");
        let next_offset = Offset(large);
        let (expected_epoch, owner) = (None, "o".repeat(255));
        let acquire = AcquireCursor { name: name.clone(), instance: u64::MAX, expected_epoch, next_offset, owner };
        tables.apply(&StateCommand::AcquireCursor(acquire), LogIndex(large), large);
        let epoch = tables.cursors.get(&name).expect("a cursor").epoch;
        let metadata = vec![7; METADATA_BYTES_MAX];
        let commit = CommitCursor { name, next_offset, epoch, expected_revision: None, allow_rewind: false, metadata };
        tables.apply(&StateCommand::CommitCursor(commit), LogIndex(large), large);
    }
    tables
}

#[test]
fn a_state_file_of_full_tables_has_a_known_size() {
    let tables = full(PRODUCERS_MAX, CURSORS_MAX);
    let (encoded, estimated) = (tables.encode(), tables.encoded_bytes());
    println!("full tables: {} bytes, estimated as {estimated}", encoded.len());
    assert!((encoded.len() as u64) < ENCODED_BYTES, "{}", encoded.len());
    assert!((estimated * 2 / 3..estimated * 2).contains(&(encoded.len() as u64)), "{estimated}");
    assert_eq!(Tables::decode(&encoded), Ok(tables));
}

/// Measures in a process of its own, because other tests run at the same time in this one.
#[test]
fn full_tables_take_the_documented_memory() {
    let test = "log_state::memory::measures";
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program).args(["--exact", test, "--ignored", "--nocapture"]).output();
    let output = output.expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    print!("{told}");
    assert!(output.status.success() && told.contains("bytes per cursor"), "{told}");
}

#[test]
#[ignore = "measures the memory of this process"]
fn measures() {
    let measured = |producers: usize, cursors: usize| {
        let before = anonymous_bytes();
        let tables: Vec<Tables> = (0..TABLES).map(|_| full(producers, cursors)).collect();
        let bytes = anonymous_bytes().saturating_sub(before) / TABLES;
        std::mem::forget(tables);
        bytes
    };
    let per_producer = measured(PRODUCERS_MAX, 0) / PRODUCERS_MAX as u64;
    let per_cursor = measured(0, CURSORS_MAX) / CURSORS_MAX as u64;
    let both = measured(PRODUCERS_MAX, CURSORS_MAX);
    println!("{per_producer} bytes per producer, {per_cursor} bytes per cursor, {both} bytes for full tables");
    assert!(per_producer <= PRODUCER_BYTES && per_cursor <= CURSOR_BYTES);
    assert!(both <= PRODUCER_BYTES * PRODUCERS_MAX as u64 + CURSOR_BYTES * CURSORS_MAX as u64);
}
