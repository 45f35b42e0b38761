//! `seriatim completion`: the script that makes a shell complete commands, options and names.
//!
//! The script asks the program at each completion, so that it always fits the program that is installed. It sets
//! a variable, which makes [`answer`] write the candidates instead of running the command.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Command, FromArgMatches as _, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};
use clap_complete::env::{EnvCompleter, Shells};

use super::connect::ConnectArgs;
use super::dialer::Dialer;
use super::exit::{Exit, Failure};
use super::log_delete::UndeleteArgs;
use super::log_list::logs;
use super::output;
use super::profiles::{self, Profiles};
use super::subcommand::{Process, Subcommand};

/// Set by the script to the name of the shell. Its name does not begin with `SERIATIM_`, as those of options do.
const SHELL: &str = "_SERIATIM_COMPLETE";

/// How long a node may take to list the logs while a word is completed.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The script for bash passes the number of the word that is completed in this variable,
const BASH_INDEX: &str = "_CLAP_COMPLETE_INDEX";
/// and splits the candidates here.
const BASH_SEPARATOR: &str = "\u{b}";

/// Print the script that makes a shell complete commands, options and names
///
/// Commands, options, file names, and the names of profiles and logs are completed. The script runs the program at each
/// completion, which must therefore be in PATH. For names of logs it asks a node, by the connection options that are
/// typed, in the environment, or in the profile; it waits at most a second.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The shell that runs the script
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Shell::Bash => "bash",
            Shell::Fish => "fish",
            Shell::Zsh => "zsh",
        }
    }
}

impl Subcommand for Args {
    const NAME: &'static str = "completion";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim completion bash > /etc/bash_completion.d/seriatim",
        "seriatim completion zsh > ~/.zfunc/_seriatim",
        "seriatim completion fish > ~/.config/fish/completions/seriatim.fish",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let mut script = Vec::new();
        let written = match completer(self.shell.name()) {
            Some(shell) => shell.write_registration(SHELL, "seriatim", "seriatim", "seriatim", &mut script),
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        written.map_err(|error| Failure::new(Exit::Failed, format!("no script for this shell: {error}"), ""))?;
        output::written(io::stdout().write_all(&script))
    }
}

fn completer(shell: &str) -> Option<&'static dyn EnvCompleter> {
    const SHELLS: Shells<'static> = Shells::builtins();
    SHELLS.0.iter().copied().find(|completer| completer.is(shell))
}

/// If a shell asks for candidates, writes them and returns true. `cli` is the definition of the command line.
pub fn answer(cli: fn() -> Command) -> bool {
    let Some(shell) = std::env::var_os(SHELL).filter(|shell| !shell.is_empty()) else { return false };
    let words: Vec<OsString> = typed_words().collect();
    let dir = std::env::current_dir().ok();
    let mut command = with_names(cli(), cli);
    let mut text = Vec::new();
    let completed = match completer(&shell.to_string_lossy()) {
        Some(shell) if shell.is("bash") => {
            let number = std::env::var(BASH_INDEX).ok().and_then(|number| number.parse().ok()).unwrap_or_default();
            let Joined { words, current, prefix } = joined(words, number);
            complete(&mut command, words, current, dir.as_deref()).map(|found| {
                let values = found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned());
                let values = values.map(|value| value.strip_prefix(prefix.as_str()).unwrap_or(&value).to_owned());
                text = values.collect::<Vec<_>>().join(BASH_SEPARATOR).into_bytes();
            })
        }
        Some(shell) => shell.write_complete(&mut command, words, dir.as_deref(), &mut text),
        None => Ok(()),
    };
    // Nobody reads an error while a command is typed: without candidates, nothing is completed.
    if completed.is_ok() {
        let _ = io::stdout().write_all(&text);
    }
    true
}

/// A command line in bash, with the words as they were typed.
#[derive(Debug, PartialEq, Eq)]
struct Joined {
    words: Vec<OsString>,
    /// The word that is completed.
    current: usize,
    /// The part of that word that candidates must not repeat.
    prefix: String,
}

/// Joins words that bash has split at `:` and `=`, so that `n1:8400` is one word again. `current` is the number of the
/// word that is completed.
fn joined(split: Vec<OsString>, current: usize) -> Joined {
    let mut joined = Joined { words: Vec::new(), current: 0, prefix: String::new() };
    let mut continues = false;
    for (number, word) in split.into_iter().enumerate() {
        let separates = word == ":" || word == "=";
        let joins = (separates || continues) && joined.words.len() > 1;
        if number == current {
            let before = joined.words.last().filter(|_| joins);
            joined.prefix = before.map(|before| before.to_string_lossy().into_owned()).unwrap_or_default();
        }
        match joined.words.last_mut() {
            Some(last) if joins => last.push(&word),
            Some(_) | None => joined.words.push(word),
        }
        if number == current {
            joined.current = joined.words.len() - 1;
        }
        continues = separates;
    }
    joined
}

/// Adds the completion of names to all arguments that take one.
fn with_names(command: Command, cli: fn() -> Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |command| with_names(command, cli)));
    let connects = command.get_arguments().any(|arg| arg.get_id() == "addr" && arg.get_env().is_some());
    command.mut_args(|arg| match arg.get_id().as_str() {
        "profile" => arg.add(ArgValueCompleter::new(complete_profile)).value_hint(ValueHint::Other),
        "log" | "log_operand" | "prefix" if connects => arg
            .add(ArgValueCompleter::new(move |current: &OsStr| complete_log(cli, current)))
            .value_hint(ValueHint::Other),
        _ => arg,
    })
}

fn complete_profile(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = profiles::file().and_then(|file| Profiles::load(&file).ok()).unwrap_or_default().all;
    starting_with(current, names.into_keys())
}

/// Returns the names of the logs that a node lists; none if no node answers in time.
fn complete_log(cli: fn() -> Command, current: &OsStr) -> Vec<CompletionCandidate> {
    let listed = || {
        let split: Vec<OsString> = typed_words().collect();
        let words = joined(split, 0).words;
        let matches = cli().ignore_errors(true).try_get_matches_from(words).ok()?;
        let (mut leaf, mut name) = (&matches, "");
        while let Some((subcommand, matches)) = leaf.subcommand() {
            (leaf, name) = (matches, subcommand);
        }
        let shows_deleted = name == UndeleteArgs::NAME;
        let dialer = ConnectArgs::from_arg_matches(leaf).ok()?.resolve().ok()?;
        let dialer = Dialer { timeout: ANSWER_MAX, ..dialer };
        dialer.ask(|client| logs(client, &current.to_string_lossy(), shows_deleted)).ok().map(|(_, logs)| logs)
    };
    starting_with(current, listed().unwrap_or_default().into_iter().map(|log| log.name))
}

/// Returns the words of the command line that is completed.
fn typed_words() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1)
}

fn starting_with(current: &OsStr, names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.filter(|name| name.starts_with(&*current)).map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(words: &[&str], current: usize) -> (Vec<String>, usize, String) {
        let Joined { words, current, prefix } = joined(words.iter().map(OsString::from).collect(), current);
        (words.iter().map(|word| word.to_string_lossy().into_owned()).collect(), current, prefix)
    }

    /// Bash splits words at `:` and `=`, so after `--addr n1:8400` nothing was completed.
    #[test]
    fn joins_words_that_bash_has_split() {
        let (words, current, prefix) = join(&["seriatim", "consume", "--addr", "n1", ":", "8400", "--log", "a"], 7);
        assert_eq!(words, ["seriatim", "consume", "--addr", "n1:8400", "--log", "a"]);
        assert_eq!((current, prefix.as_str()), (5, ""));
        let (words, current, prefix) = join(&["seriatim", "consume", "--certs", "=", "di"], 4);
        assert_eq!((words[2].as_str(), current, prefix.as_str()), ("--certs=di", 2, "--certs="));
        let (words, current, prefix) = join(&["seriatim", "consume", "--certs", ""], 3);
        assert_eq!((words.len(), current, prefix.as_str()), (4, 3, ""));
        assert_eq!(join(&["seriatim", ""], 1).1, 1);
    }
}
