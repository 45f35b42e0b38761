//! Golden files: the expected bytes of each format in `tests/golden`, and the expected output of the scripts in the folders
//! `testscripts`. `make update-golden` writes them instead of comparing; review the diff.

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

/// Runs every script of a folder below `src/`, each with a runner of its own. If `UPDATE_GOLDENFILES` is `1`, the output is
/// written into the scripts instead of compared.
pub fn run_scripts<R: goldenscript::Runner + Default>(folder: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let mut scripts: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "{} has scripts", folder.display());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut R::default(), &script).unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    }
}
