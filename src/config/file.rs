//! Reads the TOML file of `seriatim serve`.
//!
//! ```text
//!   config_version = 1
//!
//!   [listen.peer]                    table  ┐ the table of options says which option this is
//!   addr = "192.0.2.1:8401"          key    ┘
//! ```
//!
//! Files of earlier versions have no tables: each key is the name of an option (`bind_addr`). They are still read, with
//! a warning that contains the same file with tables. A file with both forms is refused.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::args::with_seconds;
use super::definition::{Form, OptionDef, TABLES};
use super::hints::{self, Hint, option_named};
use super::options::{ServeArgs, options, tables};
use super::origin::Origin;
use super::problems::Problems;

/// The version of the file's form that this program reads and writes.
pub const CONFIG_VERSION: u64 = 1;

/// The key at the top of a file with tables that names the version of its form. It may be missing.
pub(super) const VERSION_KEY: &str = "config_version";

impl ServeArgs {
    /// Reads the options that are not set yet from a TOML file. Adds all errors of the file to `problems`. Returns a
    /// warning if the file has the form of earlier versions.
    pub(super) fn fill_from(&mut self, file: &Path, text: &str, problems: &mut Problems) -> Option<String> {
        // Some editors write a byte order mark at the start of a file.
        let text = text.trim_start_matches('\u{feff}');
        let (root, mut errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader { file: file.display().to_string(), text, found: BTreeMap::new(), problems };
        let position = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        errors.sort_by_key(position);
        for error in &errors {
            reader.problem(position(error), &error.message().replace('\n', ", "));
        }
        if !errors.is_empty() {
            problems.set_all_unknown();
            return None;
        }
        let warning = reader.read(&entries(root.get_ref()));
        let mut found = reader.found;
        let mut origins = std::mem::take(&mut self.origins);
        for (option, slot) in self.slots() {
            let Some(given) = found.remove(option.name).filter(|_| slot.is_none()) else { continue };
            *slot = Some(given.text);
            let file = file.display().to_string();
            origins.set(option.name, Origin::File { file, line: given.line, key: given.key });
        }
        self.origins = origins;
        warning
    }
}

/// A key of a table, with its value and the positions of both in the file.
struct FileEntry<'a> {
    key: &'a str,
    at: usize,
    value: &'a DeValue<'a>,
    span: Range<usize>,
}

/// The value of an option in the file.
struct Found {
    text: String,
    line: usize,
    key: String,
}

/// Returns the entries of a table in the order of the file.
fn entries<'a>(table: &'a DeTable<'a>) -> Vec<FileEntry<'a>> {
    let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
        let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
        FileEntry { key: name, at: key.span().start, value: value.get_ref(), span: value.span() }
    };
    let mut entries: Vec<FileEntry<'a>> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

struct Reader<'a> {
    file: String,
    text: &'a str,
    found: BTreeMap<&'static str, Found>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Reads a file of either form. Returns a warning if it is the one without tables.
    fn read(&mut self, root: &[FileEntry<'_>]) -> Option<String> {
        if let Some(version) = root.iter().find(|entry| entry.key == VERSION_KEY)
            && let Err(problem) = check_version(version.value)
        {
            self.problem(version.at, &problem);
            self.problems.set_all_unknown();
            return None;
        }
        let is_table = |entry: &FileEntry<'_>| entry.value.is_table();
        let has_tables = root.iter().any(|entry| entry.key == VERSION_KEY || is_table(entry));
        let has_names = root.iter().any(|entry| option_named(&entry.key.replace('-', "_")).is_some());
        if has_names && !has_tables {
            return Some(self.read_names(root));
        }
        // The tables first, so that an option at the top is known to be set there too.
        let (with_tables, at_top): (Vec<_>, Vec<_>) = root.iter().partition(|entry| is_table(entry));
        for entry in with_tables {
            self.read_entry("", entry);
        }
        for entry in at_top.into_iter().filter(|entry| entry.key != VERSION_KEY) {
            match option_named(entry.key) {
                Some(option) => self.report_mixed(entry, option),
                None => self.read_entry("", entry),
            }
        }
        None
    }

    /// Reads a file of earlier versions, without tables. Returns the warning with its new form.
    fn read_names(&mut self, root: &[FileEntry<'_>]) -> String {
        let (mut values, mut is_complete) = (BTreeMap::new(), true);
        for entry in root {
            let Some(option) = option_named(entry.key) else {
                is_complete = false;
                self.report_unknown(None, entry);
                continue;
            };
            if let Some(line) = values.get(option.name).map(|(line, _)| *line) {
                self.problem(
                    entry.at,
                    &format!("{} sets the same option as line {line}; remove one of them", entry.key),
                );
                continue;
            }
            self.take(option, entry, entry.key);
            is_complete &= self.found.contains_key(option.name);
            let old = self.found.get(option.name).filter(|_| entry.key != option.name);
            let value = old.map_or_else(|| self.text[entry.span.clone()].to_owned(), |old| format!("{:?}", old.text));
            values.insert(option.name, (self.line(entry.at), value));
        }
        if !is_complete {
            return format!(
                "{} has no tables, as in earlier versions. Its new form is printed once its errors are corrected",
                self.file
            );
        }
        let mut new_form = format!("{VERSION_KEY} = {CONFIG_VERSION}\n");
        for (table, _, options) in tables() {
            let lines = options.filter_map(|option| Some((option.key(), values.get(option.name)?)));
            let lines: String = lines.map(|(key, (_, value))| format!("{key} = {value}\n")).collect();
            if !lines.is_empty() {
                new_form += &format!("\n[{table}]\n{lines}");
            }
        }
        format!(
            "{} has no tables, as in earlier versions. It is still read. Replace its content by this (comments are left \
             out):\n\n{new_form}",
            self.file
        )
    }

    /// Reads an entry of a table; an empty name is the top of the file.
    fn read_entry(&mut self, table: &str, entry: &FileEntry<'_>) {
        let path = if table.is_empty() { entry.key.to_owned() } else { format!("{table}.{}", entry.key) };
        // A quoted key can contain a dot.
        let is_simple = !entry.key.contains('.');
        if let Some(option) = options().iter().find(|option| option.path == path && is_simple) {
            return self.take(option, entry, &path);
        }
        if TABLES.iter().any(|(name, _)| *name == path && is_simple) {
            match entry.value {
                DeValue::Table(inner) => entries(inner).iter().for_each(|entry| self.read_entry(&path, entry)),
                _ => self.problem(entry.at, &format!("{path} is a table: begin it with the line [{path}]")),
            }
            return;
        }
        self.report_unknown(Some(table), entry);
    }

    /// Takes the value of an option.
    fn take(&mut self, option: &'static OptionDef, entry: &FileEntry<'_>, key: &str) {
        match text_of(entry.value, option.spec.form) {
            Ok(text) => {
                let text = if entry.key == option.name_in_seconds() { with_seconds(&text) } else { text };
                let line = self.line(entry.at);
                self.found.insert(option.name, Found { text, line, key: key.to_owned() });
            }
            Err(expected) => {
                self.problem(entry.at, &format!("{key} is not {expected}"));
                self.problems.set_unknown(option.name);
            }
        }
    }

    /// Reports an option at the top of a file that has tables.
    fn report_mixed(&mut self, entry: &FileEntry<'_>, option: &'static OptionDef) {
        let (key, name, table) = (entry.key, option.key(), option.table());
        let problem = match self.found.get(option.name) {
            Some(Found { line, key: other, .. }) => {
                format!("{key} is set twice: here, and as {other} in line {line}; remove the one here")
            }
            None => format!(
                "{key} is the form of a file without tables, but this file has tables or {VERSION_KEY}; write it as {name} in \
                 [{table}]"
            ),
        };
        self.problem(entry.at, &problem);
        self.problems.set_unknown(option.name);
    }

    /// Reports an unknown key. `table` is `None` in a file without tables.
    fn report_unknown(&mut self, table: Option<&str>, entry: &FileEntry<'_>) {
        let is_table = entry.value.is_table();
        let Hint { text, option } = match table {
            None => hints::for_name(entry.key),
            Some(table) if is_table => hints::for_table(table, entry.key),
            Some(table) => hints::for_key(table, entry.key),
        };
        let problem = match table {
            _ if is_table => format!("unknown table {:?}{text}", join(table.unwrap_or(""), entry.key)),
            None | Some("") => format!("unknown option {:?}{text}", entry.key),
            Some(table) => format!("unknown option {:?} in [{table}]{text}", entry.key),
        };
        self.problem(entry.at, &problem);
        option.iter().for_each(|option| self.problems.set_unknown(option.name));
    }

    /// Adds an error with its line.
    fn problem(&mut self, position: usize, problem: &str) {
        let line = self.line(position);
        self.problems.push(format!("{}:{line}: {problem}", self.file));
    }

    /// The line of a position, counted from 1.
    fn line(&self, position: usize) -> usize {
        self.text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count() + 1
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// Checks the version of the file's form.
fn check_version(value: &DeValue<'_>) -> Result<(), String> {
    let version = match value {
        DeValue::Integer(number) => integer(number).parse::<u64>().ok(),
        _ => None,
    };
    match version {
        Some(CONFIG_VERSION) => Ok(()),
        Some(newer) if newer > CONFIG_VERSION => Err(format!(
            "{VERSION_KEY} is {newer}, but this version of seriatim ({}) reads up to {CONFIG_VERSION}; start a newer version, or \
             write the file for version {CONFIG_VERSION} (dist/seriatim.toml)",
            env!("CARGO_PKG_VERSION")
        )),
        _ => Err(format!("{VERSION_KEY} is not a whole number from 1 on; write {VERSION_KEY} = {CONFIG_VERSION}")),
    }
}

/// Converts the value of a key to the text that its flag would have. The error is the expected kind of value.
fn text_of(value: &DeValue<'_>, form: Form) -> Result<String, &'static str> {
    match (value, form) {
        (DeValue::Array(values), Form::DialAddrs { .. }) => {
            let texts = values.iter().map(|value| one(value.get_ref(), form)).collect::<Option<Vec<_>>>();
            texts.map(|texts| texts.join(",")).ok_or("a list of addresses")
        }
        (value, Form::DialAddrs { .. }) => one(value, form).ok_or("a list of addresses"),
        (value, Form::Switch) => one(value, form).ok_or("true or false"),
        (value, Form::Number { .. }) => one(value, form).ok_or("a number, or a text with a unit"),
        (value, Form::Duration { .. }) => one(value, form).ok_or("a duration, like \"30s\""),
        (
            value,
            Form::ListenAddr
            | Form::ListenAddrOrOff
            | Form::HostName
            | Form::DialAddr
            | Form::NodeName
            | Form::ClusterName
            | Form::Directory
            | Form::File(_)
            | Form::LogLevel,
        ) => one(value, form).ok_or("a text in quotes"),
    }
}

/// Returns the text of a single value. A number or a boolean is accepted where the option is one.
fn one(value: &DeValue<'_>, form: Form) -> Option<String> {
    match (value, form) {
        (DeValue::String(s), _) => Some(s.to_string()),
        (DeValue::Integer(n), Form::Number { .. } | Form::Duration { .. }) => Some(integer(n)),
        (DeValue::Boolean(b), Form::Switch) => Some(b.to_string()),
        _ => None,
    }
}

/// An integer in decimal. One that is too large stays as it is, and no option accepts it.
fn integer(number: &DeInteger<'_>) -> String {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.to_string(), |number| number.to_string())
}

#[cfg(test)]
mod tests;
