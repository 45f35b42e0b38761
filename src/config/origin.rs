//! Where the value of an option was given.

use std::collections::BTreeMap;
use std::fmt;

/// Where the value of an option was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This flag, without its dashes.
    Flag(String),
    /// This environment variable.
    Environment(String),
    /// A key in the TOML file.
    File {
        /// The path of the file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// The key, with its table if the file has tables.
        key: String,
    },
    /// The option is not set.
    Default,
}

impl Origin {
    /// The kind in one word, for scripts.
    pub fn kind(&self) -> &'static str {
        match self {
            Origin::Flag(_) => "flag",
            Origin::Environment(_) => "environment",
            Origin::File { .. } => "file",
            Origin::Default => "default",
        }
    }
}

/// As the start of an error message.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "--{flag}"),
            Origin::Environment(name) => f.write_str(name),
            Origin::File { file, line, key } => write!(f, "{file}:{line}: {key}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// The origins of the options that are set, by name.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    of: BTreeMap<&'static str, Origin>,
    /// Options that are given twice in the same way, so that none of the two takes precedence.
    pub(super) twice: Vec<String>,
}

impl Origins {
    /// Returns the origin of an option that is set. One that was set by code counts as a flag.
    pub(super) fn get(&self, name: &str) -> Option<&Origin> {
        self.of.get(name)
    }

    pub(super) fn set(&mut self, name: &'static str, origin: Origin) {
        self.of.insert(name, origin);
    }
}
