//! Defines a subcommand for the command line: its arguments, its examples and the function that runs it.

use clap::{ArgMatches, Command};

use super::environment::with_former_name;
use super::exit::{self, Failure};

/// Implemented by the arguments of each subcommand. The doc comment of the arguments is the help text: one line in
/// the imperative, then paragraphs.
pub trait Subcommand: clap::Args {
    /// The name on the command line.
    const NAME: &'static str;

    /// Example command lines, for the end of the help text.
    const EXAMPLES: &'static [&'static str];

    /// Whether the subcommand handles SIGINT and SIGTERM itself. Otherwise `interrupt.rs` handles them.
    const HANDLES_SIGNALS: bool = false;

    /// Runs the subcommand.
    ///
    /// # Errors
    /// The failure, with its exit code and the next step.
    fn run(&self, process: &Process) -> Result<(), Failure>;
}

/// Information about the process, for subcommands.
#[derive(Clone, Debug)]
pub struct Process {
    /// Environment variables `SERIATIM_...` that no option reads, probably because they are misspelt.
    pub unknown_variables: Vec<String>,
    /// Returns the definition of the whole command line.
    pub cli: fn() -> Command,
}

type Run = fn(&ArgMatches, &Process) -> Result<(), Failure>;

/// An entry in the table of subcommands.
pub struct Entry {
    /// The name on the command line.
    pub name: &'static str,
    /// Former names, which still work and are not shown.
    aliases: &'static [&'static str],
    /// Whether the help leaves it out.
    hidden: bool,
    kind: EntryShape,
}

enum EntryShape {
    Leaf { define: fn(Command) -> Command, run: Run, examples: &'static [&'static str], handles_signals: bool },
    Group { about: &'static str, entries: &'static [Entry] },
}

impl Entry {
    /// Returns the entry of a subcommand.
    pub const fn of<S: Subcommand>() -> Entry {
        let kind = EntryShape::Leaf {
            define: S::augment_args,
            run: |matches, process| match S::from_arg_matches(matches) {
                Ok(args) => args.run(process),
                Err(error) => error.exit(),
            },
            examples: S::EXAMPLES,
            handles_signals: S::HANDLES_SIGNALS,
        };
        Entry { name: S::NAME, aliases: &[], hidden: false, kind }
    }

    /// Returns the entry of a subcommand that consists of other subcommands.
    pub const fn group(name: &'static str, about: &'static str, entries: &'static [Entry]) -> Entry {
        Entry { name, aliases: &[], hidden: false, kind: EntryShape::Group { about, entries } }
    }

    /// Adds former names, which still work and are not shown.
    pub const fn formerly(self, aliases: &'static [&'static str]) -> Entry {
        Entry { aliases, ..self }
    }

    /// Leaves the entry out of the help, because it has another place now.
    pub const fn hidden(self) -> Entry {
        Entry { hidden: true, ..self }
    }

    /// Returns the definition for the parser.
    pub fn command(&self) -> Command {
        let command = Command::new(self.name).aliases(self.aliases).hide(self.hidden);
        match &self.kind {
            // `serve` handles signals itself. Its options are not those of a client.
            EntryShape::Leaf { define, examples, handles_signals, .. } => {
                let command = define(command).after_help(after_help(examples));
                if *handles_signals { command } else { command.mut_args(with_former_name) }
            }
            EntryShape::Group { about, entries } => command
                .about(*about)
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommands(entries.iter().map(Entry::command))
                .after_help(after_help(&[])),
        }
    }

    /// Returns the subcommand that was chosen on the command line, and its arguments.
    pub fn choose<'a>(entries: &'a [Entry], matches: &'a ArgMatches) -> Option<(Chosen, &'a ArgMatches)> {
        let (name, matches) = matches.subcommand()?;
        match &entries.iter().find(|entry| entry.name == name)?.kind {
            EntryShape::Leaf { run, handles_signals, .. } => {
                Some((Chosen { run: *run, handles_signals: *handles_signals }, matches))
            }
            EntryShape::Group { entries, .. } => Entry::choose(entries, matches),
        }
    }
}

/// A subcommand that was chosen on the command line.
pub struct Chosen {
    /// The function that runs the subcommand.
    pub run: Run,
    /// See [`Subcommand::HANDLES_SIGNALS`].
    pub handles_signals: bool,
}

fn after_help(examples: &[&str]) -> String {
    let mut text = String::new();
    if !examples.is_empty() {
        text += "Examples:\n";
        examples.iter().for_each(|example| text += &format!("  {example}\n"));
        text += "\n";
    }
    text + exit::table().as_str()
}
