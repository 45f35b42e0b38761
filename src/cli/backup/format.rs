//! The format of backup files (docs/FORMAT.md, "Backup file"): a header, blocks of records and a trailer.
//!
//! ```text
//!  "SRTMBKUP" version | block: BackupHeader | block: BackupRecords ... | block: BackupTrailer | end of the file
//! ```
//!
//! Each block has a checksum, so that damage is found where it is. The trailer has the SHA-256 of everything before it,
//! so that a file without it, or with other blocks than were written, is refused.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use openssl::sha::Sha256;
use protobuf::rt::WireType;
use protobuf::{CodedInputStream, Message};

use crate::codes::{UnknownCode, codes};
use crate::pb;
use crate::pb::backup::{BackupHeader, BackupRecords, BackupTrailer};
use crate::pb::v1::Record;

const MAGIC: [u8; 8] = *b"SRTMBKUP";
const VERSION: u32 = 1;
const PREAMBLE_BYTES: usize = 16;
const HEAD_BYTES: usize = 24;

/// A block of records is written once its records have this size, or this number.
const BLOCK_BYTES: u64 = 1 << 20;
/// The maximum number of records of a block. A reader checks it before it decodes them: an empty record has two bytes in
/// a file, and hundreds in memory.
const BLOCK_RECORDS: usize = 16_384;
/// The maximum size of a block's message. The largest record is below 4 MiB, and so are all cursors together below 6.
const BLOCK_BYTES_MAX: u32 = 8 << 20;

codes! {
    /// What a block contains.
    pub enum BlockKind: u32, "kind of block" {
        /// The first block: a `BackupHeader`.
        Header = 1,
        /// A `BackupRecords`.
        Records = 2,
        /// The last block: a `BackupTrailer`.
        Trailer = 3,
    }
}

/// Why a file is not a backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BadBackup {
    /// The file does not begin as one.
    #[error("it is not a backup of seriatim")]
    NotABackup,
    /// A newer version wrote it.
    #[error("it has format version {0}, and this version of seriatim knows {VERSION}; use a newer version")]
    NewerVersion(u32),
    /// A newer version wrote it.
    #[error("byte {at}: {unknown}")]
    NewerBlock {
        /// The position of the block.
        at: u64,
        /// Its kind.
        unknown: UnknownCode<u32>,
    },
    /// The file ends too early.
    #[error("it ends at byte {at}, without a trailer: the backup was never completed, or the file was cut")]
    Truncated {
        /// The size of the file.
        at: u64,
    },
    /// A block is not as it was written.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// The position of the block.
        at: u64,
        /// How it differs.
        what: &'static str,
    },
    /// The file can't be read.
    #[error("it can't be read: {0}")]
    Io(#[from] io::Error),
}

/// What precedes the message of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockHead {
    kind: u32,
    length: u32,
    /// Of the first record, and their number. 0 for other blocks.
    first_offset: u64,
    count: u32,
    crc: u32,
}

impl BlockHead {
    fn new(kind: BlockKind, first_offset: u64, count: u32, message: &[u8]) -> io::Result<BlockHead> {
        let length = u32::try_from(message.len()).ok().filter(|length| *length <= BLOCK_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a block that is too large"))?;
        let head = BlockHead { kind: kind.code(), length, first_offset, count, crc: 0 };
        Ok(BlockHead { crc: head.checksum(message), ..head })
    }

    fn checksum(&self, message: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.encode()[..HEAD_BYTES - 4]), message)
    }

    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first_offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        bytes[20..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEAD_BYTES]) -> BlockHead {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        BlockHead {
            kind: u32_at(0),
            length: u32_at(4),
            first_offset: u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32,
            count: u32_at(16),
            crc: u32_at(20),
        }
    }
}

/// Writes a backup.
pub struct BackupWriter<W> {
    out: W,
    hash: Sha256,
    records: u64,
    /// Of the next block, with their size.
    waiting: Vec<Record>,
    waiting_bytes: u64,
}

impl<W: Write> BackupWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn new(out: W, header: &BackupHeader) -> io::Result<BackupWriter<W>> {
        let mut writer = BackupWriter { out, hash: Sha256::new(), records: 0, waiting: Vec::new(), waiting_bytes: 0 };
        let mut preamble = [0; PREAMBLE_BYTES];
        preamble[..8].copy_from_slice(&MAGIC);
        preamble[8..12].copy_from_slice(&VERSION.to_le_bytes());
        writer.put(&preamble)?;
        writer.block(BlockKind::Header, 0, 0, header)?;
        Ok(writer)
    }

    /// Adds the record after the last one. It is written with others.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn add(&mut self, record: Record) -> io::Result<()> {
        self.waiting_bytes += record.compute_size();
        self.waiting.push(record);
        if self.waiting_bytes < BLOCK_BYTES && self.waiting.len() < BLOCK_RECORDS { Ok(()) } else { self.flush() }
    }

    /// Writes the records that were added as a block.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.waiting_bytes = 0;
        let records = std::mem::take(&mut self.waiting);
        if records.is_empty() { Ok(()) } else { self.block_of(records) }
    }

    pub(super) fn block_of(&mut self, records: Vec<Record>) -> io::Result<()> {
        let (first, count) = (records.first().map_or(0, |record| record.offset), records.len());
        let count = u32::try_from(count).map_err(|_| io::Error::new(ErrorKind::InvalidInput, "too many records"))?;
        self.records += u64::from(count);
        self.block(BlockKind::Records, first, count, &BackupRecords { records, ..BackupRecords::default() })
    }

    /// Writes the trailer. Returns the output and the trailer.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn finish(mut self) -> io::Result<(W, BackupTrailer)> {
        self.flush()?;
        let sha256 = self.hash.clone().finish().to_vec().into();
        let trailer = BackupTrailer { records: self.records, sha256, ..BackupTrailer::default() };
        self.block(BlockKind::Trailer, 0, 0, &trailer)?;
        Ok((self.out, trailer))
    }

    fn block(&mut self, kind: BlockKind, first_offset: u64, count: u32, message: &impl Message) -> io::Result<()> {
        let message = message.write_to_bytes().map_err(io::Error::other)?;
        let head = BlockHead::new(kind, first_offset, count, &message)?;
        self.put(&head.encode())?;
        self.put(&message)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads a backup, and checks it on the way.
pub struct BackupReader<R> {
    input: R,
    /// `None` after blocks were skipped.
    hash: Option<Sha256>,
    /// Of the next byte.
    position: u64,
    header: BackupHeader,
    next_offset: u64,
    last_append_time_us: u64,
    records: u64,
    trailer: Option<BackupTrailer>,
}

impl<R: Read> BackupReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`BadBackup`].
    pub fn open(input: R) -> Result<BackupReader<R>, BadBackup> {
        let mut reader = BackupReader {
            input,
            hash: Some(Sha256::new()),
            position: 0,
            header: BackupHeader::default(),
            next_offset: 0,
            last_append_time_us: 0,
            records: 0,
            trailer: None,
        };
        let mut preamble = [0; PREAMBLE_BYTES];
        match reader.fill(&mut preamble) {
            Err(BadBackup::Truncated { .. }) => return Err(BadBackup::NotABackup),
            other => other?,
        }
        reader.hash_in(&preamble);
        let version = u32::from_le_bytes([preamble[8], preamble[9], preamble[10], preamble[11]]);
        if preamble[..8] != MAGIC {
            return Err(BadBackup::NotABackup);
        }
        if version != VERSION {
            return Err(BadBackup::NewerVersion(version));
        }
        let at = reader.position;
        let (head, kind) = reader.head()?;
        let message = reader.message(at, &head)?;
        let header: BackupHeader = match kind {
            BlockKind::Header => decoded(at, &message)?,
            BlockKind::Records | BlockKind::Trailer => return Err(damaged(at, "the first block is not the header")),
        };
        if header.first_offset > header.end_offset {
            return Err(damaged(at, "the end offset is below the first offset"));
        }
        reader.next_offset = header.first_offset;
        reader.header = header;
        reader.hash_in(&head.encode());
        reader.hash_in(&message);
        Ok(reader)
    }

    /// Returns the header.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// Returns the trailer, once all blocks are read.
    pub fn trailer(&self) -> Option<&BackupTrailer> {
        self.trailer.as_ref()
    }

    /// The number of bytes that were read or skipped.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the records of the next block. `None` after the last one: the whole file is as it was written.
    ///
    /// # Errors
    /// [`BadBackup`].
    pub fn next_records(&mut self) -> Result<Option<Vec<Record>>, BadBackup> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let at = self.position;
        let (head, kind) = self.head()?;
        let message = self.message(at, &head)?;
        let records = match kind {
            BlockKind::Header => return Err(damaged(at, "a second header")),
            BlockKind::Trailer => {
                self.end(at, decoded(at, &message)?)?;
                return Ok(None);
            }
            BlockKind::Records if head.count as usize > BLOCK_RECORDS || fields(&message) != Some(head.count) => {
                return Err(damaged(at, "the records do not match the header of the block"));
            }
            BlockKind::Records => decoded::<BackupRecords>(at, &message)?.records,
        };
        if records.is_empty() || records.len() != head.count as usize || records[0].offset != head.first_offset {
            return Err(damaged(at, "the records do not match the header of the block"));
        }
        for record in &records {
            if record.offset != self.next_offset || record.offset >= self.header.end_offset {
                return Err(damaged(at, "the offsets of the records are not contiguous"));
            }
            if record.append_time_us < self.last_append_time_us {
                return Err(damaged(at, "the append times decrease"));
            }
            self.next_offset += 1;
            self.last_append_time_us = record.append_time_us;
        }
        self.records += records.len() as u64;
        self.hash_in(&head.encode());
        self.hash_in(&message);
        Ok(Some(records))
    }

    /// Checks the trailer, and that the file ends after it.
    fn end(&mut self, at: u64, trailer: BackupTrailer) -> Result<(), BadBackup> {
        if self.next_offset != self.header.end_offset {
            return Err(damaged(at, "records are missing"));
        }
        if let Some(hash) = self.hash.take()
            && (hash.finish()[..] != trailer.sha256[..] || trailer.records != self.records)
        {
            return Err(damaged(at, "the SHA-256 of the file does not match"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(damaged(self.position, "bytes after the trailer"));
        }
        self.trailer = Some(trailer);
        Ok(())
    }

    fn head(&mut self) -> Result<(BlockHead, BlockKind), BadBackup> {
        let at = self.position;
        let mut bytes = [0; HEAD_BYTES];
        self.fill(&mut bytes)?;
        let head = BlockHead::decode(&bytes);
        if head.length > BLOCK_BYTES_MAX {
            return Err(damaged(at, "the block is larger than the limit"));
        }
        match BlockKind::try_from(head.kind) {
            Ok(kind) => Ok((head, kind)),
            // The checksum tells a newer block from damage.
            Err(unknown) => match self.message(at, &head) {
                Ok(_) => Err(BadBackup::NewerBlock { at, unknown }),
                Err(error) => Err(error),
            },
        }
    }

    fn message(&mut self, at: u64, head: &BlockHead) -> Result<Vec<u8>, BadBackup> {
        let mut message = Vec::new();
        // Without trust in the length: memory is allocated as bytes arrive.
        let length = u64::from(head.length);
        let read = self.input.by_ref().take(length).read_to_end(&mut message)? as u64;
        self.position += read;
        if read < length {
            return Err(BadBackup::Truncated { at: self.position });
        }
        if head.checksum(&message) != head.crc {
            return Err(damaged(at, "the checksum of the block does not match"));
        }
        Ok(message)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BadBackup> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => BadBackup::Truncated { at: self.position },
            _ => BadBackup::Io(error),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn hash_in(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }
}

impl<R: Read + Seek> BackupReader<R> {
    /// Skips the blocks whose records are all below this offset. The SHA-256 is not checked any more.
    ///
    /// # Errors
    /// [`BadBackup`].
    pub fn skip_to(&mut self, offset: u64) -> Result<(), BadBackup> {
        self.hash = None;
        loop {
            let at = self.position;
            let (head, kind) = self.head()?;
            let end = head.first_offset.saturating_add(u64::from(head.count));
            if kind == BlockKind::Records && end <= offset && head.first_offset == self.next_offset {
                self.position = self.input.seek(SeekFrom::Current(i64::from(head.length)))?;
                self.next_offset = end;
                continue;
            }
            self.position = self.input.seek(SeekFrom::Start(at))?;
            return Ok(());
        }
    }
}

/// Returns the number of fields of a message, without decoding them.
fn fields(message: &[u8]) -> Option<u32> {
    let mut input = CodedInputStream::from_bytes(message);
    let mut count = 0_u32;
    while let Some(tag) = input.read_raw_tag_or_eof().ok()? {
        input.skip_field(WireType::new(tag & 7)?).ok()?;
        count = count.checked_add(1)?;
    }
    Some(count)
}

fn damaged(at: u64, what: &'static str) -> BadBackup {
    BadBackup::Damaged { at, what }
}

fn decoded<M: Message>(at: u64, message: &[u8]) -> Result<M, BadBackup> {
    pb::parse(message).map_err(|_| damaged(at, "the message does not fit the kind of the block"))
}
