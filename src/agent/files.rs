//! Loads the files that the configuration names.

use super::advertised::Host;
use crate::config::{Config, LoadedConfig};
use crate::security::acl::{Acl, AclError};
use crate::security::peer_rules::{PeerRules, PeerRulesError};
use crate::security::tls::{Tls, TlsError, check_files};

/// An unusable file of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A certificate, a key or a certificate authority.
    #[error(transparent)]
    Tls(TlsError),
    /// The access policy, or its model.
    #[error("{}: {error}", .error.flag())]
    Acl {
        /// Why it is refused.
        error: AclError,
    },
    /// The list of denied peers.
    #[error("peer-deny-file: {0}")]
    PeerRules(PeerRulesError),
}

/// Loads the certificates, the list of denied peers and the access policy.
///
/// # Errors
/// All unusable files.
pub(super) fn load(config: &Config) -> Result<(Tls, PeerRules, Acl), Vec<FileError>> {
    let name = &config.cluster.cluster_name;
    let tls = Tls::load_for(config.tls.as_ref(), name, Some(&config.node.node_name)).map_err(FileError::Tls);
    let rules = match config.tls {
        None => Ok(PeerRules::without_tls(name)),
        Some(_) => {
            let deny_file = config.peer_rules.peer_deny_file.as_deref();
            PeerRules::load(name, config.peer_rules.require_named_peers, deny_file).map_err(FileError::PeerRules)
        }
    };
    let acl = Acl::load(config.access.acl_model_file.as_deref(), &config.access.acl_policy_file);
    match (tls, rules, acl.map_err(|error| FileError::Acl { error })) {
        (Ok(tls), Ok(rules), Ok(acl)) => Ok((tls, rules, acl)),
        (tls, rules, acl) => {
            let node = Some(&config.node.node_name);
            let of_tls =
                |files| check_files(files, Some(name), node, |_| true).into_iter().map(FileError::Tls).collect();
            let mut errors: Vec<FileError> =
                config.tls.as_ref().filter(|_| tls.is_err()).map(of_tls).unwrap_or_default();
            if errors.is_empty() {
                // The files have changed since.
                errors.extend(tls.err());
            }
            errors.extend([rules.err(), acl.err()].into_iter().flatten());
            Err(errors)
        }
    }
}

/// Checks all files that a configuration names, which may have errors itself, as a start would. Returns the unusable
/// files, and the warnings of a start if there are none.
pub fn check(loaded: &LoadedConfig) -> (Vec<FileError>, Vec<String>) {
    let config = loaded.with_placeholders();
    let mut errors = Vec::new();
    if let Some(files) = &config.tls {
        let found = check_files(files, loaded.cluster_name(), loaded.node_name(), |file| loaded.is_checkable(file));
        errors.extend(found.into_iter().map(FileError::Tls));
        if let Some(deny_file) = config.peer_rules.peer_deny_file.as_deref().filter(|file| loaded.is_checkable(file)) {
            let rules = PeerRules::load(&config.cluster.cluster_name, false, Some(deny_file));
            errors.extend(rules.err().map(FileError::PeerRules));
        }
    }
    let (model, policy) = (config.access.acl_model_file.as_deref(), config.access.acl_policy_file.as_path());
    if model.into_iter().chain([policy]).all(|file| loaded.is_checkable(file)) {
        errors.extend(Acl::load(model, policy).err().map(|error| FileError::Acl { error }));
    }
    if !errors.is_empty() || !loaded.problems.is_empty() {
        return (errors, Vec::new());
    }
    let rpc_addr = config.node.advertise_rpc_addr.clone().or_else(|| advertised(config));
    let tls = Tls::load_for(config.tls.as_ref(), &config.cluster.cluster_name, Some(&config.node.node_name));
    match tls {
        Ok(tls) => (errors, tls.warnings(rpc_addr.as_deref())),
        Err(error) => (vec![FileError::Tls(error)], Vec::new()),
    }
}

/// Returns the address for clients that a start would advertise on this host.
fn advertised(config: &Config) -> Option<String> {
    let host = Host::find(&config.cluster.join, config.node.bind_addr.port()).ok()?;
    host.to_advertise(config.node.rpc_addr).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFiles;

    /// `config check` warned that no certificate names 0.0.0.0, which a start does not advertise.
    #[test]
    fn a_node_on_all_addresses_is_dialled_at_its_entry_in_join() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config::for_test(dir.path(), "n1").expect("a configuration");
        config.node.bind_addr = "0.0.0.0:8401".parse().expect("an address");
        config.node.rpc_addr = "0.0.0.0:8400".parse().expect("an address");
        let name = crate::config::host_name();
        config.cluster.join = vec!["192.0.2.1:8401".to_owned(), format!("{name}:8401")];
        assert_eq!(advertised(&config), Some(format!("{name}:8400")));
        config.node.rpc_addr = "127.0.0.1:8400".parse().expect("an address");
        assert_eq!(advertised(&config), Some("127.0.0.1:8400".to_owned()));
    }

    /// The second file was only reported at the next start. And the text about a policy named neither the option nor
    /// what the file was read as.
    #[test]
    fn all_unusable_files_are_reported_together() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("policy.csv"), "p, root, *, produce\n\n# text\nnot a line\n").expect("written");
        std::fs::write(dir.path().join("ca.pem"), "text").expect("written");
        let mut config = Config::for_test(dir.path(), "n1").expect("a configuration");
        config.tls = Some(TlsFiles::in_dir(dir.path(), "n1"));
        let errors = load(&config).map(drop).expect_err("unusable");
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 6, "{lines:?}");
        assert!(lines[0].contains("ca.pem: no certificate in PEM form"), "{lines:?}");
        for (line, file) in lines[1..5].iter().zip(["server.pem", "server-key.pem", "peer.pem", "peer-key.pem"]) {
            assert!(line.contains(&format!("/{file}: No such file")), "{lines:?}");
        }
        assert!(lines[5].starts_with("acl-policy-file: ") && lines[5].contains("policy.csv:4: "), "{lines:?}");
    }
}
