//! Everything that the documents quote exists: paths of the repository, names of tests and options, log lines, and the targets
//! of links. So do the lessons that the code quotes.
//!
//! The rules have no list of exceptions. A word in back-ticks is taken for
//!
//! - a **path**, if it ends with `.rs`, `.proto`, `.sh` or `.service`, or begins with a folder of the root or of `src/`.
//!   A path that begins in the root must exist; any other must be the end of a path that exists. Paths that `.gitignore`
//!   contains are made by a build, and need not exist;
//! - a **name**, if it is in `snake_case` with at least two underscores, or with at least one if it is the last part of a path
//!   with `::`. It must be a test or another function, the name of a golden script, or a word of the code (an option, a field).
//!   Modules before a `::` must be those of the function. A name that begins with `seriatim_` is a metric, whose name the code
//!   may compose from parts.
//!
//! Between fences (```), only words that end with `.rs` are checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A heading in `docs/OPERATIONS.md`: the first column of its table quotes log lines.
const LOG_LINES: &str = "## Log lines worth an alert";
/// Also in `docs/OPERATIONS.md`: its table has a row for each option of `serve`.
const SETTINGS: &str = "## Settings";

#[test]
fn every_path_that_the_documents_quote_exists() {
    let repository = Repository::read();
    assert_none(documents().iter().flat_map(|document| {
        let quoted = document.quoted().chain(document.fenced_sources());
        let wrong = quoted.filter(|(_, word)| repository.lacks_path(word));
        wrong.map(|(line, word)| format!("{}:{line}: there is no `{word}`", document.name)).collect::<Vec<_>>()
    }));
}

#[test]
fn every_test_and_name_that_the_documents_quote_exists() {
    let repository = Repository::read();
    assert_none(documents().iter().flat_map(|document| {
        let wrong = document.quoted().filter(|(_, word)| repository.lacks_name(word));
        let text = |(line, word)| format!("{}:{line}: nothing in the code is called `{word}`", document.name);
        wrong.map(text).collect::<Vec<_>>()
    }));
}

#[test]
fn every_link_of_the_documents_has_a_target() {
    let documents = documents();
    assert_none(documents.iter().flat_map(|document| {
        let wrong = document.links().filter(|(_, target)| !document.reaches(target));
        wrong
            .map(|(line, target)| format!("{}:{line}: the link {target} leads nowhere", document.name))
            .collect::<Vec<_>>()
    }));
}

/// Comments quote a lesson as "RELIABILITY L4", or several as "RELIABILITY L1, L5 and L9".
#[test]
fn every_lesson_that_the_code_quotes_exists() {
    let repository = Repository::read();
    let reliability = Document::read(Path::new("docs/RELIABILITY.md"));
    let is_number =
        |word: &str| word.len() > 1 && word.starts_with('L') && word[1..].bytes().all(|b| b.is_ascii_digit());
    assert_none(repository.paths.iter().filter(|path| path.ends_with(".rs")).flat_map(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once("RELIABILITY L"));
        let quoted: Vec<String> = lines.flat_map(|(_, rest)| words(&format!("L{rest}")).collect::<Vec<_>>()).collect();
        let missing =
            quoted.into_iter().filter(|word| is_number(word) && !reliability.has_anchor(&word.to_lowercase()));
        missing.map(|word| format!("{path}: docs/RELIABILITY.md has no lesson {word}")).collect::<Vec<_>>()
    }));
}

#[test]
fn every_log_line_to_alert_on_is_written_somewhere() {
    let code = Repository::read().code.replace('\n', " ");
    // Text that is wrapped in the code with a backslash.
    let words: Vec<&str> = code.split_whitespace().collect();
    let code = words.join(" ").replace("\\ ", "");
    let operations = Document::read(Path::new("docs/OPERATIONS.md"));
    let rows = operations.rows(LOG_LINES);
    assert!(rows.len() > 10, "{} rows", rows.len());
    assert_none(rows.iter().flat_map(|(line, row)| {
        let first = row.split('|').nth(1).unwrap_or_default();
        let missing = in_back_ticks(first).into_iter().filter(|text| !is_written(&code, text));
        missing.map(|text| format!("docs/OPERATIONS.md:{line}: no log line contains `{text}`")).collect::<Vec<_>>()
    }));
}

/// True if one string of the code contains the parts of a pattern, which `…` separates, in this order.
fn is_written(code: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').map(str::trim).filter(|part| !part.is_empty()).collect();
    let longest = parts.iter().max_by_key(|part| part.len()).copied().unwrap_or_default();
    code.match_indices(longest).any(|(at, _)| {
        let begin = code[..at].rfind('"').map_or(0, |quote| quote + 1);
        let end = code[at..].find('"').map_or(code.len(), |quote| at + quote);
        let after = |rest: &'_ str, part: &&str| rest.find(*part).map(|at| at + part.len());
        parts.iter().try_fold(begin, |from, part| after(&code[from..end], part).map(|n| from + n)).is_some()
    })
}

#[test]
fn a_log_line_is_found_by_the_text_that_the_code_formats() {
    let code = r#"log::warn!("the cluster is at level {level}, and {name} supports {}: start it", x); "the end""#;
    for right in ["is at level …, and … supports", "supports … start it"] {
        assert!(is_written(code, right), "{right}");
    }
    for wrong in ["supports … is at level", "start it … the end", "is at level …, and node … supports"] {
        assert!(!is_written(code, wrong), "{wrong}");
    }
}

/// `dist/seriatim.toml` has every option: another test compares it with the command line.
#[test]
fn the_settings_table_has_every_option_of_the_configuration_file() {
    let operations = Document::read(Path::new("docs/OPERATIONS.md"));
    let rows: Vec<String> = operations.rows(SETTINGS).into_iter().map(|(_, row)| row).collect();
    let toml = fs::read_to_string("dist/seriatim.toml").expect("the configuration file");
    let mut table = String::new();
    let mut options = Vec::new();
    for line in toml.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = name.to_owned();
        } else if let Some((key, _)) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && !table.is_empty()
        {
            options.push(format!("{table}.{key}"));
        }
    }
    assert!(options.len() > 30, "{options:?}");
    assert_none(
        options
            .iter()
            .filter(|path| !rows.iter().any(|row| row.contains(&format!("`{path}`"))))
            .map(|path| format!("docs/OPERATIONS.md: the table of settings lacks `{path}`")),
    );
}

#[test]
fn wrong_quotes_are_found() {
    let repository = Repository::read();
    for wrong in
        ["src/reader_of_nothing.rs", "http_nowhere.rs", "storage/nowhere/", "docs/NOWHERE.md", "tests/e2e/nowhere.rs"]
    {
        assert!(repository.lacks_path(wrong), "{wrong}");
    }
    for right in [
        "src/lib.rs",
        "lib.rs",
        "tests/e2e/docs.rs",
        "e2e/docs.rs",
        "dist/",
        "docs",
        "src/storage",
        "target/release/seriatim",
    ] {
        assert!(!repository.lacks_path(right), "{right}");
    }
    for other in ["groups/1/manifest", "application/json", "/var/lib/seriatim", "node.toml", "src/*.rs", "--data-dir"] {
        assert!(!repository.lacks_path(other), "{other}");
    }
    for wrong in
        ["no_test_of_this_name_exists_anywhere".replace("exists", "is"), "docs::wrong_quotes_were_found".to_owned()]
    {
        assert!(repository.lacks_name(&wrong), "{wrong}");
    }
    for right in [
        "wrong_quotes_are_found",
        "docs::wrong_quotes_are_found",
        "disk_free_soft_bytes",
        "std::fs",
        "one_word",
        "a::b",
    ] {
        assert!(!repository.lacks_name(right), "{right}");
    }
    let document = Document {
        name: String::new(),
        folder: PathBuf::new(),
        text: "a `b`\n```\n`c` (d/e.rs)\n```\n`d` [e](f#g) `h`\n".to_owned(),
    };
    let quoted: Vec<(usize, String)> = document.quoted().collect();
    assert_eq!(quoted, [(1, "b".to_owned()), (5, "d".to_owned()), (5, "h".to_owned())]);
    assert_eq!(document.fenced_sources().collect::<Vec<_>>(), [(3, "d/e.rs".to_owned())]);
    assert_eq!(document.links().collect::<Vec<_>>(), [(5, "f#g".to_owned())]);
    assert_eq!(slug("Three hosts, `step` by step: a-b"), "three-hosts-step-by-step-a-b");
}

#[track_caller]
fn assert_none(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything that a document may quote.
struct Repository {
    /// Files and folders, from the root.
    paths: BTreeSet<String>,
    /// The modules of each Rust file, and the functions in it.
    functions: Vec<(Vec<String>, BTreeSet<String>)>,
    /// Words of the code: Rust without comments, the protocols, scripts and configuration.
    words: BTreeSet<String>,
    /// The Rust code of `src/`, comments aside.
    code: String,
    ignored: Vec<String>,
}

impl Repository {
    fn read() -> Repository {
        let ignored = fs::read_to_string(".gitignore").unwrap_or_default();
        let ignored = ignored.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        let ignored: Vec<String> = ignored.map(|line| line.trim_matches('/').to_owned()).collect();
        let mut read = Repository {
            paths: BTreeSet::new(),
            functions: Vec::new(),
            words: BTreeSet::new(),
            code: String::new(),
            ignored,
        };
        read.folder(Path::new(""));
        read
    }

    fn folder(&mut self, folder: &Path) {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        for entry in fs::read_dir(here).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            let name = path.to_string_lossy().into_owned();
            if name == ".git" || self.is_ignored(&name) {
                continue;
            }
            self.paths.insert(name);
            if entry.path().is_dir() {
                self.folder(&path);
            } else {
                self.file(&path);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
        let is_code = ["rs", "proto", "sh", "toml", "service", "py", "go", "java", "c"].contains(&ending.as_str());
        let Some(text) = fs::read_to_string(path).ok().filter(|_| is_code || path.ends_with("Makefile")) else {
            return;
        };
        if ending != "rs" {
            self.words.extend(words(&text));
            return;
        }
        // Without comments, which may name removed items. A string that contains `//` is cut there, which does no harm.
        let code: String =
            text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
        let functions = code.split("fn ").skip(1).filter_map(|rest| words(rest).next());
        let mut modules: Vec<String> =
            path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        modules.retain(|module| module != "mod");
        self.functions.push((modules, functions.collect()));
        self.words.extend(words(&code));
        if path.starts_with("src") {
            self.code += &text;
        }
    }

    /// Returns true if the word looks like a path of the repository, but does not exist.
    fn lacks_path(&self, word: &str) -> bool {
        let path = word.trim_end_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if path.starts_with(['/', '-']) || !path.chars().all(is_plain) {
            return false;
        }
        let is_source = [".rs", ".proto", ".sh", ".service"].iter().any(|ending| path.ends_with(ending));
        let first = path.split('/').next().unwrap_or_default();
        let in_root = word.contains('/') && self.paths.contains(first);
        let in_src = word.contains('/') && self.paths.contains(&format!("src/{first}"));
        if !is_source && !in_root && !in_src || self.is_ignored(path) {
            return false;
        }
        let end = format!("/{path}");
        !self.paths.contains(path) && (in_root || !self.paths.iter().any(|known| known.ends_with(&end)))
    }

    /// Returns true if the word looks like a name in the code, but does not exist.
    fn lacks_name(&self, word: &str) -> bool {
        let word = word.trim_end_matches("()");
        let is_name = |part: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            part.starts_with(|c: char| c.is_ascii_lowercase()) && part.chars().all(plain)
        };
        let parts: Vec<&str> = word.split("::").collect();
        let Some((name, modules)) = parts.split_last().filter(|_| parts.iter().all(|part| is_name(part))) else {
            return false;
        };
        let underscores = name.matches('_').count();
        if underscores < 2 - usize::from(!modules.is_empty()) {
            return false;
        }
        if !modules.is_empty() {
            let is_in = |file: &[String]| {
                // Tests at the end of a file are in its module `tests`.
                let inline = modules.strip_suffix(&["tests"]).unwrap_or(modules);
                ends_with(file, modules) || (!inline.is_empty() && ends_with(file, inline))
            };
            return !self.functions.iter().any(|(file, functions)| is_in(file) && functions.contains(*name));
        }
        let is_script = |path: &String| Path::new(path).file_stem().is_some_and(|stem| stem == *name);
        let metric = name.strip_prefix("seriatim_").map(|rest| {
            let short = rest.strip_suffix("_total").or_else(|| rest.strip_suffix("_now")).unwrap_or(rest);
            let whole = name.strip_suffix("_total").unwrap_or(name);
            [rest, short, whole].iter().any(|word| self.words.contains(*word))
        });
        !self.words.contains(*name) && metric != Some(true) && !self.paths.iter().any(is_script)
    }

    /// Returns true if `.gitignore` contains the path, or a folder that contains it. The only wildcard in its patterns is `*`.
    fn is_ignored(&self, path: &str) -> bool {
        self.ignored.iter().any(|pattern| {
            let mut part = Some(Path::new(path));
            while let Some(at) = part {
                let file = at.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if matches(pattern, &at.to_string_lossy()) || (!pattern.contains('/') && matches(pattern, &file)) {
                    return true;
                }
                part = at.parent().filter(|parent| !parent.as_os_str().is_empty());
            }
            false
        })
    }
}

fn ends_with(file: &[String], modules: &[&str]) -> bool {
    file.len() >= modules.len() && file[file.len() - modules.len()..].iter().zip(modules).all(|(a, b)| a == b)
}

/// Returns true if the text matches the pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            let Some(rest) = text.strip_prefix(before) else { return false };
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).map(str::to_owned)
}

struct Document {
    name: String,
    folder: PathBuf,
    text: String,
}

/// Returns README.md, CONTRIBUTING.md and the documents in `docs/`, but not CHANGELOG.md, which may name removed items.
fn documents() -> Vec<Document> {
    let mut files = vec![PathBuf::from("README.md"), PathBuf::from("CONTRIBUTING.md")];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(|file| Document::read(file)).collect()
}

impl Document {
    fn read(file: &Path) -> Document {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        Document { name: file.display().to_string(), folder, text }
    }

    /// Returns the words between fences that end with `.rs`, with their line numbers.
    fn fenced_sources(&self) -> impl Iterator<Item = (usize, String)> {
        let outside: BTreeSet<usize> = self.lines().filter(|(_, line)| !line.is_empty()).map(|(i, _)| i).collect();
        let inside = self.text.lines().enumerate().filter(move |(i, _)| !outside.contains(&(i + 1)));
        inside.flat_map(|(i, line)| {
            let words =
                line.split(|c: char| c.is_whitespace() || "(),;".contains(c)).filter(|word| word.ends_with(".rs"));
            words.map(|word| (i + 1, word.to_owned())).collect::<Vec<_>>()
        })
    }

    /// Returns the lines, numbered from 1. Lines between fences are empty.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().map(move |(i, line)| {
            let is_fence = line.trim_start().starts_with("```");
            fenced ^= is_fence;
            (i + 1, if fenced || is_fence { "" } else { line })
        })
    }

    /// Returns the texts in back-ticks, with their line numbers.
    fn quoted(&self) -> impl Iterator<Item = (usize, String)> {
        self.lines().flat_map(|(i, line)| in_back_ticks(line).into_iter().map(move |word| (i, word)))
    }

    /// Returns the targets of links, except those to other sites, with their line numbers.
    fn links(&self) -> impl Iterator<Item = (usize, String)> {
        let links = self.lines().flat_map(|(i, line)| {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            targets.map(|target| (i, target.to_owned())).collect::<Vec<_>>()
        });
        links.filter(|(_, target)| !target.contains("://") && !target.starts_with("mailto:"))
    }

    fn reaches(&self, target: &str) -> bool {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        if file.is_empty() {
            return self.has_anchor(anchor);
        }
        let path = self.folder.join(file);
        let is_there = path.exists();
        is_there && (anchor.is_empty() || !file.ends_with(".md") || Document::read(&path).has_anchor(anchor))
    }

    fn has_anchor(&self, anchor: &str) -> bool {
        let of_heading = |line: &str| line.starts_with('#') && slug(line.trim_start_matches('#')) == anchor;
        self.lines().any(|(_, line)| of_heading(line)) || self.text.contains(&format!("id=\"{anchor}\""))
    }

    /// Returns the rows of the tables below a heading, without the header rows.
    fn rows(&self, heading: &str) -> Vec<(usize, String)> {
        let below = self.lines().skip_while(|(_, line)| *line != heading).skip(1);
        let section = below.take_while(|(_, line)| !line.starts_with("## "));
        let rows = section.filter(|(_, line)| line.starts_with('|'));
        let rows: Vec<(usize, String)> = rows.map(|(i, line)| (i, line.to_owned())).collect();
        let is_rule = |i: usize| rows.get(i).is_some_and(|(_, row)| row.starts_with("|--"));
        let wanted = rows.iter().enumerate().filter(|(i, _)| !is_rule(*i) && !is_rule(*i + 1));
        wanted.map(|(_, row)| row.clone()).collect()
    }
}

/// Returns the texts between single back-ticks.
fn in_back_ticks(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the anchor that Git hosting sites create for a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
