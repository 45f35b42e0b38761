//! Counts some habits of unclear English in the sources and documents. `make prose` prints the counts; `make prose LIST=1`
//! also prints where each one was found.
//!
//! A count does not measure good prose. It stops a habit from returning once it is gone.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The word "behind", which is for replication lag only.
const BEHIND_MAX: usize = 10;
/// The word "gives", where "returns" or "contains" is meant.
const GIVES_MAX: usize = 0;
/// "is no ..." and "are no ...", where "is not a ..." or "does not exist" is meant.
const IS_NO_MAX: usize = 5;
/// The words "who" and "whoever", which are for people.
const WHO_MAX: usize = 0;
/// Doc comments of one line and at most three words that only repeat the name of their item.
const REPEATED_NAME_MAX: usize = 0;
/// Lines of documents that are too long, tables aside.
const LONG_LINES_MAX: usize = 0;

const COLUMNS_MAX: usize = 100;

/// Where something was found.
struct Hit {
    file: PathBuf,
    line: usize,
    text: String,
    /// The first word of the next line, if that continues the comment: a phrase may be wrapped.
    next: String,
}

impl Hit {
    fn new(file: &Path, line: usize, text: impl Into<String>) -> Hit {
        Hit { file: file.to_owned(), line, text: text.into(), next: String::new() }
    }
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

#[test]
fn plain_english_is_not_lost_again() {
    let sources: Vec<(PathBuf, String)> = files("src", "rs");
    let comments: Vec<Hit> = sources.iter().flat_map(|(file, text)| comments(file, text)).collect();
    let of_words = |words: &[&str]| find(&comments, |hit| count_words(&hit.text, words));
    let counts = [
        ("\"behind\"", BEHIND_MAX, of_words(&["behind"])),
        ("\"gives\"", GIVES_MAX, of_words(&["gives"])),
        ("\"is no\", \"are no\"", IS_NO_MAX, find(&comments, count_is_no)),
        ("\"who\", \"whoever\"", WHO_MAX, of_words(&["who", "whoever"])),
        (
            "doc comments that repeat a name",
            REPEATED_NAME_MAX,
            sources.iter().flat_map(|(file, text)| repeated_names(file, text)).collect(),
        ),
        ("lines of documents over 100 columns", LONG_LINES_MAX, documents().iter().flat_map(long_lines).collect()),
    ];
    let list = std::env::var("LIST").is_ok_and(|list| !list.is_empty());
    let mut above = Vec::new();
    println!("{:>6} {:>6}", "count", "limit");
    for (what, limit, hits) in &counts {
        println!("{:>6} {:>6}  {what}", hits.len(), limit);
        let all = hits.iter().map(|hit| format!("    {hit}\n")).collect::<String>();
        if list {
            print!("{all}");
        }
        if hits.len() > *limit {
            above.push(format!("{}, at most {limit} {what}:\n{all}", hits.len()));
        }
    }
    assert!(above.is_empty(), "{}", above.join("\n"));
}

#[test]
fn comments_and_names_are_found() {
    let text = "//! About.\n/// The log.\npub log: Log,\nlet a = \"// no\"; // yes\nlet b = '\"'; // also\n/* all */\n";
    let hits = comments(Path::new("a.rs"), text);
    let texts: Vec<(usize, &str)> = hits.iter().map(|hit| (hit.line, hit.text.trim())).collect();
    assert_eq!(texts, [(1, "About."), (2, "The log."), (4, "yes"), (5, "also"), (6, "all")]);
    let wrapped = comments(Path::new("a.rs"), "// It is\n// no file.\n\n// It is no file.\n\n// It is\n\n// no.\n");
    assert_eq!(wrapped.iter().map(count_is_no).collect::<Vec<_>>(), [1, 0, 1, 0, 0]);
    assert_eq!(count_words("Whoever asks who, that's \"who\".", &["who"]), 2);

    let repeats = |text: &str| repeated_names(Path::new("a.rs"), text).len();
    assert_eq!(repeats("/// The open streams.\n#[attr]\npub(crate) open_stream: u64,\n"), 1);
    assert_eq!(repeats("/// A damaged range.\npub struct DamagedRange {\n"), 1);
    assert_eq!(repeats("/// Read failed.\nReadFailed(io::Error),\n"), 1);
    assert_eq!(repeats("/// Bytes, without the header.\npub fn payload_bytes(&self) -> u64 {\n"), 0);
    assert_eq!(repeats("/// Never sleeps.\npub fn wait(&self) {\n"), 0);
    assert_eq!(repeats("/// The log\n/// of logs.\npub log: Log,\n"), 0);
}

/// Returns each comment as often as `count` finds something in it.
fn find(comments: &[Hit], count: impl Fn(&Hit) -> usize) -> Vec<Hit> {
    let copy = |hit: &Hit| Hit::new(&hit.file, hit.line, hit.text.trim());
    comments.iter().flat_map(|hit| (0..count(hit)).map(move |_| copy(hit))).collect()
}

fn count_words(text: &str, words: &[&str]) -> usize {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| words.contains(word)).count()
}

fn count_is_no(hit: &Hit) -> usize {
    let lower = format!("{} {}", hit.text, hit.next).to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    words.windows(2).filter(|pair| matches!(pair[0], "is" | "are") && pair[1] == "no").count()
}

/// Returns the comments of a source, line by line.
fn comments(file: &Path, text: &str) -> Vec<Hit> {
    let mut hits: Vec<Hit> = Vec::new();
    for (line, comment) in each_comment(text) {
        if let Some(before) = hits.last_mut().filter(|before| before.line + 1 == line) {
            before.next = comment.split_whitespace().next().unwrap_or_default().to_owned();
        }
        hits.push(Hit::new(file, line, comment));
    }
    hits
}

/// Returns each comment without its slashes, with its line number from 1. Skips strings and characters that look like a
/// comment.
fn each_comment(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut i, mut line, mut found) = (0, 1, Vec::new());
    while i < chars.len() {
        let begin = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
                let comment: String = chars[begin..i].iter().collect();
                found.push((line, comment.trim_start_matches(['/', '!']).to_owned()));
            }
            ('/', '*') => {
                while i < chars.len() && !(at(i) == '*' && at(i + 1) == '/') {
                    i += 1;
                }
                found.push((line, chars[begin + 2..i].iter().collect()));
                i += 2;
            }
            ('r', '"' | '#') if !is_ident(at(i.wrapping_sub(1))) || at(i.wrapping_sub(1)) == 'b' => {
                let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
                i += 1 + hashes;
                if at(i) == '"' {
                    i += 1;
                    while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                        i += 1;
                    }
                    i += 1 + hashes;
                }
            }
            ('"', _) => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            ('\'', '\\') => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            _ => i += 1,
        }
        line += chars[begin..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the doc comments of one line and at most three words, all of which are in the name of the item below.
fn repeated_names(file: &Path, text: &str) -> Vec<Hit> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_doc = |i: usize| lines.get(i).is_some_and(|line| line.starts_with("///"));
    let mut hits = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let Some(comment) = line.strip_prefix("///") else { continue };
        if is_doc(i + 1) || (i > 0 && is_doc(i - 1)) {
            continue;
        }
        let words = words(comment);
        let item = lines[i + 1..].iter().find(|line| !line.starts_with("#[") && !line.starts_with("//"));
        let names = name(item.unwrap_or(&""));
        if words.len() <= 3 && !words.is_empty() && words.iter().all(|word| names.contains(word)) {
            hits.push(Hit::new(file, i + 1, *line));
        }
    }
    hits
}

/// Returns the words of a comment or a name: in lower case, without articles, in the singular.
fn words(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    let mut before = ' ';
    for c in text.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            spaced.push(' ');
        }
        spaced.extend(c.to_lowercase());
        before = c;
    }
    let parts = spaced.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let parts = parts.filter(|word| !matches!(*word, "a" | "an" | "the"));
    parts.map(|word| word.strip_suffix('s').filter(|word| word.len() > 1).unwrap_or(word).to_owned()).collect()
}

/// Returns the words of the name that an item's first line declares.
fn name(item: &str) -> Vec<String> {
    let keywords = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "union"];
    let mut names = item.split(|c: char| !is_ident(c)).filter(|part| !part.is_empty()).skip_while(|part| {
        matches!(*part, "pub" | "crate" | "super" | "in" | "async" | "unsafe" | "extern" | "default")
    });
    let Some(first) = names.next() else { return Vec::new() };
    let declared = if keywords.contains(&first) {
        names.find(|part| !keywords.contains(part) && *part != "mut")
    } else {
        Some(first)
    };
    words(declared.unwrap_or_default())
}

/// Returns the documents in the root and in `docs/`, except those that are generated.
fn documents() -> Vec<(PathBuf, String)> {
    let mut all = files("docs", "md");
    for entry in fs::read_dir(".").expect("the project's root").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "md") {
            all.push((path.clone(), fs::read_to_string(&path).expect("a document")));
        }
    }
    all.retain(|(_, text)| !text.contains("\nWritten by `make "));
    all
}

fn long_lines((file, text): &(PathBuf, String)) -> Vec<Hit> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('|'));
    let long = lines.filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
    long.map(|(i, line)| Hit::new(file, i + 1, line.chars().take(60).collect::<String>())).collect()
}

/// Returns all files with this extension below a folder of the project.
fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let text = fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}
