//! Reads the command line and the environment of `seriatim serve`. Both are defined by the table of options. Every
//! option is read as text and parsed later, so that all invalid values are reported at once.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::definition::{Form, OptionDef};
use super::options::{ServeArgs, tables};
use super::origin::Origin;

/// The only option that can't be set in the file.
const CONFIG: &str = "config";

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .env("SERIATIM_CONFIG")
            .value_name("FILE")
            .help("TOML file with these options in tables; `seriatim config check FILE` checks it");
        let mut command = command.arg(config);
        for (_, title, options) in tables() {
            for option in options {
                command = command.arg(arg(option).help_heading(title)).args(arg_in_seconds(option));
            }
        }
        command
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
        self.config = text(matches, CONFIG).map(|(text, _)| text);
        let mut origins = std::mem::take(&mut self.origins);
        for (option, slot) in self.slots() {
            let plain = text(matches, option.name).map(|(text, is_flag)| (text, is_flag, (&option.flag, &option.env)));
            let seconds = option.in_seconds.as_ref().and_then(|(flag, env)| {
                let (text, is_flag) = text(matches, option.name_in_seconds())?;
                Some((with_seconds(&text), is_flag, (flag, env)))
            });
            let given = match (plain, seconds) {
                (Some(plain), Some(seconds)) => {
                    let origin = |(_, is_flag, (flag, env)): &Given<'_>| origin(*is_flag, flag, env);
                    if plain.1 == seconds.1 {
                        origins.twice.push(format!(
                            "{}: the same option is set by {}; remove one of them",
                            origin(&plain),
                            origin(&seconds)
                        ));
                    }
                    Some(if seconds.1 && !plain.1 { seconds } else { plain })
                }
                (plain, seconds) => plain.or(seconds),
            };
            *slot = given.map(|(text, is_flag, (flag, env))| {
                origins.set(option.name, origin(is_flag, flag, env));
                text
            });
        }
        self.origins = origins;
        Ok(())
    }
}

/// The text of an option, whether a flag has set it, and the names of flag and variable.
type Given<'a> = (String, bool, (&'a String, &'a String));

fn origin(is_flag: bool, flag: &str, env: &str) -> Origin {
    if is_flag { Origin::Flag(flag.to_owned()) } else { Origin::Environment(env.to_owned()) }
}

/// Returns the text of an argument, and whether a flag has set it.
fn text(matches: &ArgMatches, id: &str) -> Option<(String, bool)> {
    let values = matches.get_many::<String>(id)?;
    let is_flag = matches.value_source(id) == Some(ValueSource::CommandLine);
    Some((values.map(String::as_str).collect::<Vec<_>>().join(","), is_flag))
}

/// Adds the unit to a number of seconds, as the earlier names of durations take it.
pub(super) fn with_seconds(text: &str) -> String {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { format!("{text}s") } else { text.to_owned() }
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
        .long_help(format!("{about}{facts} [file: {}]", option.path));
    match option.spec.form {
        Form::Switch => arg.num_args(0..=1).default_missing_value("true"),
        Form::DialAddrs { .. } => arg.action(ArgAction::Append),
        Form::ListenAddr
        | Form::ListenAddrOrOff
        | Form::HostName
        | Form::DialAddr
        | Form::NodeName
        | Form::ClusterName
        | Form::Directory
        | Form::File(_)
        | Form::LogLevel
        | Form::Number { .. }
        | Form::Duration { .. } => arg,
    }
}

/// The hidden argument with the earlier name of a duration.
fn arg_in_seconds(option: &'static OptionDef) -> Option<Arg> {
    let (flag, env) = option.in_seconds.as_ref()?;
    let help = format!("The earlier name of --{}, a number of seconds", option.flag);
    Some(
        Arg::new(option.name_in_seconds())
            .long(flag.as_str())
            .env(env.as_str())
            .value_name("SECONDS")
            .help(help)
            .hide(true),
    )
}

impl ServeArgs {
    /// Returns what errors call each option: where its value was given, or its names if it was not.
    pub(super) fn labels(&mut self) -> BTreeMap<&'static str, String> {
        let origins = self.origins.clone();
        let label = |option: &OptionDef, is_set: bool| match origins.get(option.name) {
            // The table of the file says the side.
            Some(origin @ Origin::File { key, .. }) if key == option.path => origin.to_string(),
            Some(origin) => format!("{origin}{}", option.side()),
            None if is_set => option.flag_label(),
            None => format!("--{} ({} in the file)", option.flag, option.path),
        };
        self.slots().map(|(option, given)| (option.name, label(option, given.is_some()))).collect()
    }

    /// Returns where an option was set.
    pub(super) fn origin(&self, option: &OptionDef, is_set: bool) -> Origin {
        match self.origins.get(option.name) {
            Some(origin) => origin.clone(),
            None if is_set => Origin::Flag(option.flag.clone()),
            None => Origin::Default,
        }
    }
}
