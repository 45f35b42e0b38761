//! Suggestions for unknown keys in the configuration file.

use super::definition::{OptionDef, TABLES};
use super::options::{options, tables};

/// The end of an error message, and the option that was probably meant.
pub(super) struct Hint {
    pub text: String,
    pub option: Option<&'static OptionDef>,
}

/// Returns the option with this name, or with this name in seconds.
pub(super) fn option_named(name: &str) -> Option<&'static OptionDef> {
    options().iter().find(|option| option.name == name || option.spec.name_in_seconds == Some(name))
}

/// For a key of a file without tables.
pub(super) fn for_name(key: &str) -> Hint {
    let plain = key.replace('-', "_");
    if let Some(option) = option_named(&plain) {
        return Hint { text: format!("; in a file it is written {plain}"), option: Some(option) };
    }
    let option = nearest(&plain, options().iter().map(|option| (option.name, option)));
    Hint { text: option.map_or_else(String::new, |option| format!("; did you mean {}?", option.name)), option }
}

/// For a key of this table; an empty name is the top of a file with tables.
pub(super) fn for_key(table: &str, key: &str) -> Hint {
    let plain = key.replace('-', "_");
    let of_table = || options().iter().filter(|option| option.table() == table);
    if let Some(option) = of_table().find(|option| option.key() == plain) {
        return Hint { text: format!("; in a file it is written {plain}"), option: Some(option) };
    }
    if let Some(option) = option_named(&plain) {
        return Hint { text: format!("; write it as {} in [{}]", option.key(), option.table()), option: Some(option) };
    }
    if let Some(option) = nearest(&plain, of_table().map(|option| (option.key(), option))) {
        return Hint { text: format!("; did you mean {}?", option.key()), option: Some(option) };
    }
    let in_order = tables().flat_map(|(_, _, options)| options);
    let same_key: Vec<&'static OptionDef> = in_order.filter(|option| option.key() == plain).collect();
    if !same_key.is_empty() {
        let tables: Vec<String> = same_key.iter().map(|option| format!("[{}]", option.table())).collect();
        let option = if same_key.len() == 1 { same_key.first().copied() } else { None };
        return Hint { text: format!("; it belongs in {}", tables.join(" or ")), option };
    }
    if let Some(option) = nearest(&plain, options().iter().map(|option| (option.name, option))) {
        let text = format!("; did you mean {} in [{}]?", option.key(), option.table());
        return Hint { text, option: Some(option) };
    }
    let keys: Vec<&str> = of_table().map(OptionDef::key).collect();
    let text = match keys.is_empty() {
        true => format!("; the tables are {}", all_tables()),
        false => format!("; the keys of [{table}] are {}", keys.join(", ")),
    };
    Hint { text, option: None }
}

/// For a table within this table; an empty name is the top of the file.
pub(super) fn for_table(table: &str, key: &str) -> Hint {
    let plain = key.replace('-', "_");
    let path = if table.is_empty() { plain } else { format!("{table}.{plain}") };
    let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
    let by_path = nearest(&path, TABLES.iter().map(|(name, _)| (*name, *name)));
    let found = by_path.or_else(|| nearest(last_part(&path), TABLES.iter().map(|(name, _)| (last(name), *name))));
    let text = match found {
        Some(name) => format!("; did you mean [{name}]?"),
        None => format!("; the tables are {}", all_tables()),
    };
    Hint { text, option: None }
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn all_tables() -> String {
    tables().map(|(table, ..)| format!("[{table}]")).collect::<Vec<_>>().join(", ")
}

/// Returns the candidate whose name needs the fewest changes to become `given`, if these are few.
fn nearest<T>(given: &str, candidates: impl Iterator<Item = (&'static str, T)>) -> Option<T> {
    let distance = |name: &str| strsim::damerau_levenshtein(given, name);
    let few = |name: &str| (name.len() / 3).clamp(1, 4);
    let near = candidates.filter_map(|(name, candidate)| {
        let distance = distance(name);
        (distance <= few(name)).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}
