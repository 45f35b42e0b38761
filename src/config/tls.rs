//! Certificates and keys, or none: `--insecure`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Check, ServeArgs};

/// Certificates and keys, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority of clients' certificates.
    pub client_ca_file: PathBuf,
    /// The authority of peers' certificates.
    pub peer_ca_file: PathBuf,
    /// The certificate of the client listener.
    pub server_cert_file: PathBuf,
    /// Its key.
    pub server_key_file: PathBuf,
    /// The certificate of the peer listener and of this node as it dials its peers.
    pub peer_cert_file: PathBuf,
    /// Its key.
    pub peer_key_file: PathBuf,
}

impl TlsFiles {
    /// The files of one node that `seriatim certs --out DIR --peers NODE` makes.
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
}

impl Check {
    pub(super) fn insecure(&mut self, args: &ServeArgs, listeners: &[(&str, Option<SocketAddr>)]) {
        for (option, addr) in listeners {
            if let Some(addr) = addr.filter(|a| !a.ip().is_loopback()) {
                self.0.push(format!("insecure: works on loopback addresses only, and {option} is {addr}"));
            }
        }
        let others = [
            ("require-named-peers", args.require_named_peers.as_ref()),
            ("peer-deny-file", args.peer_deny_file.as_ref()),
        ];
        for (option, given) in tls_options(args).into_iter().chain(others) {
            if given.is_some() {
                self.0.push(format!("insecure: does not go with {option}; leave one out"));
            }
        }
    }

    pub(super) fn tls(&mut self, args: &ServeArgs) -> Option<TlsFiles> {
        let mut take = |(option, file): (&str, Option<&String>)| {
            if file.is_none() {
                self.0.push(format!("{option}: is missing; \"seriatim certs\" makes certificates to try with"));
            }
            PathBuf::from(file.map_or("", String::as_str))
        };
        let [client_ca, mut peer_ca, server_cert, server_key, peer_cert, peer_key] = tls_options(args);
        peer_ca.1 = peer_ca.1.or(client_ca.1);
        let client_ca_file = take(client_ca);
        Some(TlsFiles {
            // Without either, one line is enough.
            peer_ca_file: if peer_ca.1.is_some() { take(peer_ca) } else { PathBuf::new() },
            client_ca_file,
            server_cert_file: take(server_cert),
            server_key_file: take(server_key),
            peer_cert_file: take(peer_cert),
            peer_key_file: take(peer_key),
        })
    }
}

fn tls_options(args: &ServeArgs) -> [(&'static str, Option<&String>); 6] {
    [
        ("client-ca-file", args.client_ca_file.as_ref()),
        ("peer-ca-file", args.peer_ca_file.as_ref()),
        ("server-cert-file", args.server_cert_file.as_ref()),
        ("server-key-file", args.server_key_file.as_ref()),
        ("peer-cert-file", args.peer_cert_file.as_ref()),
        ("peer-key-file", args.peer_key_file.as_ref()),
    ]
}
