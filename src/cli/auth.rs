//! `seriatim auth`: identities and access policies.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::connect::ConnectArgs;
use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use super::subcommand::{Process, Subcommand};
use crate::security::acl::{Acl, Action, covers};
use crate::security::identity::Principal;

/// Print your name in the access policy, and what it allows
///
/// The name is the common name of the certificate, or `anonymous` on a node without TLS. Any certificate may ask. A log
/// is a name, or a prefix followed by `*`.
#[derive(Clone, Debug, clap::Args)]
pub struct WhoAmIArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Check whether the access policy allows you an action
///
/// It prints yes or no, and exits with 77 if it is not allowed. It asks the node what it allows, and does nothing else.
#[derive(Clone, Debug, clap::Args)]
pub struct CanIArgs {
    /// What you want to do
    #[arg(value_parser = Action::ALL.iter().map(|action| action.code()).collect::<Vec<_>>())]
    action: String,
    /// Name of the log; `*` are actions that concern the whole cluster
    #[arg(id = "log_operand", value_name = "LOG", default_value = Acl::EVERY_LOG)]
    log: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

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

impl Subcommand for WhoAmIArgs {
    const NAME: &'static str = "whoami";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim auth whoami --certs certs", "seriatim auth whoami --certs certs --user alice -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let (_, identity) = self.connect.resolve()?.ask(|client| client.who_am_i())?;
        let name = &identity.principal;
        self.output.say(
            || {
                let mut rows = vec![["ACTION", "LOG"].map(str::to_owned)];
                rows.extend(identity.permissions.iter().map(|allowed| [allowed.action.clone(), allowed.log.clone()]));
                format!("{name}\n{}", output::columns(&rows))
            },
            || {
                let allowed = identity.permissions.iter();
                let allowed = allowed.map(|allowed| json!({ "action": allowed.action, "log": allowed.log }));
                json!({ "principal": name, "permissions": allowed.collect::<Vec<_>>() })
            },
        )
    }
}

impl Subcommand for CanIArgs {
    const NAME: &'static str = "can-i";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim auth can-i --certs certs produce audit", "seriatim auth can-i --certs certs --user alice admin"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let (_, identity) = self.connect.resolve()?.ask(|client| client.who_am_i())?;
        let mut allowed = identity.permissions.iter().filter(|allowed| allowed.action == self.action);
        let yes = allowed.any(|allowed| covers(&allowed.log, &self.log));
        let written = self.output.say(
            || if yes { "yes\n".to_owned() } else { "no\n".to_owned() },
            || json!({ "principal": identity.principal, "action": self.action, "log": self.log, "allowed": yes }),
        );
        if yes { written } else { Err(Failure::told(Exit::NotAllowed)) }
    }
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
