//! The certificate and key files of a node.

use std::path::{Path, PathBuf};

use super::options::TlsOptions;
use super::problems::Problems;

/// The PEM files with a node's certificates and keys. All of them are required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA of the clients.
    pub client_ca_file: PathBuf,
    /// The CA of the peers.
    pub peer_ca_file: PathBuf,
    /// The certificate of the client listener.
    pub server_cert_file: PathBuf,
    /// The private key of `server_cert_file`.
    pub server_key_file: PathBuf,
    /// The certificate of the peer listener, also used for connections to peers.
    pub peer_cert_file: PathBuf,
    /// The private key of `peer_cert_file`.
    pub peer_key_file: PathBuf,
}

impl TlsFiles {
    /// Returns the files of `node` that `seriatim certs --out DIR --peers NODE` writes to `dir`.
    pub fn in_dir(dir: &Path, node: &str) -> TlsFiles {
        TlsFiles {
            client_ca_file: dir.join("ca.pem"),
            peer_ca_file: dir.join("ca.pem"),
            server_cert_file: dir.join("server.pem"),
            server_key_file: dir.join("server-key.pem"),
            peer_cert_file: dir.join(node).join("peer.pem"),
            peer_key_file: dir.join(node).join("peer-key.pem"),
        }
    }

    /// Returns the configured files. For each one that is not configured, a problem is added, and its path is empty.
    pub(super) fn of(options: TlsOptions, problems: &mut Problems) -> TlsFiles {
        let mut take = |name: &'static str, file: Option<PathBuf>| {
            file.unwrap_or_else(|| {
                if !problems.is_unknown(name) && !problems.is_unknown("insecure") {
                    problems.push_for(name, "is missing; `seriatim certs` makes certificates for a test");
                }
                PathBuf::new()
            })
        };
        let client_ca_file = take("client_ca_file", options.client_ca_file);
        TlsFiles {
            peer_ca_file: options.peer_ca_file.unwrap_or_else(|| client_ca_file.clone()),
            client_ca_file,
            server_cert_file: take("server_cert_file", options.server_cert_file),
            server_key_file: take("server_key_file", options.server_key_file),
            peer_cert_file: take("peer_cert_file", options.peer_cert_file),
            peer_key_file: take("peer_key_file", options.peer_key_file),
        }
    }
}
