//! Generates `dist/seriatim.toml` and the table of settings in `docs/OPERATIONS.md` from the table of options.

use super::definition::{Default, Form, OptionDef};
use super::file::{CONFIG_VERSION, VERSION_KEY};
use super::options::tables;

const HEADER: &str = "\
# The configuration of one node: every option of `seriatim serve`.
#
# An option is given by its flag (--bind-addr), otherwise by an environment variable
# (SERIATIM_BIND_ADDR), otherwise here. A line that begins with \"#name =\" shows an option's default,
# or an example if it has no default. Sizes have a unit (KiB, MiB, GiB, TiB) or are bytes; durations
# have a unit (ms, s, m, h, d). `seriatim config check FILE` reports all mistakes at once, and
# `seriatim config show FILE` prints the value of every option.
#
# Three hosts use the same file: write their addresses or names into join. They form a cluster by
# themselves if bootstrap_expect is set; otherwise one of them founds it, once: see bootstrap.
# docs/OPERATIONS.md describes each step.
#
# Generated from src/config/options.rs: edit that file, then run `make update-golden`.
";

const COLUMNS: usize = 100;

/// Returns the content of `dist/seriatim.toml`.
pub fn example_file() -> String {
    let mut text = format!("{HEADER}\n{VERSION_KEY} = {CONFIG_VERSION}\n");
    for (table, title, options) in tables() {
        text += &format!("\n# --- {title}\n[{table}]\n");
        for option in options {
            text.push('\n');
            for line in wrap(&format!("{}{}", option.about, facts(option)), COLUMNS - 2) {
                text += &format!("# {line}\n");
            }
            let hash = if option.spec.is_set_in_example { "" } else { "#" };
            text += &format!("{hash}{} = {}\n", option.key(), toml_value(option));
        }
    }
    text
}

/// Returns the table of settings, in Markdown.
pub fn settings_table() -> String {
    let mut text = "| option | in the file | default | values | meaning |\n|---|---|---|---|---|\n".to_owned();
    for option in tables().flat_map(|(_, _, options)| options) {
        let default = match option.spec.default {
            Default::Value(value) => format!("`{value}`"),
            Default::Derived(text) => text.to_owned(),
            Default::None => String::new(),
            Default::Required(_) => "required".to_owned(),
        };
        let values = option.spec.form.range().unwrap_or_else(|| option.spec.form.value_name().to_owned());
        let mut about = option.about.replace('|', "\\|").replace('<', "\\<").replace('>', "\\>");
        if option.spec.reloads {
            about += " **Applied at a reload**.";
        }
        text += &format!("| `{}` | `{}` | {default} | {values} | {about} |\n", option.name, option.path);
    }
    text
}

fn facts(option: &OptionDef) -> String {
    let default = match option.spec.default {
        Default::Derived(text) => format!(" Default: {text}."),
        Default::Value(value) if option.spec.is_set_in_example => format!(" Default: {value}."),
        Default::Value(_) | Default::None | Default::Required(_) => String::new(),
    };
    let range = option.spec.form.range().map_or_else(String::new, |range| format!(" Values: {range}."));
    let reload = if option.spec.reloads { " Applied at a reload." } else { "" };
    format!("{default}{range} Flag: --{}.{reload}", option.flag)
}

fn toml_value(option: &OptionDef) -> String {
    let text = match (option.spec.example, option.spec.default) {
        (Some(example), _) => example,
        (None, Default::Value(value)) => value,
        (None, Default::Derived(_) | Default::None | Default::Required(_)) => "",
    };
    match option.spec.form {
        Form::DialAddrs { .. } => {
            let quoted: Vec<String> = text.split(',').map(|addr| format!("{addr:?}")).collect();
            format!("[{}]", quoted.join(", "))
        }
        _ if text.parse::<u64>().is_ok() || text.parse::<bool>().is_ok() => text.to_owned(),
        _ => format!("{text:?}"),
    }
}

fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > columns {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            let space = if line.is_empty() { "" } else { " " };
            *line += &format!("{space}{word}");
        }
    }
    lines
}
