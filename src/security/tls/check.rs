//! Checks all files of a node without using them, and returns every error, not only the first one.

use std::path::Path;

use openssl::x509::{X509, X509PurposeId};

use super::super::peer_names::PeerNames;
use super::error::TlsError;
use super::material::{OwnName, check_peer_names, check_peer_usage, is_key_of, read_ca, read_certs, read_key};
use super::verify::{check_time, refused};
use crate::config::TlsFiles;
use crate::types::NodeName;

/// Returns all errors of the files. `is_checked` chooses the files. The names in the peer certificate are checked if the
/// name of the cluster is known; `node` is `None` if the certificate of any node is accepted.
pub fn check_files(
    files: &TlsFiles,
    cluster_name: Option<&str>,
    node: Option<&NodeName>,
    is_checked: impl Fn(&Path) -> bool,
) -> Vec<TlsError> {
    let mut errors = Vec::new();
    if files.client_ca_file != files.peer_ca_file && is_checked(&files.client_ca_file) {
        errors.extend(read_ca(&files.client_ca_file).err());
    }
    let peer_ca = is_checked(&files.peer_ca_file).then(|| read_ca(&files.peer_ca_file));
    let peer_ca = peer_ca.and_then(|read| read.map_err(|error| errors.push(error)).ok());
    let mut pair = |cert_file: &Path, key_file: &Path| -> Option<Vec<X509>> {
        let certs = is_checked(cert_file).then(|| read_certs(cert_file));
        let certs = certs.and_then(|read| read.map_err(|error| errors.push(error)).ok());
        let key = is_checked(key_file).then(|| read_key(key_file));
        let key = key.and_then(|read| read.map_err(|error| errors.push(error)).ok());
        let (_, certs) = certs?;
        if key.is_some_and(|(_, key)| !is_key_of(&key, &certs[0])) {
            errors.push(TlsError::KeyMismatch { key: key_file.to_owned(), cert: cert_file.to_owned() });
        }
        Some(certs)
    };
    let server = pair(&files.server_cert_file, &files.server_key_file);
    let peer = pair(&files.peer_cert_file, &files.peer_key_file);
    // A certificate that is not valid now would be refused for every purpose, too.
    let mut valid_now = |certs: &Option<Vec<X509>>, file: &Path| {
        let certs = certs.as_ref()?;
        let error = check_time(&certs[0], file).err();
        let is_valid = error.is_none();
        errors.extend(error);
        Some(is_valid)
    };
    let server_is_valid = valid_now(&server, &files.server_cert_file).unwrap_or_default();
    let peer_is_valid = valid_now(&peer, &files.peer_cert_file).unwrap_or_default();
    if let Some(certs) = server.filter(|_| server_is_valid)
        && let Some(error) = refused(&certs[..1], &certs, X509PurposeId::SSL_SERVER)
    {
        errors.push(TlsError::NotAServers { cert: files.server_cert_file.clone(), error });
    }
    if let (Some(certs), Some(cluster_name)) = (&peer, cluster_name) {
        let own = OwnName { names: PeerNames::new(cluster_name), node: node.cloned() };
        errors.extend(check_peer_names(&files.peer_cert_file, &own, certs).err());
    }
    if let (Some(certs), Some((_, ca)), true) = (&peer, &peer_ca, peer_is_valid) {
        errors.extend(check_peer_usage(files, ca, certs).err());
    }
    errors
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::security::certs::{Ca, Plan, Request, Usage, make};

    #[test]
    fn reports_all_unusable_files_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        make(dir.path(), &Plan::new("c").host("localhost").peer("n1")).expect("certificates");
        let good = TlsFiles::in_dir(dir.path(), "n1");
        let (n1, n2) = (NodeName::new("n1").expect("a name"), NodeName::new("n2").expect("a name"));
        let all = |_: &Path| true;
        assert_eq!(check_files(&good, Some("c"), Some(&n1), all), []);
        assert!(matches!(check_files(&good, Some("c"), Some(&n2), all)[..], [TlsError::NoPeerName { .. }]));
        assert_eq!(check_files(&good, None, Some(&n2), all), [], "the name of the cluster is not known");

        let expired = Request {
            common_names: vec!["server".to_owned()],
            hosts: vec!["localhost".to_owned()],
            usage: Usage::Server,
            lifetime_seconds: -60,
        };
        Ca::load(dir.path()).expect("the CA").issue_files(&expired, dir.path(), "expired").expect("a certificate");
        fs::write(path("text.pem"), "text").expect("written");
        let files = TlsFiles {
            client_ca_file: path("text.pem"),
            server_cert_file: path("expired.pem"),
            peer_key_file: path("none.pem"),
            ..good.clone()
        };
        let found = check_files(&files, Some("c"), Some(&n2), all);
        assert!(
            matches!(
                found[..],
                [
                    TlsError::NoCertificate(_),
                    TlsError::KeyMismatch { .. },
                    TlsError::Unreadable { .. },
                    TlsError::Expired { .. },
                    TlsError::NoPeerName { .. },
                ]
            ),
            "{found:#?}"
        );
        let known = check_files(&files, Some("c"), Some(&n1), |file| file == path("expired.pem"));
        assert!(matches!(known[..], [TlsError::Expired { .. }]), "{known:#?}");
        let swapped = TlsFiles { server_cert_file: good.peer_cert_file.clone(), ..good.clone() };
        assert!(matches!(check_files(&swapped, Some("c"), None, all)[..], [TlsError::KeyMismatch { .. }]));
    }
}
