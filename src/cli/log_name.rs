//! The name of the log on the command line: `--log`, an argument, `SERIATIM_LOG_NAME`, or the key `log` of the profile.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, FromArgMatches};

use super::dialer::Dialer;
use super::environment::{self, FORMER_LOG_NAME, LOG_NAME};
use super::exit::{Exit, Failure};
use super::units;
use crate::types::LogName;

const OPTION: &str = "log";
const OPERAND: &str = "log_operand";

/// The option `--log`.
#[derive(Clone, Debug, Default)]
pub struct LogArg(Option<String>);

/// The option `--log`, which may also be given as an argument.
#[derive(Clone, Debug, Default)]
pub struct LogOperand(LogArg);

impl LogArg {
    /// Returns the name of the log: as given, else that of the profile, else `default`.
    ///
    /// # Errors
    /// If only the former variable is set. Its value is not used: it may be meant as a log level. It is not ignored
    /// either, because records would then be appended to another log than before.
    pub fn name(&self, dialer: &Dialer) -> Result<String, Failure> {
        if let Some(name) = &self.0 {
            return Ok(name.clone());
        }
        if let Some(former) = environment::value(FORMER_LOG_NAME) {
            return Err(Failure::new(
                Exit::BadConfig,
                format!("{FORMER_LOG_NAME} is set ({}), and no longer names the log", former.display()),
                format!("set {LOG_NAME} instead, or give --log; or unset {FORMER_LOG_NAME}"),
            ));
        }
        Ok(dialer.log.clone().unwrap_or_else(|| LogName::DEFAULT.to_owned()))
    }
}

impl LogOperand {
    /// As [`LogArg::name`].
    ///
    /// # Errors
    /// As [`LogArg::name`].
    pub fn name(&self, dialer: &Dialer) -> Result<String, Failure> {
        self.0.name(dialer)
    }
}

fn option() -> Arg {
    Arg::new(OPTION)
        .long(OPTION)
        .env(LOG_NAME)
        .value_name("NAME")
        .value_parser(units::log_name)
        .help("Name of the log [default: that of the profile, or `default`]")
}

impl clap::Args for LogArg {
    fn augment_args(command: Command) -> Command {
        command.arg(option())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LogArg {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(LogArg(matches.get_one::<String>(OPTION).cloned()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for LogOperand {
    fn augment_args(command: Command) -> Command {
        let operand =
            Arg::new(OPERAND).value_name("LOG").value_parser(units::log_name).help("Name of the log, as --log");
        command.arg(operand).arg(option())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LogOperand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let option = LogArg::from_arg_matches(matches)?;
        let Some(operand) = matches.get_one::<String>(OPERAND) else { return Ok(LogOperand(option)) };
        let by_flag = matches.value_source(OPTION) == Some(ValueSource::CommandLine);
        match option.0 {
            Some(other) if by_flag && other != *operand => {
                let text = format!("two logs are named, {operand} and {other} (--log)\n");
                Err(clap::Error::raw(ErrorKind::ArgumentConflict, text))
            }
            Some(_) | None => Ok(LogOperand(LogArg(Some(operand.clone())))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn a_log_is_named_by_an_option_or_an_argument() {
        let named = |words: &[&str]| {
            let matches = LogOperand::augment_args(Command::new("x")).get_matches_from([&["x"], words].concat());
            LogOperand::from_arg_matches(&matches).map(|log| log.0.0)
        };
        assert_eq!(named(&[]).expect("none"), None);
        for words in [&["a"][..], &["--log", "a"], &["--log", "a", "a"]] {
            assert_eq!(named(words).expect("one").as_deref(), Some("a"), "{words:?}");
        }
        assert_eq!(named(&["--log", "a", "b"]).expect_err("two").kind(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn the_profile_names_the_log_if_nothing_else_does() {
        let dialer = |log: Option<&str>| Dialer {
            addrs: Vec::new(),
            files: None,
            timeout: std::time::Duration::ZERO,
            log: log.map(str::to_owned),
        };
        let given = LogArg(Some("a".to_owned()));
        assert_eq!(given.name(&dialer(Some("b"))), Ok("a".to_owned()));
        assert_eq!(LogArg(None).name(&dialer(Some("b"))), Ok("b".to_owned()));
        assert_eq!(LogArg(None).name(&dialer(None)), Ok("default".to_owned()));
    }
}
