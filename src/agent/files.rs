//! Loads the files that the configuration names.

use crate::config::Config;
use crate::security::acl::{Acl, AclError};
use crate::security::peer_rules::{PeerRules, PeerRulesError};
use crate::security::tls::{Tls, TlsError};

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
        (tls, rules, acl) => Err([tls.err(), rules.err(), acl.err()].into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFiles;

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
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("ca.pem: no certificate in PEM form"), "{lines:?}");
        assert!(lines[1].starts_with("acl-policy-file: ") && lines[1].contains("policy.csv:4: "), "{lines:?}");
    }
}
