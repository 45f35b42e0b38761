//! Collects the errors of a configuration.

use std::collections::{BTreeMap, BTreeSet};

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub list: Vec<String>,
    /// The names of options whose value is not known, because it is invalid or could not be read. That such an option
    /// is missing is not an error of its own.
    unknown: BTreeSet<String>,
    /// No option of the configuration file is known.
    file_is_unknown: bool,
    /// What an error calls each option: where its value was given.
    labels: BTreeMap<&'static str, String>,
}

impl Problems {
    /// Adds an error.
    pub fn push(&mut self, problem: String) {
        self.list.push(problem);
    }

    /// Adds an error of one option.
    pub fn push_for(&mut self, name: &'static str, problem: &str) {
        self.list.push(format!("{}: {problem}", self.label(name)));
    }

    /// Sets what errors call the options.
    pub fn set_labels(&mut self, labels: BTreeMap<&'static str, String>) {
        self.labels = labels;
    }

    /// Returns what errors call an option.
    pub fn label(&self, name: &'static str) -> String {
        self.labels.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// Marks an option whose value is not known.
    pub fn set_unknown(&mut self, name: &str) {
        self.unknown.insert(name.to_owned());
    }

    /// Marks all options, because the configuration file could not be read.
    pub fn set_all_unknown(&mut self) {
        self.file_is_unknown = true;
    }

    /// Returns whether the value of an option is not known.
    pub fn is_unknown(&self, name: &str) -> bool {
        self.file_is_unknown || self.unknown.contains(name)
    }
}
