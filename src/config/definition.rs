//! The types that define an option: the form of its value, its default and its help text. The table of all options is
//! in `options.rs`.
//!
//! The flag and the environment variable are derived from the name: `bind_addr`, `--bind-addr`, `SERIATIM_BIND_ADDR`.
//! In a TOML file, an option is a key of a table, for example `addr` in `[listen.peer]`.

use std::time::Duration;

use super::units::{self, Unit};

/// The tables of the TOML file in its order, with their titles in `--help`.
pub(super) const TABLES: [(&str, &str); 13] = [
    ("node", "Node"),
    ("cluster", "Cluster"),
    ("listen", "The listeners for clients and peers"),
    ("listen.client", "Listener for clients"),
    ("listen.peer", "Listener for peers"),
    ("listen.http", "Listener for monitoring"),
    ("access", "Access policy"),
    ("storage", "Storage"),
    ("scrub", "Verification of stored files"),
    ("replication", "Replication"),
    ("disk", "Disk space"),
    ("limits", "Limits"),
    ("logging", "Logging"),
];

/// The form of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`; a flag without a value is `true`.
    Switch,
    /// An IP address of this host, and a port.
    ListenAddr,
    /// An IP address of this host and a port, or `off`.
    ListenAddrOrOff,
    /// The name of a host, without a port.
    HostName,
    /// A host and a port to dial. If the port is missing, it is that of the listener.
    DialAddr,
    /// Several addresses to dial, separated by commas or in a TOML array.
    DialAddrs {
        /// The port of addresses without one.
        port: u16,
    },
    /// The name of a node.
    NodeName,
    /// The name of a cluster.
    ClusterName,
    /// A directory, which is created if it does not exist.
    Directory,
    /// A file; the text is its placeholder in `--help`.
    File(&'static str),
    /// The least severe level that is logged.
    LogLevel,
    /// A whole number from `min` to `max`, inclusive.
    Number {
        /// What it counts.
        unit: Unit,
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// A time span from `min` to `max`, inclusive.
    Duration {
        /// The shortest one.
        min: Duration,
        /// The longest one.
        max: Duration,
    },
}

impl Form {
    /// The placeholder in `--help`.
    pub(super) fn value_name(self) -> &'static str {
        match self {
            Form::Switch => "BOOL",
            Form::ListenAddr => "IP:PORT",
            Form::ListenAddrOrOff => "IP:PORT|off",
            Form::HostName => "HOST",
            Form::DialAddr | Form::DialAddrs { .. } => "HOST:PORT",
            Form::NodeName | Form::ClusterName => "NAME",
            Form::Directory => "DIR",
            Form::File(content) => content,
            Form::LogLevel => "LEVEL",
            Form::Number { unit, .. } => unit.value_name(),
            Form::Duration { .. } => "DURATION",
        }
    }

    /// The accepted values, if the placeholder does not show them.
    pub(super) fn range(self) -> Option<String> {
        match self {
            Form::Number { unit, min, max } => Some(format!("{} to {}", unit.show(min), unit.show(max))),
            Form::Duration { min, max } => {
                Some(format!("{} to {}", units::show_duration(min), units::show_duration(max)))
            }
            Form::LogLevel => Some("error, warn, info, debug, trace".to_owned()),
            Form::Switch
            | Form::ListenAddr
            | Form::ListenAddrOrOff
            | Form::HostName
            | Form::DialAddr
            | Form::DialAddrs { .. }
            | Form::NodeName
            | Form::ClusterName
            | Form::Directory
            | Form::File(_) => None,
        }
    }
}

/// The value of an option that is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    /// This value, as a user would write it.
    Value(&'static str),
    /// A value that depends on something else, which the text describes.
    Derived(&'static str),
    /// No value: the option is optional.
    None,
    /// No value: the node does not start without the option. The text is the reason.
    Required(&'static str),
}

/// Everything about an option except its name and its help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub form: Form,
    pub default: Default,
    /// The value in `dist/seriatim.toml`, if the default can't be shown there.
    pub example: Option<&'static str>,
    /// True if `dist/seriatim.toml` sets the option, false if the line is commented out.
    pub is_set_in_example: bool,
    /// The earlier name of a duration, with which it is a number of seconds.
    pub name_in_seconds: Option<&'static str>,
    /// True if the option has no meaning without TLS.
    pub needs_tls: bool,
    /// True if a reload applies a new value. Any other option needs a restart of the node.
    pub reloads: bool,
}

impl Spec {
    pub const fn new(form: Form) -> Spec {
        Spec {
            form,
            default: Default::None,
            example: None,
            is_set_in_example: false,
            name_in_seconds: None,
            needs_tls: false,
            reloads: false,
        }
    }

    /// Sets a fixed default.
    pub const fn or(self, value: &'static str) -> Spec {
        Spec { default: Default::Value(value), ..self }
    }

    /// Sets a default that depends on something else, which `text` describes. `example` is a possible value.
    pub const fn or_derived(self, text: &'static str, example: &'static str) -> Spec {
        Spec { default: Default::Derived(text), example: Some(example), ..self }
    }

    /// Makes the option optional. `example` is a possible value.
    pub const fn optional(self, example: &'static str) -> Spec {
        Spec { example: Some(example), ..self }
    }

    /// Makes the option mandatory. `example` is a possible value.
    pub const fn required(self, reason: &'static str, example: &'static str) -> Spec {
        Spec { default: Default::Required(reason), example: Some(example), ..self }
    }

    /// Keeps the earlier name of a duration, with which it is a number of seconds: as a hidden flag, as an environment
    /// variable and in files without tables.
    pub const fn was_in_seconds(self, name: &'static str) -> Spec {
        Spec { name_in_seconds: Some(name), ..self }
    }

    /// Refuses the option together with `insecure`.
    pub const fn needs_tls(self) -> Spec {
        Spec { needs_tls: true, ..self }
    }

    /// Makes a reload apply a new value. [`crate::agent::Agent::reload_config`] must do so.
    pub const fn reloadable(self) -> Spec {
        Spec { reloads: true, ..self }
    }

    /// Makes `dist/seriatim.toml` set the option to this value.
    pub const fn set_in_example(self, value: &'static str) -> Spec {
        Spec { example: Some(value), is_set_in_example: true, ..self }
    }
}

pub(super) const fn switch() -> Spec {
    Spec::new(Form::Switch)
}

pub(super) const fn listen_addr() -> Spec {
    Spec::new(Form::ListenAddr)
}

pub(super) const fn dial_addr() -> Spec {
    Spec::new(Form::DialAddr)
}

pub(super) const fn dial_addrs(port: u16) -> Spec {
    Spec::new(Form::DialAddrs { port })
}

pub(super) const fn file(content: &'static str) -> Spec {
    Spec::new(Form::File(content))
}

pub(super) const fn number(unit: Unit, min: u64, max: u64) -> Spec {
    Spec::new(Form::Number { unit, min, max })
}

pub(super) const fn duration(min: Duration, max: Duration) -> Spec {
    Spec::new(Form::Duration { min, max })
}

/// One option of `seriatim serve`.
#[derive(Debug)]
pub struct OptionDef {
    /// The name of which flag and environment variable are derived, for example `bind_addr`.
    pub name: &'static str,
    /// The place in a TOML file, for example `listen.peer.addr`.
    pub path: &'static str,
    /// The flag without its dashes, for example `bind-addr`.
    pub flag: String,
    /// The environment variable, for example `SERIATIM_BIND_ADDR`.
    pub env: String,
    /// The help text, in full sentences.
    pub about: String,
    /// The flag and the environment variable of [`Spec::name_in_seconds`].
    pub(super) in_seconds: Option<(String, String)>,
    pub(super) spec: Spec,
}

impl OptionDef {
    /// Creates an entry. `about` is a doc comment, so each of its lines starts with a space.
    pub(super) fn new(name: &'static str, path: &'static str, about: &str, spec: Spec) -> OptionDef {
        OptionDef {
            name,
            path,
            flag: flag(name),
            env: env(name),
            about: about.trim().to_owned(),
            in_seconds: spec.name_in_seconds.map(|name| (flag(name), env(name))),
            spec,
        }
    }

    /// True if a reload applies a new value. Any other option needs a restart of the node.
    pub fn is_reloadable(&self) -> bool {
        self.spec.reloads
    }

    /// The table in a TOML file, for example `listen.peer`.
    pub fn table(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// The key in its table, for example `addr`.
    pub fn key(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, key)| key)
    }

    /// The earlier name, with which it is a number of seconds; empty if there is none.
    pub(super) fn name_in_seconds(&self) -> &'static str {
        self.spec.name_in_seconds.unwrap_or_default()
    }

    /// The name as flag, with its side if the flag does not say it: `--bind-addr (for peers)`.
    pub(super) fn flag_label(&self) -> String {
        format!("--{}{}", self.flag, self.side())
    }

    /// ` (for peers)` or ` (for clients)`, if the option belongs to one listener and its name does not say to which.
    pub(super) fn side(&self) -> &'static str {
        let side = match self.table() {
            "listen.client" => " (for clients)",
            "listen.peer" => " (for peers)",
            _ => "",
        };
        if self.name.contains("client") || self.name.contains("peer") { "" } else { side }
    }

    /// The default as text for the help; `None` if the option has no default.
    pub(super) fn default_text(&self) -> Option<&'static str> {
        match self.spec.default {
            Default::Value(text) | Default::Derived(text) => Some(text),
            Default::None | Default::Required(_) => None,
        }
    }

    /// Parses a number and checks its bounds.
    pub(super) fn number(&self, text: &str) -> Result<u64, String> {
        let Form::Number { unit, min, max } = self.spec.form else {
            return Err(format!("{text:?} is given, where the code expects no number"));
        };
        match unit.parse(text) {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            Some(_) => Err(format!("{text} is not between {} and {}", unit.show(min), unit.show(max))),
            None => Err(format!("{text:?} is not a {}", unit.describe())),
        }
    }

    /// Parses a duration and checks its bounds.
    pub(super) fn duration(&self, text: &str) -> Result<Duration, String> {
        let Form::Duration { min, max } = self.spec.form else {
            return Err(format!("{text:?} is given, where the code expects no duration"));
        };
        let duration = units::parse_duration(text)?;
        if (min..=max).contains(&duration) {
            return Ok(duration);
        }
        Err(format!("{text} is not between {} and {}", units::show_duration(min), units::show_duration(max)))
    }
}

fn flag(name: &str) -> String {
    name.replace('_', "-")
}

fn env(name: &str) -> String {
    format!("SERIATIM_{}", name.to_uppercase())
}
