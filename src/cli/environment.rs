//! The environment variables of client options.
//!
//! Their names begin with `SERIATIM_CLIENT_`, so that a shell may export options of `serve` (`SERIATIM_INSECURE`) and
//! of clients at the same time. A test compares them with the options of `serve`. Former names still work, if they
//! never were the name of an option of `serve`.

use std::ffi::OsString;

use clap::Arg;

/// Names the default log.
pub const LOG_NAME: &str = "SERIATIM_LOG_NAME";

/// Formerly named the default log. It reads as a log level, beside `SERIATIM_LOG_LEVEL`.
pub const FORMER_LOG_NAME: &str = "SERIATIM_LOG";

/// Formerly an option of clients, too. It is an option of `serve` alone now.
pub const INSECURE_OF_SERVE: &str = "SERIATIM_INSECURE";

/// Variables, with their former names.
const FORMER: &[(&str, &str)] = &[
    ("SERIATIM_CLIENT_ADDR", "SERIATIM_ADDR"),
    ("SERIATIM_CLIENT_CERTS", "SERIATIM_CERTS"),
    ("SERIATIM_CLIENT_USER", "SERIATIM_USER"),
    ("SERIATIM_CLIENT_SERVER_CA_FILE", "SERIATIM_CA_FILE"),
    ("SERIATIM_CLIENT_CERT_FILE", "SERIATIM_CERT_FILE"),
    ("SERIATIM_CLIENT_KEY_FILE", "SERIATIM_KEY_FILE"),
    ("SERIATIM_CLIENT_TIMEOUT", "SERIATIM_TIMEOUT"),
    ("SERIATIM_CLIENT_NODE_TIMEOUT", "SERIATIM_NODE_TIMEOUT"),
];

/// Returns all names of the variables of client options, also those that are still read and not shown.
pub fn client_names() -> impl Iterator<Item = &'static str> {
    FORMER.iter().flat_map(|(now, former)| [*now, *former])
}

/// Returns the value of a variable. An empty value counts as unset.
pub fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Makes an option of a client read its variable by the former name if only that is set, and none if it is empty.
pub fn with_former_name(arg: Arg) -> Arg {
    let Some(name) = arg.get_env().and_then(|name| name.to_str()).map(str::to_owned) else { return arg };
    if value(&name).is_some() {
        return arg;
    }
    let former = FORMER.iter().find(|(now, former)| *now == name && value(former).is_some());
    match former {
        Some((_, former)) => arg.env(*former),
        None if std::env::var_os(&name).is_some() => arg.env(None::<&'static str>),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Command;

    use super::*;
    use crate::cli::command::cli;

    fn names(command: &Command) -> BTreeSet<String> {
        command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned())).collect()
    }

    /// `SERIATIM_INSECURE`, exported for a client, made a node that was started in the same shell run without TLS.
    #[test]
    fn no_variable_of_a_client_is_one_of_serve() {
        let cli = cli();
        let of_serve = names(cli.find_subcommand("serve").expect("serve"));
        assert!(of_serve.contains(INSECURE_OF_SERVE) && of_serve.contains("SERIATIM_CLIENT_CA_FILE"));
        let listed: BTreeSet<String> = client_names().map(str::to_owned).collect();
        let mut of_clients = BTreeSet::new();
        let mut commands = vec![&cli];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            if command.get_arguments().any(|arg| arg.get_id() == "addr") && command.get_name() != "serve" {
                of_clients.extend(names(command));
            }
        }
        for (now, _) in FORMER {
            assert!(of_clients.contains(*now), "{now}: no option reads it");
        }
        of_clients.extend(listed);
        let shared: Vec<_> = of_clients.intersection(&of_serve).collect();
        assert!(shared.is_empty() && of_clients.contains(LOG_NAME), "{shared:?}");
    }
}
