//! `seriatim`: its subcommands, and how they end.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use super::exit::{self, Exit, Failure};
use super::{certs, consume, descriptors, dump, interrupt, journal, log_admin, output, produce, serve, status, verify};

/// A replicated commit log: append anywhere, read anywhere, nothing acknowledged is lost
#[derive(Debug, Parser)]
#[command(name = "seriatim", version, about, max_term_width = 100, after_help = exit::TABLE)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    ///
    /// Prints one line on stdout when it takes calls: `ready node=NAME bind_addr=HOST:PORT rpc_addr=HOST:PORT`. SIGTERM and
    /// SIGINT stop it cleanly, a second one at once. Certificates and access policy are read again once a minute if they have
    /// changed, and at SIGHUP. An option is given by a flag, else by the environment, else by the TOML file of --config.
    #[command(after_help = exit::TABLE)]
    Serve(Box<serve::Args>),
    // Without words here it has those of its arguments, all of them.
    #[command(after_help = exit::TABLE)]
    Produce(produce::Args),
    #[command(after_help = exit::TABLE)]
    Consume(consume::Args),
    #[command(after_help = exit::TABLE)]
    Status(status::Args),
    /// Look at a log, and change how it is kept
    #[command(subcommand, after_help = exit::TABLE)]
    Log(Log),
    #[command(after_help = exit::TABLE)]
    Certs(certs::Args),
}

#[derive(Debug, Subcommand)]
enum Log {
    // Without words here they have those of their arguments.
    #[command(after_help = exit::TABLE)]
    Info(log_admin::InfoArgs),
    #[command(after_help = exit::TABLE)]
    Configure(log_admin::ConfigureArgs),
    #[command(after_help = exit::TABLE)]
    Trim(log_admin::TrimArgs),
    #[command(after_help = exit::TABLE)]
    Verify(verify::Args),
    #[command(after_help = exit::TABLE)]
    Dump(dump::Args),
}

/// Parses the arguments, runs the command, says on stderr why it failed.
pub fn main() -> ExitCode {
    if let Err(failure) = descriptors::keep_standard_streams() {
        report(&failure);
        return failure.exit.into();
    }
    let command = Cli::parse().command;
    if !matches!(command, Command::Serve(_))
        && let Err(error) = interrupt::listen()
    {
        report(&Failure::new(Exit::Failed, format!("signals can't be handled: {error}"), ""));
        return Exit::Failed.into();
    }
    let result = match command {
        Command::Serve(args) => serve::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Log(Log::Info(args)) => log_admin::info(&args),
        Command::Log(Log::Configure(args)) => log_admin::configure(&args),
        Command::Log(Log::Trim(args)) => log_admin::trim(&args),
        Command::Log(Log::Verify(args)) => verify::run(&args),
        Command::Log(Log::Dump(args)) => dump::run(&args),
        Command::Certs(args) => certs::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            failure.exit.into()
        }
    }
}

/// Those of these variables that are meant for us and are no option's: misspelt, most likely.
pub(super) fn unknown_variables(given: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = BTreeSet::from([super::serve::LOG_FILTER.to_owned()]);
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        known.extend(command.get_arguments().filter_map(|a| Some(a.get_env()?.to_string_lossy().into_owned())));
        commands.extend(command.get_subcommands().cloned());
    }
    given.filter(|name| name.starts_with("SERIATIM_") && !known.contains(name)).collect()
}

fn report(failure: &Failure) {
    output::tell(&journal::failure_text(&format!("seriatim: {failure}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_misspelt_variable_is_found() {
        let given =
            ["SERIATIM_DATA_DIRS", "SERIATIM_DATA_DIR", "SERIATIM_LOG_FILTER", "SERIATIM_ADDR", "PATH", "SERIATIM"];
        assert_eq!(unknown_variables(given.into_iter().map(str::to_owned)), ["SERIATIM_DATA_DIRS"]);
    }

    /// `produce --help` once had its first line alone: the words at the subcommand hid those at its arguments, which say
    /// what a line is.
    #[test]
    fn the_help_says_what_a_line_is_and_what_a_break_does() {
        let help = |name: &str| {
            let mut cli = Cli::command();
            cli.find_subcommand_mut(name).expect("a subcommand").render_long_help().to_string().replace('\n', " ")
        };
        assert!(help("produce").contains("A line is a record"), "{}", help("produce"));
        assert!(help("consume").contains("If the connection breaks"), "{}", help("consume"));
        assert!(help("status").contains("COMMIT is the commit index"), "{}", help("status"));
        assert!(help("certs").contains("issues only what --hosts"), "{}", help("certs"));
    }
}
