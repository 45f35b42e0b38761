//! Counts the reloads of changed files, and shows them as events.

use std::fmt::Display;

use crate::events::{EventKind, Severity};
use crate::metrics::Metrics;

pub(super) struct Reloads<'a>(&'a Metrics);

impl Reloads<'_> {
    pub fn new(metrics: &Metrics) -> Reloads<'_> {
        Reloads(metrics)
    }

    /// Records that a changed file is in use.
    pub fn done(&self, what: &str) {
        self.0.reloads.with(what).inc();
        self.0.registry().events().record(EventKind::Reload, Severity::Info, format!("{what} reloaded"));
    }

    /// Records that a changed file can't be used.
    pub fn failed(&self, what: &str, error: &dyn Display) {
        self.0.reload_failures.with(what).inc();
        let text = format!("{what} not reloaded, the old version stays in use: {error}");
        self.0.registry().events().record(EventKind::Reload, Severity::Error, text);
    }
}
