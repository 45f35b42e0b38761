//! Parses the text of an option into its type in the table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::address::host_port;
use super::definition::{Default, Form, OptionDef};
use super::names::{check_cluster_name, host_name, is_host_name};
use super::problems::Problems;
use super::units;
use crate::types::NodeName;

/// Implemented by the types of option values.
pub(super) trait Value: Sized {
    /// Parses the text of a user, or a default.
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String>;

    /// Returns the value of an option that is not set and has no fixed default.
    fn missing(option: &OptionDef) -> Result<Self, String> {
        match option.spec.default {
            Default::Required(reason) => Err(format!("is missing; {reason}")),
            Default::Value(_) | Default::Derived(_) | Default::None => Err("is missing".to_owned()),
        }
    }

    /// Formats the value as a user would write it; `None` if there is none.
    fn show(&self, option: &OptionDef) -> Option<String>;

    /// Returns a substitute for an invalid value, so that the other options can still be checked.
    fn placeholder() -> Self;
}

/// Returns the value of an option. If it is invalid or missing, adds a problem.
pub(super) fn read<T: Value>(option: Option<&OptionDef>, given: Option<&str>, problems: &mut Problems) -> T {
    let Some(option) = option else { return T::placeholder() };
    let value = match (given, option.spec.default) {
        (Some(text), _) | (None, Default::Value(text)) => T::parse(option, text),
        (None, Default::Derived(_) | Default::None | Default::Required(_)) => T::missing(option),
    };
    value.unwrap_or_else(|problem| {
        if given.is_some() || !problems.is_unknown(option.name) {
            problems.push_for(option.name, &problem);
        }
        problems.set_unknown(option.name);
        T::placeholder()
    })
}

/// The value of an option that can be missing.
impl<T: Value> Value for Option<T> {
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String> {
        T::parse(option, text).map(Some)
    }

    fn missing(_: &OptionDef) -> Result<Self, String> {
        Ok(None)
    }

    fn show(&self, option: &OptionDef) -> Option<String> {
        self.as_ref().and_then(|value| value.show(option))
    }

    fn placeholder() -> Self {
        None
    }
}

impl Value for bool {
    fn parse(_: &OptionDef, text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not true or false"))
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(self.to_string())
    }

    fn placeholder() -> Self {
        false
    }
}

impl Value for u64 {
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String> {
        option.number(text)
    }

    fn show(&self, option: &OptionDef) -> Option<String> {
        match option.spec.form {
            Form::Number { unit, .. } => Some(unit.show(*self)),
            _ => Some(self.to_string()),
        }
    }

    fn placeholder() -> Self {
        0
    }
}

impl Value for Duration {
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String> {
        option.duration(text)
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(units::show_duration(*self))
    }

    fn placeholder() -> Self {
        Duration::from_secs(1)
    }
}

impl Value for LevelFilter {
    fn parse(_: &OptionDef, text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not error, warn, info, debug or trace"))
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(self.as_str().to_lowercase())
    }

    fn placeholder() -> Self {
        LevelFilter::Info
    }
}

impl Value for PathBuf {
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String> {
        if option.spec.form == Form::Directory && text.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(PathBuf::from(text))
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(self.display().to_string())
    }

    fn placeholder() -> Self {
        PathBuf::new()
    }
}

impl Value for SocketAddr {
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!(
                "{text:?} is not an IP address and a port, like 192.0.2.1:8401; to be reached by a host name, set \
                 --advertise-{} ({}.advertise in the file) too",
                option.flag,
                option.table()
            )
        })
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(self.to_string())
    }

    /// Has port 0, so that it does not conflict with another address.
    fn placeholder() -> Self {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
    }
}

/// The address of the listener for monitoring; `None` if it is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddr(pub Option<SocketAddr>);

impl Value for HttpAddr {
    fn parse(_: &OptionDef, text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an IP address and a port, like 127.0.0.1:8402, nor \"off\"");
        if text == "off" {
            Ok(HttpAddr(None))
        } else {
            text.parse().map(|addr| HttpAddr(Some(addr))).map_err(|_| wrong())
        }
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(self.0.map_or_else(|| "off".to_owned(), |addr| addr.to_string()))
    }

    fn placeholder() -> Self {
        HttpAddr(None)
    }
}

impl Value for NodeName {
    fn parse(_: &OptionDef, text: &str) -> Result<Self, String> {
        NodeName::new(text).map_err(|e| e.to_string())
    }

    fn missing(_: &OptionDef) -> Result<Self, String> {
        NodeName::new(&host_name()).map_err(|e| format!("the name of this host can't be used: {e}"))
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(self.to_string())
    }

    fn placeholder() -> Self {
        NodeName::placeholder()
    }
}

/// The name of a cluster, or an advertised address, which is checked in `config.rs`, where the listener's port is
/// known.
impl Value for String {
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String> {
        match option.spec.form {
            Form::ClusterName => check_cluster_name(text)?,
            Form::HostName if !is_host_name(text) => return Err(format!("{text:?} is not a host name without a port")),
            _ => {}
        }
        Ok(text.to_owned())
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        Some(self.clone())
    }

    fn placeholder() -> Self {
        String::new()
    }
}

/// Addresses separated by commas. Empty ones are skipped.
impl Value for Vec<String> {
    fn parse(option: &OptionDef, text: &str) -> Result<Self, String> {
        let Form::DialAddrs { port } = option.spec.form else { return Err("expects one value".to_owned()) };
        let addrs = text.split(',').map(str::trim).filter(|addr| !addr.is_empty());
        addrs.map(|addr| host_port(addr, port)).collect()
    }

    fn missing(_: &OptionDef) -> Result<Self, String> {
        Ok(Vec::new())
    }

    fn show(&self, _: &OptionDef) -> Option<String> {
        (!self.is_empty()).then(|| self.join(","))
    }

    fn placeholder() -> Self {
        Vec::new()
    }
}
