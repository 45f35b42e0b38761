//! The key with which a node signs receipts.

use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::super::identity::system_time;

/// The key of a node's peer certificate, and the certificate with its chain in DER form.
pub(super) struct SigningKey {
    pub(super) key: PKey<Private>,
    pub(super) certificates: Vec<Vec<u8>>,
    /// When the certificate expires. A receipt that is signed later is never accepted.
    expires: SystemTime,
}

impl SigningKey {
    pub(super) fn new(key: PKey<Private>, certs: &[X509]) -> Result<SigningKey, ErrorStack> {
        let expires = certs.first().map_or(Ok(SystemTime::UNIX_EPOCH), |cert| system_time(cert.not_after()))?;
        Ok(SigningKey { key, certificates: certs.iter().map(|cert| cert.to_der()).collect::<Result<_, _>>()?, expires })
    }

    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        now < self.expires
    }
}
