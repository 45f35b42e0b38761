//! Reads the source code of the crate: files, module paths, imports. Text is split, not parsed: the code is formatted by rustfmt.

use std::fs;
use std::path::{Path, PathBuf};

/// A file with code.
pub struct Module {
    pub file: PathBuf,
    /// The names from the crate's root: `src/a/b.rs` is `a`, `b`.
    pub path: Vec<String>,
    /// The text without comments and tests.
    pub code: String,
}

/// Returns all Rust files below a directory of the repository.
pub fn sources(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::from(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns the names from the crate's root: `a`, `b` for `src/a/b.rs` and for `src/a/b/mod.rs`.
pub fn module_path(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix("src").expect("in src").with_extension("");
    let mut names: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

/// Returns the text of a file without its comments and its test module.
pub fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// True if the file, or a module that contains it, is declared with `#[cfg(test)]`.
pub fn is_test(file: &Path) -> bool {
    let path = module_path(file);
    (1..=path.len()).any(|depth| is_declared_for_tests(&path[..depth]))
}

fn is_declared_for_tests(path: &[String]) -> bool {
    let Some((name, parents)) = path.split_last() else { return false };
    let directory = parents.iter().fold(PathBuf::from("src"), |directory, parent| directory.join(parent));
    let files = [directory.with_extension("rs"), directory.join("mod.rs"), directory.join("lib.rs")];
    let parent = files.iter().find_map(|file| fs::read_to_string(file).ok());
    parent.is_some_and(|text| {
        let declared = format!("mod {name};");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(&declared))
    })
}

/// Returns the paths of all `use` declarations, one for each imported name.
pub fn expand_uses(code: &str) -> Vec<Vec<String>> {
    uses(code).flat_map(|tree| expand(tree, &[])).collect()
}

fn uses(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("use ").filter_map(move |(at, word)| {
        let begins = code[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || c == ')');
        let rest = &code[at + word.len()..];
        begins.then(|| rest.split(';').next().unwrap_or_default())
    })
}

/// Expands `a::{b, c::d}` to `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &[String]) -> Vec<Vec<String>> {
    let names = |text: &str| {
        let names = text.split("::").map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut paths = Vec::new();
    for part in first_level(tree) {
        let part = part.trim();
        match part.split_once('{') {
            Some((head, rest)) => {
                let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
                paths.extend(expand(inside, &[prefix, &names(head)].concat()));
            }
            None if part.is_empty() => {}
            None => {
                let name = part.split(" as ").next().unwrap_or_default();
                paths.push([prefix, &names(name)].concat());
            }
        }
    }
    paths
}

/// Splits at the commas that are not inside braces.
fn first_level(text: &str) -> Vec<&str> {
    let (mut level, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => level += 1,
            '}' => level -= 1,
            ',' if level == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// Returns the paths outside of `use` declarations that begin with `crate`, `self` or `super`.
pub fn paths_in(code: &str) -> Vec<Vec<String>> {
    let is_root = |path: &Vec<String>| ["crate", "self", "super"].contains(&path[0].as_str());
    qualified(&without_uses(code)).into_iter().filter(is_root).collect()
}

/// Returns the paths that begin with another name, also those of `use` declarations. The first name may be a child module.
pub fn bare_paths(code: &str) -> Vec<Vec<String>> {
    let is_root = |path: &Vec<String>| ["crate", "self", "super"].contains(&path[0].as_str());
    let all = qualified(&without_uses(code)).into_iter().chain(expand_uses(code));
    all.filter(|path| !path.is_empty() && !is_root(path)).collect()
}

fn without_uses(code: &str) -> String {
    uses(code).fold(code.to_owned(), |code, tree| code.replace(tree, ""))
}

/// Returns all paths with `::` in a text.
fn qualified(code: &str) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_name(c)).map(|word| word.trim_matches(':')).filter(|word| word.contains("::"));
    words.map(|word| word.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()).collect()
}

/// Returns a path from the crate's root; `None` if it begins with another crate, a type or a child module.
pub fn resolve(own: &[String], path: &[String]) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let base = match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => own,
        "super" => &own[..own.len().checked_sub(supers)?],
        _ => return None,
    };
    Some([base, &path[supers.max(1)..]].concat())
}
