//! Golden files in `tests/golden`: the expected bytes of each format. If `SERIATIM_WRITE_GOLDEN` is set, they are written instead
//! of compared.

use std::path::PathBuf;

/// The folder of golden files.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// True when golden files are to be written.
pub fn writes() -> bool {
    std::env::var_os("SERIATIM_WRITE_GOLDEN").is_some()
}

/// Compares bytes with a golden file.
#[track_caller]
pub fn assert_golden(name: &str, bytes: &[u8]) {
    let path = folder().join(name);
    if writes() {
        std::fs::write(&path, bytes).expect("written");
    }
    let golden = std::fs::read(&path).expect("a golden file");
    assert!(golden == bytes, "{name} is not what is written now: {bytes:02x?}");
}
