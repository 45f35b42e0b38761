//! `seriatim auth`: identities and access policies.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::exit::{Exit, Failure};
use super::output::OutputArgs;
use super::subcommand::{Process, Subcommand};
use crate::security::acl::{Acl, Action};
use crate::security::identity::Principal;

/// Check an access policy before a node loads it
///
/// It checks the file by the same rules as a node (acl_policy_file), without one. With --principal, it also prints
/// which actions the policy grants to that name, on one log or on all.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckPolicyArgs {
    /// The policy
    file: PathBuf,
    /// The model, as in acl_model_file; by default the built-in one
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Print what the policy grants to this name (the common name of a certificate)
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Name of the log for --principal; `*` are actions that concern the whole cluster
    #[arg(long, value_name = "NAME", default_value = Acl::EVERY_LOG, requires = "principal")]
    log: String,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for CheckPolicyArgs {
    const NAME: &'static str = "check-policy";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim auth check-policy policy.csv",
        "seriatim auth check-policy policy.csv --principal alice --log audit",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let file = self.file.display();
        let acl = Acl::load(self.model.as_deref(), &self.file)
            .map_err(|error| Failure::new(Exit::BadConfig, error.to_string(), "correct it before a node loads it"))?;
        let Some(name) = &self.principal else {
            return self
                .output
                .say(|| format!("{file}: valid\n"), || json!({ "file": file.to_string(), "valid": true }));
        };
        let principal = Principal::new(name).map_err(|error| {
            Failure::new(Exit::BadConfig, error.to_string(), "give --principal the name of a client")
        })?;
        let granted = || Action::ALL.iter().map(|action| (action.code(), acl.allows(&principal, &self.log, *action)));
        self.output.say(
            || {
                let line = |(action, granted)| format!("{action:10} {}\n", if granted { "allowed" } else { "denied" });
                format!("{file}: valid; {name} on {}:\n{}", self.log, granted().map(line).collect::<String>())
            },
            || {
                let actions: Map<String, Value> = granted().map(|(name, yes)| (name.to_owned(), json!(yes))).collect();
                json!({ "file": file.to_string(), "valid": true, "principal": name, "log": self.log, "allowed": actions })
            },
        )
    }
}
