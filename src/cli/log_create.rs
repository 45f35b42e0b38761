//! `seriatim log create`.

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::log_settings::SettingsArgs;
use super::log_show::{described, state, to_json};
use super::output::OutputArgs;
use super::subcommand::{Process, Subcommand};
use super::units;
use crate::pb::v1::{CreateLogRequest, LogState};
use crate::reason::ErrorReason;
use crate::types::LogId;

/// Create a log
///
/// It requires the action `admin` on the name. Settings that are not given follow the defaults of the cluster
/// (`seriatim cluster set`). The command returns once the log takes records, or after a few seconds, and then says that
/// it takes none yet. The name of a deleted log is free only after the log is purged.
#[derive(Clone, Debug, clap::Args)]
pub struct CreateArgs {
    /// Name of the new log: 1 to 255 of a-z A-Z 0-9 . _ -, starting with a letter or a digit
    #[arg(value_name = "NAME", value_parser = units::log_name)]
    name: String,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Store in each entry the hash of all records before it, so that receipts prove later changes (`seriatim log receipt`);
    /// this can't be changed later
    #[arg(long)]
    hash_chain: bool,
    /// Succeed if the log exists, and leave it as it is, also if its settings differ; with --hash-chain, only if it has a
    /// hash chain
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for CreateArgs {
    const NAME: &'static str = "create";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim log create --certs certs audit",
        "seriatim log create --certs certs --replicas 3 --retention-age 30d --label team=billing --if-not-exists audit",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        let log_id = LogId::random().map_err(|e| Failure::new(Exit::Failed, format!("no random number: {e}"), ""))?;
        // With the id, a request that is sent to several nodes creates one log.
        let mut config = self.settings.config();
        config.hash_chain = self.hash_chain.then_some(true);
        let request = CreateLogRequest {
            log: self.name.clone(),
            config: Some(config).into(),
            log_id: Some(log_id.to_string()),
            ..CreateLogRequest::default()
        };
        match dialer.ask(|client| client.create_log(&request)) {
            Ok((_, log)) => {
                let note = match state(&log) {
                    LogState::LOG_STATE_CREATING => "; it takes no records yet",
                    LogState::LOG_STATE_UNSPECIFIED
                    | LogState::LOG_STATE_ACTIVE
                    | LogState::LOG_STATE_RESTORING
                    | LogState::LOG_STATE_DELETED => "",
                };
                self.output.confirm(|| format!("created{note}\n{}", described(&log)), || to_json(&log));
                Ok(())
            }
            Err(unanswered) => {
                let exists = unanswered.has_reason(ErrorReason::LogExists);
                if !(exists && self.if_not_exists) {
                    return Err(unanswered.into());
                }
                let (_, log) = dialer.ask(|client| client.get_log(&self.name))?;
                if self.hash_chain && log.config.as_ref().is_none_or(|config| config.hash_chain != Some(true)) {
                    let message = format!("log {} exists, and has no hash chain; nothing was changed", self.name);
                    let next = "create a log with another name: a log gets its hash chain when it is created";
                    return Err(Failure::new(Exit::Precondition, message, next));
                }
                self.output.say(|| format!("exists already\n{}", described(&log)), || to_json(&log))
            }
        }
    }
}
