//! `seriatim completion`: the script that makes a shell complete commands, options and names.
//!
//! The script asks the program at each completion, so that it always fits the program that is installed. It sets
//! [`SHELL`], which makes [`answer`] write the candidates instead of running the command.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};

use clap::{Command, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{EnvCompleter, Shells};

use super::exit::{Exit, Failure};
use super::output;
use super::profiles::{self, Profiles};
use super::subcommand::{Process, Subcommand};

/// Set by the script to the name of the shell. It does not begin with `SERIATIM_`, so it is no option.
const SHELL: &str = "_SERIATIM_COMPLETE";

/// Print the script that makes a shell complete commands, options and names
///
/// Commands, options, file names, and the names of profiles are completed. The script runs the program at each
/// completion, which must therefore be in PATH.
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
    // Nobody reads an error while a command is typed: without candidates, nothing is completed.
    if let Some(completer) = completer(&shell.to_string_lossy()) {
        let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
        let mut candidates = Vec::new();
        let dir = std::env::current_dir().ok();
        if completer.write_complete(&mut with_names(cli()), words, dir.as_deref(), &mut candidates).is_ok() {
            let _ = io::stdout().write_all(&candidates);
        }
    }
    true
}

/// Adds the completion of names to all arguments that take one.
fn with_names(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_names));
    command.mut_args(|arg| match arg.get_id().as_str() {
        "profile" => arg.add(ArgValueCompleter::new(complete_profile)).value_hint(ValueHint::Other),
        _ => arg,
    })
}

fn complete_profile(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = profiles::file().and_then(|file| Profiles::load(&file).ok()).unwrap_or_default().all;
    starting_with(current, names.into_keys())
}

fn starting_with(current: &OsStr, names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.filter(|name| name.starts_with(&*current)).map(CompletionCandidate::new).collect()
}
