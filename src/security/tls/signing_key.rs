//! The key with which a node signs receipts.

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

/// The key of a node's peer certificate, and the certificate with its chain in DER form.
pub(super) struct SigningKey {
    pub(super) key: PKey<Private>,
    pub(super) certificates: Vec<Vec<u8>>,
}

impl SigningKey {
    pub(super) fn new(key: PKey<Private>, certs: &[X509]) -> Result<SigningKey, ErrorStack> {
        Ok(SigningKey { key, certificates: certs.iter().map(|cert| cert.to_der()).collect::<Result<_, _>>()? })
    }
}
