//! Why certificates can't be used.

use std::fmt;
use std::path::PathBuf;

/// Why certificates are not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// A file can't be read.
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: String,
    },
    /// A file has no certificate in PEM form.
    NoCertificate(PathBuf),
    /// A file has no private key in PEM form, or one under a passphrase.
    NoKey(PathBuf),
    /// A key is another certificate's.
    KeyMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        cert: PathBuf,
    },
    /// A certificate has ended.
    Expired {
        /// Which.
        file: PathBuf,
        /// When.
        end: String,
    },
    /// A certificate has not begun; a clock may be wrong.
    NotYet {
        /// Which.
        file: PathBuf,
        /// When it does.
        begin: String,
    },
    /// The peers' authority has not signed this node's peer certificate, or not for both usages: peers would refuse it.
    NotOfCa {
        /// The certificate.
        cert: PathBuf,
        /// The authority.
        ca: PathBuf,
        /// What OpenSSL says.
        error: String,
    },
    /// Clients would refuse this node's server certificate: it is for another use.
    NotAServers {
        /// The certificate.
        cert: PathBuf,
        /// What OpenSSL says.
        error: String,
    },
    /// This node's peer certificate lacks a name that it needs.
    NoPeerName {
        /// The certificate.
        cert: PathBuf,
        /// The subject alternative name that it needs.
        expected: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Unreadable { file, error } => write!(f, "{}: {error}", file.display()),
            TlsError::NoCertificate(file) => write!(f, "{}: no certificate in PEM form", file.display()),
            TlsError::NoKey(file) => {
                write!(f, "{}: no private key in PEM form without a passphrase", file.display())
            }
            TlsError::KeyMismatch { key, cert } => {
                write!(f, "{} is not the key of the certificate {}", key.display(), cert.display())
            }
            TlsError::Expired { file, end } => write!(f, "{}: expired on {end}; renew it", file.display()),
            TlsError::NotYet { file, begin } => {
                write!(f, "{}: not valid yet, it begins on {begin}: is this clock right?", file.display())
            }
            TlsError::NotOfCa { cert, ca, error } => {
                write!(f, "{} would be refused by peers that trust {}: {error}", cert.display(), ca.display())
            }
            TlsError::NotAServers { cert, error } => {
                write!(f, "{} would be refused by clients: {error} (as a server's)", cert.display())
            }
            TlsError::NoPeerName { cert, expected } => write!(
                f,
                "{} lacks the subject alternative name {expected}, by which peers of this cluster know each other",
                cert.display()
            ),
        }
    }
}

impl std::error::Error for TlsError {}
