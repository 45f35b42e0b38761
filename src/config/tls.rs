//! The certificates of a node, or none.

use std::path::{Path, PathBuf};

use super::options::TlsOptions;

/// Certificates and keys, PEM. All of them are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authority of the clients.
    pub client_ca_file: PathBuf,
    /// The certificate authority of the peers.
    pub peer_ca_file: PathBuf,
    /// The certificate of the client listener.
    pub server_cert_file: PathBuf,
    /// The private key of `server_cert_file`.
    pub server_key_file: PathBuf,
    /// The certificate of the peer listener, which this node also presents when it dials its peers.
    pub peer_cert_file: PathBuf,
    /// The private key of `peer_cert_file`.
    pub peer_key_file: PathBuf,
}

impl TlsFiles {
    /// The files of one node that `seriatim certs --out DIR --peers NODE` writes.
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

    /// The configured files. Each one that is missing is a problem.
    pub(super) fn of(options: TlsOptions, problems: &mut Vec<String>) -> TlsFiles {
        let mut take = |flag: &str, file: Option<PathBuf>| {
            file.unwrap_or_else(|| {
                problems.push(format!("{flag}: is missing; `seriatim certs` makes certificates for a test"));
                PathBuf::new()
            })
        };
        let client_ca_file = take("client-ca-file", options.client_ca_file);
        TlsFiles {
            peer_ca_file: options.peer_ca_file.unwrap_or_else(|| client_ca_file.clone()),
            client_ca_file,
            server_cert_file: take("server-cert-file", options.server_cert_file),
            server_key_file: take("server-key-file", options.server_key_file),
            peer_cert_file: take("peer-cert-file", options.peer_cert_file),
            peer_key_file: take("peer-key-file", options.peer_key_file),
        }
    }
}
