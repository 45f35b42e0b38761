//! `seriatim version`: the version of the program, and what it supports.

use serde_json::json;

use super::exit::Failure;
use super::output::OutputArgs;
use super::subcommand::{Process, Subcommand};
use crate::feature_level::FeatureRange;

/// Print the version of the program, and the feature levels that it supports
///
/// A node takes part in a cluster if it supports the feature level of the cluster, which `seriatim cluster upgrade`
/// raises. `seriatim status` prints the version of each node.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "version";
    const EXAMPLES: &'static [&'static str] = &["seriatim version", "seriatim version -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let (version, range) = (env!("CARGO_PKG_VERSION"), FeatureRange::SUPPORTED);
        self.output.say(
            || format!("seriatim {version}, supports {range}\n"),
            || json!({ "version": version, "feature_level_min": range.min().0, "feature_level_max": range.max().0 }),
        )
    }
}
