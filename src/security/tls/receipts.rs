//! Signatures of receipts: made with the peer key of a node, and checked without the cluster.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{HasPublic, Id, PKeyRef};
use openssl::sign;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509PurposeId};
use thiserror::Error;

use super::super::peer_names::{PeerName, PeerNames};
use super::error::TlsError;
use super::live::LiveTls;
use super::material::read_certs;
use super::signing_key::SigningKey;
use super::verify::{refused_by, store_builder};
use crate::types::NodeName;

/// Precedes the statement in what is signed, so that the signature fits nothing else that the key signs.
const CONTEXT: &[u8] = b"seriatim receipt v1\0";

/// A signature, and the certificates by which it can be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The signature of the context and the statement.
    pub signature: Vec<u8>,
    /// The certificate of the key, and its chain, in DER form.
    pub certificates: Vec<Vec<u8>>,
}

/// Signs receipts with the current peer key of a node; by default, without a key. Clones share it.
#[derive(Clone, Default)]
pub struct Signer(Option<Arc<LiveTls>>);

impl Signer {
    pub(super) fn new(live: Option<Arc<LiveTls>>) -> Signer {
        Signer(live)
    }

    /// Returns false if the node runs without TLS, or its peer certificate has expired.
    pub fn has_key(&self) -> bool {
        self.has_key_at(SystemTime::now())
    }

    fn has_key_at(&self, now: SystemTime) -> bool {
        self.0.as_ref().is_some_and(|live| live.current().signing.is_valid(now))
    }

    /// Signs a statement; `None` without TLS, and if the certificate has expired.
    ///
    /// # Errors
    /// If OpenSSL can't sign with the key.
    pub fn sign(&self, statement: &[u8]) -> Result<Option<Signature>, ErrorStack> {
        self.sign_at(SystemTime::now(), statement)
    }

    fn sign_at(&self, now: SystemTime, statement: &[u8]) -> Result<Option<Signature>, ErrorStack> {
        let Some(material) = self.0.as_ref().map(|live| live.current()) else { return Ok(None) };
        if !material.signing.is_valid(now) {
            return Ok(None);
        }
        let SigningKey { key, certificates, .. } = &material.signing;
        let signature = match digest_of(key) {
            Some(digest) => sign::Signer::new(digest, key)?.sign_oneshot_to_vec(&signed_bytes(statement))?,
            None => sign::Signer::new_without_digest(key)?.sign_oneshot_to_vec(&signed_bytes(statement))?,
        };
        Ok(Some(Signature { signature, certificates: certificates.clone() }))
    }
}

/// Returns the digest that the key signs; `None` for keys that sign the bytes themselves.
fn digest_of<K>(key: &PKeyRef<K>) -> Option<MessageDigest> {
    match key.id() {
        Id::ED25519 | Id::ED448 => None,
        _ => Some(MessageDigest::sha256()),
    }
}

fn signed_bytes(statement: &[u8]) -> Vec<u8> {
    [CONTEXT, statement].concat()
}

/// Why the signature of a receipt is not accepted.
#[derive(Debug, Error)]
pub enum BadSignature {
    /// The authority can't be read.
    #[error("{0}")]
    Authority(#[from] TlsError),
    /// A certificate of the receipt can't be parsed.
    #[error("the receipt contains no certificate, or a malformed one")]
    Certificate,
    /// The authority has not issued the certificate, or it was not valid when the receipt was signed.
    #[error("the certificate of the receipt is not accepted: {0}")]
    NotOfAuthority(String),
    /// The certificate belongs to another node, or to another cluster.
    #[error("the certificate of the receipt does not name node {node} of cluster {cluster}")]
    OtherNode {
        /// The node that the receipt names.
        node: String,
        /// The cluster that the receipt names.
        cluster: String,
    },
    /// The statement was changed, or signed with another key.
    #[error("the signature does not belong to the receipt: it was changed")]
    Forged,
    /// OpenSSL failed.
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// Checks the signature of a statement that a node claims to have signed at a time, against the authority of peers in a
/// file. A certificate that has expired since is accepted.
///
/// # Errors
/// [`BadSignature`].
pub fn check_signature(
    ca_file: &Path,
    statement: &[u8],
    Signature { signature, certificates }: &Signature,
    (node, cluster): (&str, &str),
    signed_time_us: u64,
) -> Result<(), BadSignature> {
    // An authority that has expired since is accepted, as the certificates are.
    let (_, ca) = read_certs(ca_file)?;
    let certs: Result<Vec<X509>, ErrorStack> = certificates.iter().map(|der| X509::from_der(der)).collect();
    let certs = certs.ok().filter(|certs| !certs.is_empty()).ok_or(BadSignature::Certificate)?;
    let mut builder = store_builder(&ca, X509PurposeId::SSL_SERVER)?;
    let mut param = X509VerifyParam::new()?;
    param.set_time(i64::try_from(signed_time_us / 1_000_000).unwrap_or(i64::MAX));
    builder.set_param(&param)?;
    if let Some(refused) = refused_by(&builder.build(), &certs) {
        return Err(BadSignature::NotOfAuthority(refused));
    }
    if !names_node(&certs[0], node, cluster) {
        return Err(BadSignature::OtherNode { node: node.to_owned(), cluster: cluster.to_owned() });
    }
    let key = certs[0].public_key()?;
    match verifies(&key, statement, signature) {
        Ok(true) => Ok(()),
        // OpenSSL reports a malformed signature as an error.
        Ok(false) | Err(_) => Err(BadSignature::Forged),
    }
}

fn verifies<K: HasPublic>(key: &PKeyRef<K>, statement: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
    match digest_of(key) {
        Some(digest) => sign::Verifier::new(digest, key)?.verify_oneshot(signature, &signed_bytes(statement)),
        None => sign::Verifier::new_without_digest(key)?.verify_oneshot(signature, &signed_bytes(statement)),
    }
}

/// Returns whether a peer certificate names the node. The shared certificates of older clusters name every node.
fn names_node(cert: &X509, node: &str, cluster: &str) -> bool {
    let names = cert.subject_alt_names();
    let names: Vec<&str> = names.iter().flatten().filter_map(|name| name.dnsname()).collect();
    match PeerNames::new(cluster).read(names.iter().copied()) {
        Some(PeerName::Nodes(nodes)) => NodeName::new(node).is_ok_and(|node| nodes.contains(&node)),
        Some(PeerName::Shared) => true,
        Some(PeerName::Unproven) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Tls;
    use super::*;
    use crate::config::TlsFiles;
    use crate::security::certs::{Plan, make};

    /// Once, a node whose peer certificate had expired still signed receipts, which are never accepted.
    #[test]
    fn an_expired_certificate_signs_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        make(dir.path(), &Plan::new("c").host("localhost").peer("n1")).expect("certificates");
        let files = TlsFiles::in_dir(dir.path(), "n1");
        let signer = Tls::load(Some(&files), "c").expect("TLS").signer();
        let now = SystemTime::now();
        let later = now + Duration::from_secs(3 * 365 * 24 * 60 * 60);
        let us = |time: SystemTime| {
            u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_micros()).expect("a time")
        };
        let signature = signer.sign_at(now, b"statement").expect("signed").expect("a signature");
        let checked = |time| check_signature(&files.peer_ca_file, b"statement", &signature, ("n1", "c"), us(time));
        assert!(signer.has_key() && checked(now).is_ok(), "{:?}", checked(now));
        assert!(matches!(checked(later), Err(BadSignature::NotOfAuthority(_))));
        assert!(!signer.has_key_at(later));
        assert_eq!(signer.sign_at(later, b"statement").expect("no error"), None);
        assert!(!Signer::default().has_key());
    }
}
