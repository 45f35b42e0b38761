//! Collects the errors of a configuration.

use std::collections::BTreeSet;

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub list: Vec<String>,
    /// The flags of options whose value is not known, because it is invalid or could not be read. That such an option
    /// is missing is not an error of its own.
    unknown: BTreeSet<String>,
    /// No option of the configuration file is known.
    file_is_unknown: bool,
}

impl Problems {
    /// Adds an error.
    pub fn push(&mut self, problem: String) {
        self.list.push(problem);
    }

    /// Marks an option whose value is not known.
    pub fn set_unknown(&mut self, flag: &str) {
        self.unknown.insert(flag.to_owned());
    }

    /// Marks all options, because the configuration file could not be read.
    pub fn set_all_unknown(&mut self) {
        self.file_is_unknown = true;
    }

    /// Returns whether the value of an option is not known.
    pub fn is_unknown(&self, flag: &str) -> bool {
        self.file_is_unknown || self.unknown.contains(flag)
    }
}
