//! Reads the command line and the TOML file of `seriatim serve`. Both are defined by the table of options. Every
//! option is read as text and parsed later, so that all invalid values are reported at once.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::definition::{Form, OptionDef};
use super::options::{ServeArgs, options};
use super::problems::Problems;

/// The only option that can't be set in the file.
const CONFIG: &str = "config";

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .env("SERIATIM_CONFIG")
            .value_name("FILE")
            .help("TOML file with these options, their names written with _ instead of -");
        options().iter().fold(command.arg(config), |command, option| command.arg(arg(option)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = ServeArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let text = |name| {
            let values = matches.get_many::<String>(name)?;
            Some(values.map(String::as_str).collect::<Vec<_>>().join(","))
        };
        self.config = text(CONFIG);
        for (option, slot) in self.slots() {
            *slot = text(option.name);
        }
        Ok(())
    }
}

fn arg(option: &'static OptionDef) -> Arg {
    let facts = [
        option.default_text().map(|default| format!("default: {default}")),
        option.spec.form.range().map(|range| format!("values: {range}")),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" [{}]", facts.join("; ")) };
    // The short help (-h) is the first sentence.
    let about = option.about.trim_end_matches('.');
    let (first, _) = about.split_once(". ").unwrap_or((about, ""));
    let arg = Arg::new(option.name)
        .long(option.flag.as_str())
        .env(option.env.as_str())
        .value_name(option.spec.form.value_name())
        .help(format!("{first}{facts}"))
        .long_help(format!("{about}{facts}"))
        .help_heading(option.section);
    match option.spec.form {
        Form::Switch => arg.num_args(0..=1).default_missing_value("true"),
        Form::DialAddrs { .. } => arg.action(ArgAction::Append),
        Form::ListenAddr
        | Form::DialAddr
        | Form::NodeName
        | Form::ClusterName
        | Form::Directory
        | Form::File(_)
        | Form::LogLevel
        | Form::Number { .. } => arg,
    }
}

impl ServeArgs {
    /// Reads the options that are not set yet from a TOML file. Adds all errors of the file to `problems`.
    pub(super) fn fill_from(&mut self, file: &Path, text: &str, problems: &mut Problems) {
        // Some editors write a byte order mark at the start of a file.
        let text = text.trim_start_matches('\u{feff}');
        let mut table: BTreeMap<String, toml::Value> = match toml::from_str(text) {
            Ok(table) => table,
            Err(e) => {
                problems.push(format!("{}: {}", file.display(), e.to_string().trim_end()));
                return problems.set_all_unknown();
            }
        };
        for (option, slot) in self.slots() {
            let Some(value) = table.remove(option.name) else { continue };
            match text_of(&value, option.spec.form) {
                Ok(value) => drop(slot.get_or_insert(value)),
                Err(expected) => {
                    problems.push(format!("{}: {} is not {expected}", file.display(), option.name));
                    problems.set_unknown(&option.flag);
                }
            }
        }
        for key in table.keys() {
            let name = key.replace('-', "_");
            let option = options().iter().find(|option| option.name == name);
            let hint = option.map(|_| format!("; in a file it is written {name}")).unwrap_or_default();
            problems.push(format!("{}: unknown option {key:?}{hint}", file.display()));
            option.iter().for_each(|option| problems.set_unknown(&option.flag));
        }
    }
}

/// Converts the value of a key to the text that its flag would have. The error is the expected kind of value.
fn text_of(value: &toml::Value, form: Form) -> Result<String, &'static str> {
    match (value, form) {
        (toml::Value::Array(values), Form::DialAddrs { .. }) => {
            let texts = values.iter().map(one).collect::<Option<Vec<_>>>();
            texts.map(|texts| texts.join(",")).ok_or("a list of addresses")
        }
        (value, Form::DialAddrs { .. }) => one(value).ok_or("a list of addresses"),
        (value, _) => one(value).ok_or("one value"),
    }
}

fn one(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}
