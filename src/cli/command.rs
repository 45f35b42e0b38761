//! The command line as a whole, and the program's `main`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Command;
use clap::error::ErrorKind;

use super::exit::{self, Exit, Failure};
use super::subcommand::{Entry, Process};
use super::{SUBCOMMANDS, completion, descriptors, environment, interrupt, journal, output};

/// Returns the definition of the whole command line.
pub fn cli() -> Command {
    Command::new("seriatim")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A replicated commit log: append anywhere, read anywhere, nothing acknowledged is lost")
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(SUBCOMMANDS.iter().map(Entry::command))
        .after_help(exit::table())
}

/// Parses the arguments and runs the subcommand. If it fails, prints the reason on stderr.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::tell(&journal::failure_text(&format!("seriatim: {failure}")));
            }
            failure.exit.into()
        }
    }
}

fn run() -> Result<(), Failure> {
    descriptors::keep_standard_streams()?;
    if completion::answer(cli) {
        return Ok(());
    }
    let matches = cli().get_matches();
    let Some((subcommand, args)) = Entry::choose(SUBCOMMANDS, &matches) else {
        cli().error(ErrorKind::MissingSubcommand, "a subcommand is missing").exit();
    };
    if !subcommand.handles_signals {
        interrupt::listen()
            .map_err(|error| Failure::new(Exit::Failed, format!("can't handle signals: {error}"), ""))?;
    }
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let process = Process { unknown_variables: unknown_variables(variables), cli };
    (subcommand.run)(args, &process)
}

/// Returns the environment variables `SERIATIM_...` that no option reads.
fn unknown_variables(given: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = BTreeSet::from([journal::LOG_FILTER.to_owned()]);
    known.extend(environment::client_names().map(str::to_owned));
    let mut commands = vec![cli()];
    while let Some(command) = commands.pop() {
        known.extend(command.get_arguments().filter_map(|a| Some(a.get_env()?.to_string_lossy().into_owned())));
        commands.extend(command.get_subcommands().cloned());
    }
    given.filter(|name| name.starts_with("SERIATIM_") && !known.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        cli().debug_assert();
    }

    #[test]
    fn finds_a_misspelt_variable() {
        let given = [
            "SERIATIM_DATA_DIRS",
            "SERIATIM_CLIENT_ADDR",
            "SERIATIM_DATA_DIR",
            "SERIATIM_LOG_FILTER",
            "SERIATIM_ADDR",
            "PATH",
            "SERIATIM",
        ];
        assert_eq!(unknown_variables(given.into_iter().map(str::to_owned)), ["SERIATIM_DATA_DIRS"]);
    }

    /// Once `produce --help` showed only its first line, because an empty doc comment hid that of the arguments.
    #[test]
    fn every_subcommand_has_a_line_a_paragraph_and_examples() {
        let mut commands: Vec<Command> = cli().get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            let name = command.get_name().to_owned();
            let about = command.get_about().expect("a line").to_string();
            assert!(about.starts_with(|c: char| c.is_uppercase()) && !about.ends_with('.'), "{name}: {about}");
            if command.has_subcommands() {
                commands.extend(command.get_subcommands().cloned());
                continue;
            }
            let long_about = command.get_long_about().expect("a paragraph").to_string();
            assert!(long_about.len() > about.len() + 80, "{name}: {long_about}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name}: {}", argument.get_id());
            }
            let help = command.clone().term_width(0).render_long_help().to_string();
            assert!(help.contains("\nExamples:\n  seriatim "), "{name}: {help}");
            assert!(help.contains("\nExit codes:\n"), "{name}: {help}");
        }
    }

    /// Without this, the example as it was printed failed with "no certificate to connect with".
    #[test]
    fn examples_of_commands_that_connect_name_the_certificates() {
        let mut commands: Vec<Command> = cli().get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            if !command.get_arguments().any(|argument| argument.get_id() == "certs" && argument.get_env().is_some()) {
                continue;
            }
            let help = command.clone().term_width(0).render_long_help().to_string();
            for line in help.lines().filter(|line| line.starts_with("  seriatim ")) {
                assert!(line.contains("--certs ") || line.contains("--insecure"), "{line}");
            }
        }
    }

    #[test]
    fn examples_are_accepted() {
        let mut commands: Vec<Command> = cli().get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let help = command.clone().term_width(0).render_long_help().to_string();
            for line in help.lines().filter_map(|line| line.strip_prefix("  seriatim ")) {
                let line = line.split(['<', '>', '|']).next().unwrap_or_default().replace('\'', "");
                let words = std::iter::once("seriatim").chain(line.split_whitespace());
                cli().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
}
