//! `seriatim man`: writes the manual pages, generated from the definition of the command line. Packages contain them
//! (`dist/package.sh`), so that they fit the program.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use clap::Command;
use clap_mangen::Man;

use super::exit::Failure;
use super::output;
use super::subcommand::{Process, Subcommand};

/// Write the manual pages of all commands
///
/// Each command has a page in section 1, for example seriatim-log-create.1. The directory is created if it is missing,
/// and existing pages are replaced. The packages contain these pages.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory for the pages
    dir: PathBuf,
}

impl Subcommand for Args {
    const NAME: &'static str = "man";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim man /usr/local/share/man/man1", "seriatim man ~/.local/share/man/man1"];

    fn run(&self, process: &Process) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::of_file(&self.dir, &error);
        DirBuilder::new().recursive(true).mode(0o755).create(&self.dir).map_err(failed)?;
        let mut names = String::new();
        for (name, page) in pages((process.cli)()).map_err(failed)? {
            let file = self.dir.join(&name);
            fs::write(&file, page).map_err(|error| Failure::of_file(&file, &error))?;
            names += &format!("{}\n", file.display());
        }
        output::say(&names)
    }
}

/// Returns the file name and the text of the page of each command that the help shows.
fn pages(cli: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut cli = cli.disable_help_subcommand(true);
    cli.build();
    let mut pages = Vec::new();
    let mut commands = vec![cli];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        pages.push(page(command)?);
    }
    pages.sort();
    Ok(pages)
}

fn page(command: Command) -> io::Result<(String, Vec<u8>)> {
    let end = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let has_subcommands = command.get_subcommands().any(|command| !command.is_hide_set());
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command);
    // Without a date, which would be that of the build; `render_title` leaves out an empty one.
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(".TH \"{name}\" 1 \"\" \"seriatim {version}\" \"Seriatim\"\n").into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_subcommands {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(as_sections(&end).into_bytes());
    Ok((man.get_filename(), text))
}

/// Formats the end of the help as sections, with its line breaks. It consists of headings with a colon and indented
/// lines.
fn as_sections(end: &str) -> String {
    let mut text = String::new();
    for line in end.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            Some(heading) => text += &format!(".fi\n.SH \"{}\"\n.nf\n", heading.to_uppercase()),
            // A line that begins with a point would be a request to the formatter.
            None => text += &format!("\\&{}\n", line.replace('\\', "\\e").replace('-', "\\-")),
        }
    }
    text + ".fi\n"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::command::cli;

    fn written_to(dir: &Path) -> Result<(), Failure> {
        Args { dir: dir.to_owned() }.run(&Process { unknown_variables: Vec::new(), cli })
    }

    /// Returns the name of the page of each command that the help shows: `seriatim-log-create.1`.
    fn expected(command: &Command, prefix: &str) -> Vec<String> {
        let name = format!("{prefix}{}", command.get_name());
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        let mut names: Vec<String> = shown.flat_map(|command| expected(command, &format!("{name}-"))).collect();
        names.push(format!("{name}.1"));
        names
    }

    #[test]
    fn every_shown_command_has_a_page_with_its_examples_and_exit_codes() {
        let dir = tempfile::tempdir().expect("a directory");
        written_to(&dir.path().join("a/man1")).expect("written");
        let entries = fs::read_dir(dir.path().join("a/man1")).expect("listed");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        let mut expected = expected(&cli(), "");
        names.sort();
        expected.sort();
        assert_eq!(names, expected);
        assert!(!names.contains(&"seriatim-man.1".to_owned()), "it is hidden");
        let page = fs::read_to_string(dir.path().join("a/man1/seriatim-log-create.1")).expect("a page");
        assert!(page.starts_with(".TH \"seriatim-log-create\" 1 \"\" \"seriatim "), "{page}");
        for part in [".SH NAME\n", ".SH SYNOPSIS\n", ".SH OPTIONS\n", ".SH \"EXAMPLES\"\n", ".SH \"EXIT CODES\"\n"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(page.contains("\\&  seriatim log create "), "{page}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let failure = written_to(Path::new("/proc/none/man1")).expect_err("no directory can be made there");
        assert!(failure.message.starts_with("/proc/none/man1: "), "{failure}");
    }
}
