//! The house: a module imports only from lower floors, some crates and the file system are known in one place alone, and
//! no file has become two nouns.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules, from the ground up (`docs/ARCHITECTURE.md` has the drawing). Lines of one floor: each stands on the one
/// before.
const FLOORS: [(&str, &[&str]); 14] = [
    ("F0", &["types", "varint", "codes", "pacer", "pb", "fuzz", "golden"]),
    (
        "F0",
        &[
            "reason",
            "thread",
            "reply",
            "inbox",
            "doorbell",
            "clock",
            "config",
            "descriptors",
            "line_limit",
            "metrics",
            "waiting",
        ],
    ),
    ("F0", &["timers"]),
    ("F0", &["log_state"]),
    ("F0", &["watermark"]),
    ("F1", &["storage", "security"]),
    ("F2", &["grpc"]),
    ("F2", &["logs", "catalog", "writer", "reader", "client"]),
    ("F3", &["consensus"]),
    ("F4", &["replication"]),
    ("F5", &["api", "membership", "http"]),
    ("F6", &["agent"]),
    ("F7", &["cli"]),
    ("F7", &["main", "lib"]),
];

/// What only these files may name, tests aside.
const ONLY_IN: [(&str, &[&str]); 6] = [
    ("std::fs", &["src/storage/io/disk", "src/config", "src/security/", "src/cli/"]),
    ("std::thread::spawn", &["src/thread.rs"]),
    ("Builder::new().name", &["src/thread.rs", "src/cli/produce.rs"]),
    ("casbin::", &["src/security/acl"]),
    ("mdns_sd", &["src/membership/mdns"]),
    ("raft::", &["src/consensus/"]),
];

const LINES_MAX: usize = 500;

#[test]
fn a_module_imports_only_from_lower_floors() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let module = module(&file);
        let own = floor(&module[0]);
        for import in imports(&code(&file), module.len()) {
            // Names of the crate's root that are no modules of ours: macros.
            let Some(floor) = position(&import) else { continue };
            if import != module[0] && floor >= own {
                let (own, floor) = (FLOORS[own].0, FLOORS[floor].0);
                wrong.push(format!("{}: {} ({own}) imports {import} ({floor})", file.display(), module[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_known_in_one_place_alone() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let path = file.to_string_lossy().into_owned();
        let code = code(&file);
        for (name, places) in ONLY_IN {
            let named = code.match_indices(name).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && !code[..at].ends_with("crate::")
            });
            if named && !places.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path} names {name}: that is for {places:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_is_one_noun() {
    let roots = ["src", "tests", "benches"].into_iter().flat_map(sources);
    let long = roots.filter_map(|file| {
        let lines = fs::read_to_string(&file).expect("a source").lines().count();
        (lines > LINES_MAX).then(|| format!("{} has {lines} lines", file.display()))
    });
    let long: Vec<String> = long.collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {}", long.join(", "));
}

#[test]
fn imports_are_found() {
    let text = "use crate::types::Offset; use crate::{config::Config, thread::{self, Joiner}}; super::super::api::x(); super::y()";
    assert_eq!(imports(text, 2), ["types", "config", "thread", "api"]);
    assert_eq!(imports("use super::client;", 1), ["client"]);
}

/// All Rust files below a folder of the project.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are a, b; `src/a/mod.rs` is a.
fn module(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix("src").expect("in src").with_extension("");
    let mut names: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

fn floor(module: &str) -> usize {
    position(module).unwrap_or_else(|| panic!("{module} has no floor: give it one here and in docs/ARCHITECTURE.md"))
}

fn position(module: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The code of a file without comments and tests.
fn code(file: &Path) -> String {
    if file.iter().any(|part| part == "tests" || part == "tests.rs") || is_test_module(file) {
        return String::new();
    }
    let text = fs::read_to_string(file).expect("a source");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// True where the parent says `#[cfg(test)] mod <this file>;`.
fn is_test_module(file: &Path) -> bool {
    let (Some(folder), Some(name)) = (file.parent(), file.file_stem()) else { return false };
    let parents = [folder.with_extension("rs"), folder.join("mod.rs"), folder.join("lib.rs")];
    let parent = parents.iter().find_map(|parent| fs::read_to_string(parent).ok());
    parent.is_some_and(|text| {
        let declared = format!("mod {};", name.to_string_lossy());
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(&declared))
    })
}

/// The modules at the crate's root that this code names, where `depth` is how deep its own module lies.
fn imports(code: &str, depth: usize) -> Vec<String> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for prefix in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&prefix) {
            let before = &code[..at];
            if before.ends_with("::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            let names = rest.strip_prefix('{').map_or_else(|| vec![rest], first_level);
            found.extend(names.into_iter().map(|name| (at, ident(name))));
        }
    }
    found.sort_by_key(|(at, _)| *at);
    found
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| !name.is_empty() && name != "super" && name != "self")
        .collect()
}

/// The parts of `a::b, c::{d, e}} ...`.
fn first_level(text: &str) -> Vec<&str> {
    let (mut level, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => level += 1,
            '}' if level == 0 => {
                parts.push(&text[begin..at]);
                break;
            }
            '}' => level -= 1,
            ',' if level == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts
}

fn ident(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
