//! The file `catalog` in the data directory: the newest snapshot of the catalog. It is always replaced as a whole.
//!
//! ```text
//!   0  magic "SRTM-CAT", version u32, crc u32    as in `versioned.rs`
//!  16  index u64             the entry of the last command that the snapshot includes
//!  24  the encoded catalog (`CatalogState` in `proto/seriatim/catalog/v1/catalog.proto`), up to the end
//! ```

use std::path::Path;

use bytes::Bytes;

use super::entry::u64_at;
use super::state::CatalogState;
use super::versioned::{self, BadPrefix, NUMBERS_MAX, PREFIX_BYTES, check_prefix, prefix};
use crate::storage::error::StorageError;
use crate::types::LogIndex;

/// The name of the file.
pub(crate) const CATALOG_FILE: &str = "catalog";
/// The maximum size of the file. `catalog/state.rs` bounds what a catalog contains.
pub(crate) const CATALOG_FILE_BYTES_MAX: usize = 64 << 20;

const CATALOG_FILE_FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"SRTM-CAT";
const HEADER_BYTES: usize = PREFIX_BYTES + 8;

/// Returns the contents of the file.
pub(crate) fn encode(catalog: &CatalogState) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + catalog.bytes.len());
    bytes.extend_from_slice(&prefix(MAGIC, CATALOG_FILE_FORMAT));
    bytes.extend_from_slice(&catalog.index.0.to_le_bytes());
    bytes.extend_from_slice(&catalog.bytes);
    versioned::seal(&mut bytes);
    bytes
}

/// Decodes the output of [`encode`]; `file` is its name, for the error.
///
/// # Errors
/// [`StorageError::OtherFormat`], or [`StorageError::Damaged`] for anything else.
pub(crate) fn decode(bytes: &[u8], file: &Path) -> Result<CatalogState, StorageError> {
    match check_prefix(bytes, MAGIC, CATALOG_FILE_FORMAT) {
        Err(BadPrefix::OtherFormat(version)) => {
            let known = CATALOG_FILE_FORMAT;
            return Err(StorageError::OtherFormat { file: file.to_owned(), part: "", version, known });
        }
        Err(BadPrefix::NotOurs | BadPrefix::Damaged) => {
            return Err(StorageError::damaged(file, 0, "the checksum does not match"));
        }
        Ok(()) => {}
    }
    if bytes.len() < HEADER_BYTES || u64_at(bytes, PREFIX_BYTES) >= NUMBERS_MAX {
        return Err(StorageError::damaged(file, PREFIX_BYTES as u64, "the index is missing or too large"));
    }
    let index = LogIndex(u64_at(bytes, PREFIX_BYTES));
    Ok(CatalogState { index, bytes: Bytes::copy_from_slice(&bytes[HEADER_BYTES..]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    #[test]
    fn a_catalog_file_has_these_bytes_and_refuses_others() {
        let catalog = CatalogState { index: LogIndex(7), bytes: Bytes::from_static(b"catalog") };
        let bytes = encode(&catalog);
        assert_golden("catalog-v1.bin", &bytes);
        let file = Path::new("catalog");
        assert_eq!(decode(&bytes, file).expect("its own bytes"), catalog);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged, file).is_err(), "byte {at}");
            assert!(decode(&bytes[..at], file).is_err(), "cut to {at}");
        }
        let mut newer = bytes.clone();
        newer[8] = 2;
        versioned::seal(&mut newer);
        let error = decode(&newer, file).expect_err("newer");
        assert!(error.is_config(), "{error}");
    }
}
