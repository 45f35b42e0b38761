//! The structure of the source code: layers of modules, no import cycles between files, one place for each external
//! interface, and limits on the size of files and of `impl` blocks that are spread over files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::source::{Module, code, expand_uses, paths_in, resolve, sources};

/// The modules of the crate from the bottom up, drawn in `docs/ARCHITECTURE.md`. A module imports only from the lines
/// above its own.
const LAYERS: [(&str, &[&str]); 17] = [
    ("L0", &["random"]),
    ("L0", &["types", "varint", "calendar", "codes", "feature_level", "pacer", "pb", "faults", "fuzz", "golden"]),
    ("L0", &["events"]),
    (
        "L0",
        &[
            "bucket_map",
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
    ("L0", &["timers"]),
    ("L0", &["log_state", "forming"]),
    ("L0", &["watermark"]),
    ("L1", &["storage", "security"]),
    ("L2", &["grpc", "http"]),
    ("L2", &["logs", "catalog", "writer", "client"]),
    ("L3", &["consensus"]),
    ("L4", &["replication"]),
    ("L5", &["api", "membership"]),
    ("L6", &["monitor"]),
    ("L6", &["agent", "lost_quorum"]),
    ("L7", &["cli"]),
    ("L7", &["main", "lib"]),
];

/// Modules whose files still import each other in a cycle. A module that has none must not be listed.
const WITH_CYCLES: &[&str] = &[];

/// Names that only these files may contain, tests aside.
const ONLY_IN: [(&str, &[&str]); 6] = [
    ("std::fs", &["src/storage/io/disk", "src/config", "src/security/", "src/cli/", "src/monitor/process.rs"]),
    ("std::thread::spawn", &["src/thread.rs"]),
    ("Builder::new().name", &["src/thread.rs", "src/cli/produce.rs"]),
    ("casbin::", &["src/security/acl"]),
    ("mdns_sd", &["src/membership/mdns"]),
    ("raft::", &["src/consensus/"]),
];

/// Types whose `impl` blocks are still spread over too many files.
const SPREAD: &[&str] = &[];

const LINES_MAX: usize = 500;
const IMPL_FILES_MAX: usize = 3;

#[test]
fn a_module_imports_only_from_lower_layers() {
    let mut wrong = Vec::new();
    for module in modules() {
        let Some(own) = module.path.first() else { continue };
        for import in imports(&module) {
            // A name at the crate's root that is not a module: a macro.
            let Some(layer) = position(&import[0]) else { continue };
            if import[0] != *own && layer >= layer_of(own) {
                let file = module.file.display();
                wrong.push(format!(
                    "{file}: {own} ({}) imports {} ({})",
                    LAYERS[layer_of(own)].0,
                    import[0],
                    LAYERS[layer].0
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files of a module can be read one after the other: none of them depends on a file that depends on it.
#[test]
fn no_import_cycle_between_the_files_of_a_module() {
    let graph = file_graph();
    let top = |path: &[String]| path.first().cloned().unwrap_or_default();
    let mut with_cycles = BTreeSet::new();
    let mut found = String::new();
    for cycle in cycles(&graph) {
        let module = top(&cycle[0]);
        if !WITH_CYCLES.contains(&module.as_str()) {
            for path in &cycle {
                let imported = graph[path].iter().filter(|import| cycle.contains(import));
                let imported: Vec<String> = imported.map(|import| import.join("::")).collect();
                found += &format!("\n{} imports {}", path.join("::"), imported.join(", "));
            }
            found.push('\n');
        }
        with_cycles.insert(module);
    }
    assert!(found.is_empty(), "cycles between files:{found}");
    let expected: BTreeSet<String> = WITH_CYCLES.iter().map(|module| (*module).to_owned()).collect();
    let fixed: Vec<_> = expected.difference(&with_cycles).collect();
    assert!(fixed.is_empty(), "these modules no longer have cycles, remove them from WITH_CYCLES: {fixed:?}");
}

#[test]
fn external_interfaces_are_used_in_one_place_only() {
    let mut wrong = Vec::new();
    for module in modules() {
        let path = module.file.to_string_lossy().into_owned();
        for (name, places) in ONLY_IN {
            let named = module.code.match_indices(name).any(|(at, _)| {
                let before = module.code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && !module.code[..at].ends_with("crate::")
            });
            if named && !places.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path} contains {name}, which is reserved for {places:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_the_limit() {
    let roots = ["src", "tests", "benches"].into_iter().flat_map(sources);
    let long = roots.filter_map(|file| {
        let lines = fs::read_to_string(&file).expect("a source").lines().count();
        (lines > LINES_MAX).then(|| format!("{} has {lines} lines", file.display()))
    });
    let long: Vec<String> = long.collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {}", long.join(", "));
}

/// A type that needs more files consists of several parts, which should be types of their own.
#[test]
fn no_impl_is_spread_over_many_files() {
    let mut files: BTreeMap<(Vec<String>, String), BTreeSet<PathBuf>> = BTreeMap::new();
    for module in modules() {
        for name in inherent_impls(&module.code) {
            // Types of the same name in different modules are different: an `impl` belongs to the module that defines
            // the type.
            let home = module.path.first().cloned().into_iter().collect();
            files.entry((home, name)).or_default().insert(module.file.clone());
        }
    }
    let spread: BTreeMap<String, BTreeSet<PathBuf>> = files
        .into_iter()
        .filter(|(_, files)| files.len() > IMPL_FILES_MAX)
        .map(|((_, name), files)| (name, files))
        .collect();
    let fixed: Vec<_> = SPREAD.iter().filter(|name| !spread.contains_key(**name)).collect();
    assert!(fixed.is_empty(), "no longer spread, remove them from SPREAD: {fixed:?}");
    let spread: Vec<String> = spread
        .into_iter()
        .filter(|(name, _)| !SPREAD.contains(&name.as_str()))
        .map(|(name, files)| format!("{name}: {files:?}"))
        .collect();
    assert!(spread.is_empty(), "impl blocks in more than {IMPL_FILES_MAX} files:\n{}", spread.join("\n"));
}

#[test]
fn finds_imports_cycles_and_impls() {
    let text = "use crate::types::Offset; use crate::{config::Config, thread::{self, Joiner}}; super::super::api::x(); super::y()";
    let names = |own: &[&str]| {
        let own: Vec<String> = own.iter().map(|name| (*name).to_owned()).collect();
        let paths = expand_uses(text).into_iter().chain(paths_in(text));
        paths.filter_map(|path| Some(resolve(&own, &path)?.join("::"))).collect::<Vec<_>>()
    };
    let expected = ["types::Offset", "config::Config", "thread::self", "thread::Joiner", "api::x", "a::y"];
    assert_eq!(names(&["a", "b"]), expected);
    let graph = [("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["b"])].map(|(from, to)| {
        (vec![from.to_owned()], to.into_iter().map(|to| vec![to.to_owned()]).collect::<BTreeSet<_>>())
    });
    assert_eq!(cycles(&graph.into()), [[["b".to_owned()], ["c".to_owned()]]]);
    let impls = "impl Group {}\nimpl<T> Loop<T> {}\nimpl fmt::Display for Group {}\nimpl<'a> Pipeline<'a> {";
    assert_eq!(inherent_impls(impls), ["Group", "Loop", "Pipeline"]);
}

fn modules() -> Vec<Module> {
    let files = sources("src").into_iter().filter(|file| !crate::source::is_test(file));
    files.map(|file| Module { path: crate::source::module_path(&file), code: code(&file), file }).collect()
}

fn layer_of(module: &str) -> usize {
    position(module).unwrap_or_else(|| panic!("{module} has no layer: add it here and in docs/ARCHITECTURE.md"))
}

fn position(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// Returns the paths that a file names, from the crate's root.
fn imports(module: &Module) -> Vec<Vec<String>> {
    let paths = expand_uses(&module.code).into_iter().chain(paths_in(&module.code));
    paths.filter_map(|path| resolve(&module.path, &path)).filter(|path| !path.is_empty()).collect()
}

/// Returns each file, by its module path, with the files of the same top-level module that it imports. A declaration
/// (`mod x;`) is not an import, so a module and the one that declares it are different files.
fn file_graph() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let modules = modules();
    let known: BTreeSet<&[String]> = modules.iter().map(|module| module.path.as_slice()).collect();
    let tests: BTreeSet<Vec<String>> = sources("src")
        .iter()
        .filter(|file| crate::source::is_test(file))
        .map(|file| crate::source::module_path(file))
        .collect();
    let mut graph = BTreeMap::new();
    for module in &modules {
        let mut named = imports(module);
        // `child::Name` and `use child::Name` name a child module without `self`.
        let bare = crate::source::bare_paths(&module.code).into_iter().map(|path| [module.path.clone(), path].concat());
        named.extend(bare.filter(|path| known.contains(&path[..=module.path.len()])));
        let longest = |path: Vec<String>| {
            let lengths = (1..=path.len()).rev();
            lengths
                .map(|length| &path[..length])
                .find(|path| known.contains(path) || tests.contains(*path))
                .map(<[_]>::to_vec)
        };
        let imported = named.into_iter().filter_map(longest);
        let own = module.path.first();
        let of_module = imported.filter(|path| *path != module.path && path.first() == own && !tests.contains(path));
        graph.insert(module.path.clone(), of_module.collect());
    }
    graph
}

/// Returns the cycles: the sets of two or more nodes that can all be reached from each other.
fn cycles(graph: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<Vec<Vec<String>>> {
    let reached = |from: &Vec<String>| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&Vec<String>> = graph.get(from).into_iter().flatten().collect();
        while let Some(node) = open.pop() {
            if reached.insert(node.clone()) {
                open.extend(graph.get(node).into_iter().flatten());
            }
        }
        reached
    };
    let reached: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> =
        graph.keys().map(|node| (node, reached(node))).collect();
    let mut found: BTreeSet<Vec<Vec<String>>> = BTreeSet::new();
    for (node, nodes) in &reached {
        let cycle: Vec<Vec<String>> =
            nodes.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*node))).cloned().collect();
        if cycle.len() > 1 {
            found.insert(cycle);
        }
    }
    found.into_iter().collect()
}

/// Returns the types that have an `impl` block without a trait.
fn inherent_impls(code: &str) -> Vec<String> {
    let blocks = code.lines().filter_map(|line| line.strip_prefix("impl"));
    let blocks = blocks.filter(|rest| !rest.contains(" for ") && rest.starts_with([' ', '<']));
    blocks
        .map(|rest| {
            let rest = if rest.starts_with('<') { rest.split_once("> ").map_or("", |(_, rest)| rest) } else { rest };
            rest.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        })
        .collect()
}
