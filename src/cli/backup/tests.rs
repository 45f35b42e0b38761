use std::io::Cursor;

use super::create::Partial;
use super::format::{BackupReader, BackupWriter, BadBackup};
use crate::pb::backup::BackupHeader;
use crate::pb::v1::Record;

const FIRST: u64 = 7;
const END: u64 = 27;

fn record(offset: u64) -> Record {
    Record {
        value: format!("value {offset}").into_bytes().into(),
        offset,
        append_time_us: 1000 + offset / 3,
        key: offset.is_multiple_of(2).then(|| b"key".to_vec().into()),
        ..Record::default()
    }
}

fn written(blocks: &[std::ops::Range<u64>]) -> Vec<u8> {
    let header = BackupHeader { first_offset: FIRST, end_offset: END, ..BackupHeader::default() };
    let mut writer = BackupWriter::new(Vec::new(), &header).expect("written");
    for block in blocks {
        block.clone().map(record).for_each(|record| writer.add(record).expect("written"));
        writer.flush().expect("written");
    }
    writer.finish().expect("written").0
}

fn sound() -> Vec<u8> {
    written(&[7..10, 10..11, 11..27])
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, BadBackup> {
    let mut reader = BackupReader::open(bytes)?;
    let mut records = Vec::new();
    while let Some(mut block) = reader.next_records()? {
        records.append(&mut block);
    }
    Ok(records)
}

#[test]
fn reads_what_it_writes() {
    let records = read(&sound()).expect("whole");
    assert_eq!(records, (FIRST..END).map(record).collect::<Vec<_>>());
}

#[test]
fn the_format_stays() {
    crate::golden::assert_golden("backup-v1.bin", &sound());
}

/// A backup that was cut, or in which any bit differs, is never taken for a whole one.
#[test]
fn every_cut_and_every_flipped_bit_is_found() {
    let sound = sound();
    for length in 0..sound.len() {
        assert!(read(&sound[..length]).is_err(), "cut at {length}");
    }
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
    assert!(matches!(read(&[&sound[..], b"x"].concat()), Err(BadBackup::Damaged { .. })), "bytes after the end");
}

/// The blocks are sound by themselves, and the whole is not what was written.
#[test]
fn missing_repeated_and_reordered_blocks_are_found() {
    for blocks in [&[7..10, 11..27][..], &[7..10, 7..10, 10..27], &[10..27, 7..10], &[7..10, 10..26]] {
        assert!(matches!(read(&written(blocks)), Err(BadBackup::Damaged { .. })), "{blocks:?}");
    }
}

/// A log of 7 to 26 of which 7 is missing.
#[test]
fn a_missing_first_record_is_found() {
    let one: &[std::ops::Range<u64>] = std::slice::from_ref(&(8..27));
    assert!(matches!(read(&written(one)), Err(BadBackup::Damaged { .. })));
}

#[test]
fn a_block_of_another_backup_is_found() {
    let (one, other) = (sound(), written(&[7..9, 9..11, 11..27]));
    // The last block of records and the trailer of one, after the first blocks of the other.
    let tail = one.len() - other.len();
    assert_eq!(tail, 0, "both have the same number of blocks");
    let differs = one.iter().zip(&other).rposition(|(a, b)| a != b).expect("they differ");
    let trailer = one.len() - 24 - 36;
    assert!(differs >= trailer, "only the trailers differ after the first blocks");
    let mixed = [&one[..trailer], &other[trailer..]].concat();
    assert!(matches!(read(&mixed), Err(BadBackup::Damaged { .. })));
}

#[test]
fn what_is_no_backup_and_what_is_newer_is_told_apart() {
    assert!(matches!(read(b""), Err(BadBackup::NotABackup)));
    assert!(matches!(read(b"something else that is longer than the beginning"), Err(BadBackup::NotABackup)));
    let mut newer = sound();
    newer[8] = 2;
    assert!(matches!(read(&newer), Err(BadBackup::NewerVersion(2))));
}

/// Keys were not counted, so a block could become larger than any reader takes.
#[test]
fn blocks_stay_small_whatever_their_records_consist_of() {
    let header = BackupHeader { end_offset: 20_020, ..BackupHeader::default() };
    let mut writer = BackupWriter::new(Vec::new(), &header).expect("written");
    let long = |offset| Record { key: Some(vec![b'k'; 1 << 20].into()), offset, ..Record::default() };
    let records: Vec<Record> =
        (0..20).map(long).chain((20..20_020).map(|offset| Record { offset, ..Record::default() })).collect();
    records.iter().for_each(|record| writer.add(record.clone()).expect("written"));
    let (bytes, trailer) = writer.finish().expect("written");
    assert_eq!((trailer.records, read(&bytes).expect("whole") == records), (20_020, true));
}

/// The number of records is checked before they are decoded: in memory they are much larger.
#[test]
fn a_block_with_other_records_than_it_says_is_not_decoded() {
    let empty = Record::default();
    let header = BackupHeader { end_offset: 30_000, ..BackupHeader::default() };
    let mut writer = BackupWriter::new(Vec::new(), &header).expect("written");
    writer.block_of(vec![empty; 30_000]).expect("written");
    let bytes = writer.finish().expect("written").0;
    assert!(matches!(
        read(&bytes),
        Err(BadBackup::Damaged { what: "the records do not match the header of the block", .. })
    ));
}

/// Two commands with the same name wrote into the same file, and the first one renamed what both had written.
#[test]
fn a_file_is_written_by_one_command_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, partial) = (dir.path().join("a"), dir.path().join("a.partial"));
    std::fs::write(&partial, "of a command that was killed").expect("written");
    let (first, file) = Partial::create(&path).expect("created");
    assert_eq!(file.metadata().expect("a file").len(), 0);
    assert!(Partial::create(&path).is_err_and(|failure| failure.message.contains("another command writes")));
    assert!(partial.exists(), "it is still that of the first one");
    drop((first, file));
    assert!(!partial.exists());
    assert!(Partial::create(&path).is_ok());
}

/// A restore that continues does not read what the log has already.
#[test]
fn blocks_are_skipped_up_to_an_offset() {
    for (offset, first) in [(7, 7), (9, 7), (10, 10), (11, 11), (20, 11)] {
        let mut reader = BackupReader::open(Cursor::new(sound())).expect("a backup");
        reader.skip_to(offset).expect("skipped");
        let mut records = Vec::new();
        while let Some(mut block) = reader.next_records().expect("sound") {
            records.append(&mut block);
        }
        assert_eq!(records, (first..END).map(record).collect::<Vec<_>>(), "from {offset}");
    }
}
