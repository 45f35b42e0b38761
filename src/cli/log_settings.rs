//! The options for the settings of a log.

use std::time::Duration;

use super::units;
use crate::pb::v1::LogConfig;

/// The options that set settings. Those that are not given are absent in the request.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SettingsArgs {
    /// Remove the oldest records while at least this many bytes remain (500MiB, 10GiB); `none` keeps all
    #[arg(long, value_name = "BYTES", value_parser = retention_bytes)]
    retention_bytes: Option<u64>,
    /// Remove records older than this (90s, 12h, 30d); `none` keeps all
    #[arg(long, value_name = "AGE", value_parser = retention_age)]
    retention_age: Option<u64>,
    /// Largest record, in bytes of value, key and headers (1KiB to 4032KiB)
    #[arg(long, alias = "record-bytes-max", value_name = "BYTES", value_parser = small_bytes)]
    max_record_bytes: Option<u32>,
    /// Largest request: the bytes of all its records (max-record-bytes to 8128KiB)
    #[arg(long, alias = "request-bytes-max", value_name = "BYTES", value_parser = small_bytes)]
    max_request_bytes: Option<u32>,
    /// Number of nodes that have a replica (1 to 7)
    #[arg(long, value_name = "NUMBER", value_parser = replicas)]
    replicas: Option<u32>,
    /// Set a label of your own; can be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// A setting of a log, with its name on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name of the option.
    pub name: &'static str,
    /// The field of `LogConfig`.
    pub field: &'static str,
    is_given: fn(&SettingsArgs) -> bool,
    set: fn(&mut LogConfig, &str) -> Result<(), String>,
}

/// The settings that a cluster has defaults for.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "retention-bytes",
        field: "min_retained_bytes",
        is_given: |args| args.retention_bytes.is_some(),
        set: |config, text| {
            config.min_retained_bytes = Some(retention_bytes(text)?);
            Ok(())
        },
    },
    Setting {
        name: "retention-age",
        field: "retention_age",
        is_given: |args| args.retention_age.is_some(),
        set: |config, text| {
            config.retention_age = Some(Duration::from_millis(retention_age(text)?).into()).into();
            Ok(())
        },
    },
    Setting {
        name: "max-record-bytes",
        field: "max_record_bytes",
        is_given: |args| args.max_record_bytes.is_some(),
        set: |config, text| {
            config.max_record_bytes = Some(small_bytes(text)?);
            Ok(())
        },
    },
    Setting {
        name: "max-request-bytes",
        field: "max_request_bytes",
        is_given: |args| args.max_request_bytes.is_some(),
        set: |config, text| {
            config.max_request_bytes = Some(small_bytes(text)?);
            Ok(())
        },
    },
    Setting {
        name: "replicas",
        field: "replicas",
        is_given: |args| args.replicas.is_some(),
        set: |config, text| {
            config.replicas = Some(replicas(text)?);
            Ok(())
        },
    },
];

impl Setting {
    /// Finds a setting by its name on the command line.
    ///
    /// # Errors
    /// The names of all settings.
    pub fn named(name: &str) -> Result<Setting, String> {
        SETTINGS.iter().find(|setting| setting.name == name).copied().ok_or_else(|| {
            let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
            format!("{name:?} is not a setting: expected {}", names.join(", "))
        })
    }

    /// Sets the value in a message.
    ///
    /// # Errors
    /// The expected form.
    pub fn set(self, config: &mut LogConfig, text: &str) -> Result<(), String> {
        (self.set)(config, text)
    }
}

impl SettingsArgs {
    /// Returns the settings that are given.
    pub fn config(&self) -> LogConfig {
        LogConfig {
            retention_age: self.retention_age.map(|ms| Duration::from_millis(ms).into()).into(),
            min_retained_bytes: self.retention_bytes,
            max_record_bytes: self.max_record_bytes,
            max_request_bytes: self.max_request_bytes,
            replicas: self.replicas,
            labels: self.labels.iter().cloned().collect(),
            ..LogConfig::default()
        }
    }

    /// Returns the paths of the settings that are given. Each label has its own, so that the other labels stay.
    pub fn paths(&self) -> Vec<String> {
        let given = SETTINGS.iter().filter(|setting| (setting.is_given)(self));
        let labels = self.labels.iter().map(|(name, _)| format!("labels.{name}"));
        given.map(|setting| setting.field.to_owned()).chain(labels).collect()
    }
}

fn retention_bytes(text: &str) -> Result<u64, String> {
    units::or_none(text, units::bytes)
}

fn retention_age(text: &str) -> Result<u64, String> {
    units::or_none(text, units::milliseconds)
}

fn small_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(units::bytes(text)?).map_err(|_| "must be less than 4GiB".to_owned())
}

fn replicas(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| (1..=7).contains(count)).ok_or_else(|| "expected a number from 1 to 7".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() { Err("expected NAME=VALUE".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn parsed(words: &[&str]) -> Result<SettingsArgs, clap::Error> {
        let command = SettingsArgs::augment_args(Command::new("x"));
        SettingsArgs::from_arg_matches(&command.try_get_matches_from([&["x"], words].concat())?)
    }

    #[test]
    fn only_settings_that_are_given_are_sent() {
        let none = parsed(&[]).expect("valid");
        assert_eq!((none.config(), none.paths()), (LogConfig::default(), Vec::new()));
        let words = ["--retention-age", "none", "--replicas", "3", "--label", "team=a=b", "--label", "tier="];
        let some = parsed(&words).expect("valid");
        let config = some.config();
        assert_eq!((config.replicas, units::ms_of_duration(&config.retention_age)), (Some(3), 0));
        assert!(config.retention_age.is_some() && config.max_record_bytes.is_none());
        assert_eq!((config.labels["team"].as_str(), config.labels["tier"].as_str()), ("a=b", ""));
        assert_eq!(some.paths(), ["retention_age", "replicas", "labels.team", "labels.tier"]);
    }

    #[test]
    fn malformed_settings_are_wrong_usage() {
        for bad in
            [["--replicas", "0"], ["--replicas", "8"], ["--label", "a"], ["--label", "=a"], ["--retention-age", "0d"]]
        {
            assert!(parsed(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_setting_has_a_name_and_a_value() {
        let mut config = LogConfig::default();
        for (name, value) in [
            ("retention-bytes", "1GiB"),
            ("retention-age", "30d"),
            ("max-record-bytes", "2KiB"),
            ("max-request-bytes", "4KiB"),
            ("replicas", "5"),
        ] {
            let setting = Setting::named(name).expect("a setting");
            assert_eq!(setting.set(&mut config, value), Ok(()));
            assert!(setting.set(&mut config, "x").is_err(), "{name}");
        }
        assert_eq!((config.min_retained_bytes, config.replicas), (Some(1 << 30), Some(5)));
        assert!(Setting::named("labels").is_err());
    }
}
