//! The files of a node's certificates and keys, read and checked together.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509PurposeId};

use super::super::identity::system_time;
use super::super::peer_names::{Dialled, PeerName, PeerNames};
use super::super::read_needed;
use super::error::TlsError;
use super::signing_key::SigningKey;
use super::verify::{check_time, refused};
use crate::config::TlsFiles;
use crate::types::NodeName;

/// A certificate with its chain, and its key, in PEM form. It is not `Debug`, because it contains a secret.
#[derive(PartialEq)]
pub(super) struct Pair {
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// The node that the peer certificate must name.
pub(super) struct OwnName {
    pub(super) names: PeerNames,
    /// `None` if the certificate of any node is accepted.
    pub(super) node: Option<NodeName>,
}

pub(super) struct Material {
    pub(super) client_ca: Vec<u8>,
    pub(super) peer_ca: Vec<u8>,
    pub(super) server: Pair,
    pub(super) peer: Pair,
    /// The key of `peer`, to sign receipts with.
    pub(super) signing: SigningKey,
    /// The time at which the first of them expires, and its file.
    pub(super) expires: (SystemTime, PathBuf),
    /// When each of them expires, by the option that names its file.
    pub(super) expiries: Vec<(&'static str, SystemTime)>,
}

impl PartialEq for Material {
    /// Compares the files. The other fields are derived from them.
    fn eq(&self, other: &Material) -> bool {
        let Material { client_ca, peer_ca, server, peer, signing: _, expires: _, expiries: _ } = other;
        self.client_ca == *client_ca && self.peer_ca == *peer_ca && self.server == *server && self.peer == *peer
    }
}

impl Material {
    pub(super) fn load(files: &TlsFiles, own: &OwnName) -> Result<Material, TlsError> {
        let (client_ca, client_ca_certs) = read_ca(&files.client_ca_file)?;
        let (peer_ca, peer_ca_certs) = read_ca(&files.peer_ca_file)?;
        let (server, server_certs) = read_pair(&files.server_cert_file, &files.server_key_file)?;
        let (peer, peer_certs) = read_pair(&files.peer_cert_file, &files.peer_key_file)?;
        let (_, peer_key) = read_key(&files.peer_key_file)?;
        if !is_key_of(&peer_key, &peer_certs[0]) {
            // The file was replaced between the two reads.
            return Err(TlsError::KeyMismatch { key: files.peer_key_file.clone(), cert: files.peer_cert_file.clone() });
        }
        let no_certificate = |_| TlsError::NoCertificate(files.peer_cert_file.clone());
        let signing = SigningKey::new(peer_key, &peer_certs).map_err(no_certificate)?;
        // Only clients check which authority has signed the certificate, so it serves as its own authority here.
        if let Some(error) = refused(&server_certs[..1], &server_certs, X509PurposeId::SSL_SERVER) {
            return Err(TlsError::NotAServers { cert: files.server_cert_file.clone(), error });
        }
        check_peer_names(&files.peer_cert_file, own, &peer_certs)?;
        check_peer_usage(files, &peer_ca_certs, &peer_certs)?;
        let (mut expires, mut expiries) = (Vec::new(), Vec::new());
        for (option, certs, file) in [
            ("client_ca_file", &client_ca_certs, &files.client_ca_file),
            ("peer_ca_file", &peer_ca_certs, &files.peer_ca_file),
            ("server_cert_file", &server_certs, &files.server_cert_file),
            ("peer_cert_file", &peer_certs, &files.peer_cert_file),
        ] {
            // In a bundle, expired authorities come last, and may be ignored. In a chain, the first certificate is
            // the leaf.
            let end = system_time(certs[0].not_after()).map_err(|_| TlsError::NoCertificate(file.clone()))?;
            expires.push((end, file.clone()));
            expiries.push((option, end));
        }
        let expires = expires.into_iter().min().unwrap_or((SystemTime::UNIX_EPOCH, PathBuf::new()));
        Ok(Material { client_ca, peer_ca, server, peer, signing, expires, expiries })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error: String| TlsError::Unreadable { file: file.to_owned(), error };
    let bytes = read_needed(file).map_err(|e| unreadable(e.to_string()))?;
    // gRPC expects C strings.
    if bytes.contains(&0) { Err(unreadable("is not text".to_owned())) } else { Ok(bytes) }
}

pub(super) fn read_certs(file: &Path) -> Result<(Vec<u8>, Vec<X509>), TlsError> {
    let pem = read(file)?;
    let certs = X509::stack_from_pem(&pem).unwrap_or_default();
    if certs.is_empty() { Err(TlsError::NoCertificate(file.to_owned())) } else { Ok((pem, certs)) }
}

/// Reads a bundle of authorities. At least one must be valid now. The valid ones come first in the result.
pub(super) fn read_ca(file: &Path) -> Result<(Vec<u8>, Vec<X509>), TlsError> {
    let (pem, mut certs) = read_certs(file)?;
    certs.sort_by_key(|cert| check_time(cert, file).is_err());
    check_time(&certs[0], file)?;
    Ok((pem, certs))
}

pub(super) fn read_pair(cert_file: &Path, key_file: &Path) -> Result<(Pair, Vec<X509>), TlsError> {
    let (cert, certs) = read_certs(cert_file)?;
    let (key, parsed) = read_key(key_file)?;
    if !is_key_of(&parsed, &certs[0]) {
        return Err(TlsError::KeyMismatch { key: key_file.to_owned(), cert: cert_file.to_owned() });
    }
    check_time(&certs[0], cert_file)?;
    Ok((Pair { cert, key }, certs))
}

pub(super) fn read_key(file: &Path) -> Result<(Vec<u8>, PKey<Private>), TlsError> {
    let key = read(file)?;
    // An empty passphrase, because OpenSSL would otherwise ask for one on the terminal.
    let parsed = PKey::private_key_from_pem_passphrase(&key, b"").map_err(|_| TlsError::NoKey(file.to_owned()))?;
    Ok((key, parsed))
}

pub(super) fn is_key_of(key: &PKey<Private>, cert: &X509) -> bool {
    cert.public_key().is_ok_and(|public| public.public_eq(key))
}

/// Checks that this node's peer certificate names the node.
pub(super) fn check_peer_names(cert_file: &Path, own: &OwnName, certs: &[X509]) -> Result<(), TlsError> {
    let names = certs[0].subject_alt_names();
    let names: Vec<&str> = names.iter().flatten().filter_map(|name| name.dnsname()).collect();
    let own_name = own.node.as_ref().map(|node| own.names.expected(&Dialled::Node(node.clone())));
    let own_name = own_name.unwrap_or_else(|| format!("<node name>.{}", own.names.expected(&Dialled::Shared)));
    let found = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
    let lacks = |expected: String| TlsError::NoPeerName { cert: cert_file.to_owned(), expected, found: found.clone() };
    match own.names.read(names.iter().copied()) {
        Some(PeerName::Shared | PeerName::Unproven) => {}
        Some(PeerName::Nodes(nodes)) if own.node.as_ref().is_none_or(|node| nodes.contains(node)) => {
            if !own.names.is_member(names.iter().copied()) {
                return Err(lacks(own.names.expected(&Dialled::Member)));
            }
        }
        Some(PeerName::Nodes(_)) | None => return Err(lacks(own_name)),
    }
    Ok(())
}

/// Checks that peers accept this node's peer certificate. It is used both to dial and to be dialled, so it must be valid
/// for both.
pub(super) fn check_peer_usage(files: &TlsFiles, ca: &[X509], certs: &[X509]) -> Result<(), TlsError> {
    let (cert_file, ca_file) = (&files.peer_cert_file, &files.peer_ca_file);
    for (purpose, role) in
        [(X509PurposeId::SSL_SERVER, "as a server certificate"), (X509PurposeId::SSL_CLIENT, "as a client certificate")]
    {
        if let Some(error) = refused(ca, certs, purpose) {
            let error = format!("{error} ({role})");
            return Err(TlsError::NotOfCa { cert: cert_file.clone(), ca: ca_file.clone(), error });
        }
    }
    Ok(())
}
