//! Certificates for development and for the tests.

use std::path::{Path, PathBuf};

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

/// Makes a CA and the certificates of a cluster in `out`:
/// `ca.pem ca-key.pem server.pem server-key.pem peer.pem peer-key.pem`, and `client-<name>.pem client-<name>-key.pem` for each client.
///
/// # Errors
/// [`CertsError`]; a CA that is there is never overwritten.
pub fn make(out: &Path, hosts: &[String], clients: &[String], cluster_name: &str) -> Result<Vec<PathBuf>, CertsError> {
    todo!("{out:?} {hosts:?} {clients:?} {cluster_name}")
}

/// Why certificates can't be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertsError {}

/// A certificate authority with its key.
pub struct Ca {
    cert: X509,
    key: PKey<Private>,
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To be dialled.
    Server,
    /// To dial.
    Client,
    /// Both.
    Peer,
}

/// A certificate that is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Common names: one, but the tests want none or two.
    pub common_names: Vec<String>,
    /// Host names and IP addresses, the subject alternative names.
    pub hosts: Vec<String>,
    /// What it is for.
    pub usage: Usage,
    /// Seconds from now to its end; negative is expired.
    pub lifetime_seconds: i64,
}

/// A certificate and its key, PEM.
pub struct Issued {
    /// The certificate.
    pub cert_pem: Vec<u8>,
    /// Its key.
    pub key_pem: Vec<u8>,
}

impl Ca {
    /// Makes an authority.
    ///
    /// # Errors
    /// [`CertsError`] from openssl.
    pub fn create(common_name: &str) -> Result<Ca, CertsError> {
        todo!("{common_name}")
    }

    /// Reads `ca.pem` and `ca-key.pem`.
    ///
    /// # Errors
    /// [`CertsError`], naming the file.
    pub fn load(dir: &Path) -> Result<Ca, CertsError> {
        todo!("{dir:?}")
    }

    /// The certificate, PEM.
    pub fn cert_pem(&self) -> Vec<u8> {
        let _ = (&self.cert, &self.key);
        todo!()
    }

    /// Issues a certificate.
    ///
    /// # Errors
    /// [`CertsError`] from openssl.
    pub fn issue(&self, request: &Request) -> Result<Issued, CertsError> {
        todo!("{request:?}")
    }

    /// Issues a certificate into `<dir>/<stem>.pem` and `<dir>/<stem>-key.pem` (0600).
    ///
    /// # Errors
    /// [`CertsError`], naming the file.
    pub fn issue_files(&self, request: &Request, dir: &Path, stem: &str) -> Result<(PathBuf, PathBuf), CertsError> {
        todo!("{request:?} {dir:?} {stem}")
    }
}
