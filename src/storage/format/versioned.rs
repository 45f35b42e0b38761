//! The common prefix of files that begin with a version: segments and manifests.
//!
//! ```text
//!   0  magic, 8 bytes
//!   8  format version u32
//!  12  crc u32              CRC-32C of the other bytes
//! ```

use super::entry::{u32_at, u64_at};

/// Indexes and file numbers count up from 1, so none ever comes near this. A larger number is refused, so that
/// additions can't overflow.
pub(crate) const NUMBERS_MAX: u64 = 1 << 62;

/// Bytes up to the end of the version.
const VERSION_END: usize = 12;

/// Bytes up to the end of the checksum.
pub(crate) const PREFIX_BYTES: usize = 16;

/// Why bytes are not a file of the known format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadPrefix {
    /// The magic is another one, or there are too few bytes.
    NotOurs,
    /// An older or a newer version wrote them in another format.
    OtherFormat(u32),
    /// They differ from what was written.
    Damaged,
}

/// Checks magic, version and checksum.
///
/// A newer format may have any length, and its checksum at another position, so only its version is checked. With an
/// older version number, bytes whose checksum does not match are damaged.
pub(crate) fn check_prefix(bytes: &[u8], magic: &[u8; 8], known: u32) -> Result<(), BadPrefix> {
    if bytes.len() < VERSION_END || bytes[..8] != *magic {
        return Err(BadPrefix::NotOurs);
    }
    let version = u32_at(bytes, 8);
    let sound = bytes.len() >= PREFIX_BYTES && u32_at(bytes, 12) == checksum(bytes);
    let newer = version > known && !version_is_damaged(bytes, known);
    if newer || version < known && sound {
        return Err(BadPrefix::OtherFormat(version));
    }
    if version == known && sound { Ok(()) } else { Err(BadPrefix::Damaged) }
}

/// Magic, version and room for the checksum, which [`seal`] fills in.
pub(crate) fn prefix(magic: &[u8; 8], version: u32) -> [u8; PREFIX_BYTES] {
    let mut bytes = [0; PREFIX_BYTES];
    bytes[..8].copy_from_slice(magic);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// Sets the checksum.
///
/// # Panics
/// If the bytes are fewer than a prefix.
pub(crate) fn seal(bytes: &mut [u8]) {
    let crc = checksum(bytes);
    bytes[12..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[PREFIX_BYTES..])
}

/// True if only the version number of these bytes is damaged: with the number `known` their checksum matches. CRC-32C
/// always distinguishes two version numbers in otherwise equal bytes.
pub(crate) fn version_is_damaged(bytes: &[u8], known: u32) -> bool {
    if bytes.len() < PREFIX_BYTES || u32_at(bytes, 8) == known {
        return false;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &known.to_le_bytes());
    u32_at(bytes, 12) == crc32c::crc32c_append(crc, &bytes[PREFIX_BYTES..])
}

/// True if the numbers at these positions are small enough that additions can't overflow.
pub(crate) fn are_countable(bytes: &[u8], places: &[usize]) -> bool {
    places.iter().all(|at| u64_at(bytes, *at) <= NUMBERS_MAX)
}
