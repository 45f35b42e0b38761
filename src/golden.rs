//! Golden files: expected outputs that are stored in the repository: the bytes of each format in `tests/golden`, the
//! output of the scripts in the folders `tests/scripts`, generated files and parts of documents. `make update-golden`
//! writes them instead of comparing. Review the result as a diff.

use std::path::PathBuf;

/// The directory of golden files.
pub fn folder() -> PathBuf {
    root().join("tests/golden")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the tests write golden files.
pub fn writes() -> bool {
    std::env::var_os("SERIATIM_WRITE_GOLDEN").is_some()
}

/// Compares bytes with a file of [`folder`].
#[track_caller]
pub fn assert_golden(name: &str, bytes: &[u8]) {
    let path = folder().join(name);
    if writes() {
        std::fs::write(&path, bytes).expect("written");
    }
    let golden = std::fs::read(&path).expect("a golden file");
    assert!(golden == bytes, "{name} differs from the bytes that the code writes now: {bytes:02x?}");
}

/// Compares text with a file of the repository that is generated as a whole.
#[track_caller]
pub fn assert_golden_text(file: &str, text: &str) {
    let path = root().join(file);
    if writes() {
        std::fs::write(&path, text).expect("written");
    }
    let golden = std::fs::read_to_string(&path).expect("a golden file");
    assert!(golden == text, "{file} is out of date: run `make update-golden`. The code generates:\n{text}");
}

/// Compares text with the part of a file between two lines `<!-- name -->`.
#[track_caller]
pub fn assert_golden_part(file: &str, name: &str, text: &str) {
    let path = root().join(file);
    let whole = std::fs::read_to_string(&path).expect("a file");
    let marker = format!("<!-- {name} -->\n");
    let parts: Vec<&str> = whole.split(&marker).collect();
    let [before, part, after] = parts[..] else { panic!("{file} does not contain the line {marker:?} twice") };
    let text = format!("\n{text}\n");
    if writes() {
        std::fs::write(&path, [before, &text, after].join(&marker)).expect("written");
        return;
    }
    assert!(part == text, "{file}, {name}: out of date, run `make update-golden`. The code generates:\n{text}");
}

/// Runs every script of a folder in `src/`, each with its own runner. If `UPDATE_GOLDENFILES` is `1`, the output is
/// written to the scripts instead of being compared.
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
