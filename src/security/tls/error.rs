//! The errors of unusable certificates.

use std::path::PathBuf;

use thiserror::Error;

/// Why a node's certificates or keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the texts name every field")]
pub enum TlsError {
    /// A file can't be read.
    #[error("{file}: {error}", file = file.display())]
    Unreadable { file: PathBuf, error: String },
    /// A file does not contain a certificate in PEM form.
    #[error("{file}: no certificate in PEM form", file = _0.display())]
    NoCertificate(PathBuf),
    /// A file does not contain a private key in PEM form, or the key has a passphrase.
    #[error("{file}: no private key in PEM form without a passphrase", file = _0.display())]
    NoKey(PathBuf),
    /// A key belongs to another certificate.
    #[error("{key} is not the key of the certificate {cert}", key = key.display(), cert = cert.display())]
    KeyMismatch { key: PathBuf, cert: PathBuf },
    /// A certificate has expired.
    #[error("{file}: expired on {end}; renew it", file = file.display())]
    Expired { file: PathBuf, end: String },
    /// A certificate is not valid yet, perhaps because a clock is wrong.
    #[error("{file}: not valid yet, it begins on {begin}: is this clock right?", file = file.display())]
    NotYet { file: PathBuf, begin: String },
    /// Peers would refuse this node's peer certificate: their authority has not signed it, or not for both usages.
    #[error("{cert} would be refused by peers that trust {ca}: {error}", cert = cert.display(), ca = ca.display())]
    NotOfCa { cert: PathBuf, ca: PathBuf, error: String },
    /// Clients would refuse this node's server certificate, because it is for another usage.
    #[error("{cert} would be refused by clients: {error} (as a server certificate)", cert = cert.display())]
    NotAServers { cert: PathBuf, error: String },
    /// This node's peer certificate lacks a name that it needs.
    #[error(
        "{cert} lacks the subject alternative name {expected}, by which peers of this cluster know each other; it names {found}. \
         Correct node_name and cluster_name, or issue a certificate for them (`seriatim certs --use-ca --peers NODE \
         --cluster-name CLUSTER`)",
        cert = cert.display()
    )]
    NoPeerName { cert: PathBuf, expected: String, found: String },
}
