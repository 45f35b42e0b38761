//! What the command line knows about a subcommand: its arguments, its examples and the function that runs it.

use clap::{ArgMatches, Command};

use super::exit::{self, Failure};

/// Implemented by the arguments of each subcommand. Their doc comment is the help text: one imperative line, then a paragraph.
pub trait Subcommand: clap::Args {
    /// The name on the command line.
    const NAME: &'static str;

    /// Command lines to copy, one per line, for the end of the help text.
    const EXAMPLES: &'static [&'static str];

    /// Whether the subcommand handles SIGINT and SIGTERM by itself. For the others see `interrupt.rs`.
    const HANDLES_SIGNALS: bool = false;

    /// Runs the subcommand.
    ///
    /// # Errors
    /// The reason, with an exit code and the next step.
    fn run(&self, process: &Process) -> Result<(), Failure>;
}

/// What a subcommand can know about its process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Environment variables `SERIATIM_...` that no option reads: most likely misspelt.
    pub unknown_variables: Vec<String>,
}

type Run = fn(&ArgMatches, &Process) -> Result<(), Failure>;

/// An entry in the table of subcommands.
pub struct Entry {
    /// The name on the command line.
    pub name: &'static str,
    kind: EntryShape,
}

enum EntryShape {
    Leaf { define: fn(Command) -> Command, run: Run, examples: &'static [&'static str], handles_signals: bool },
    Group { about: &'static str, entries: &'static [Entry] },
}

impl Entry {
    /// The entry of a subcommand.
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
        Entry { name: S::NAME, kind }
    }

    /// A subcommand that consists of others.
    pub const fn group(name: &'static str, about: &'static str, entries: &'static [Entry]) -> Entry {
        Entry { name, kind: EntryShape::Group { about, entries } }
    }

    /// The definition for the parser.
    pub fn command(&self) -> Command {
        let command = Command::new(self.name);
        match &self.kind {
            EntryShape::Leaf { define, examples, .. } => define(command).after_help(after_help(examples)),
            EntryShape::Group { about, entries } => command
                .about(*about)
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommands(entries.iter().map(Entry::command))
                .after_help(after_help(&[])),
        }
    }

    /// The chosen subcommand, and its arguments.
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
    /// Runs it.
    pub run: Run,
    /// As [`Subcommand::HANDLES_SIGNALS`].
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
