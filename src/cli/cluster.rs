//! `seriatim cluster upgrade`: raises the feature level of the cluster.

use super::connect::ConnectArgs;
use super::exit::Failure;
use super::output;
use super::subcommand::{Process, Subcommand};

/// Raise the cluster's feature level, after all nodes run a newer version
///
/// It requires the action `admin` on every log. Formats and commands of a newer version are used only from its
/// feature level on. Until then every node can be moved back to the version before. Afterwards it cannot: older
/// versions are rejected. The level is raised only if every member runs and supports it; `seriatim status --json`
/// shows the level and the range of each node.
#[derive(Clone, Debug, clap::Args)]
pub struct UpgradeArgs {
    /// Feature level to raise to; by default the highest that the answering node supports
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
    level: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for UpgradeArgs {
    const NAME: &'static str = "upgrade";
    const EXAMPLES: &'static [&'static str] = &["seriatim cluster upgrade", "seriatim cluster upgrade --level 2"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        // `ask` may send the request to several nodes, which is safe because it is idempotent.
        let (_, response) = self.connect.ask(|client| client.upgrade_cluster(self.level.unwrap_or(0)))?;
        let (level, previous) = (response.level, response.previous);
        output::say(&match self.level {
            _ if level > previous => format!("feature level {level}, before: {previous}\n"),
            None => format!("the cluster is already at feature level {level}, the highest that the node supports\n"),
            Some(_) => format!("the cluster is already at feature level {level}\n"),
        })
    }
}
