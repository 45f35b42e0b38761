//! The certificates and keys of this node: reads, checks and stores them, and passes them to gRPC.
//!
//! - All files are loaded together or not at all, and only if they are usable. A key that does not belong to its
//!   certificate, an expired certificate, or a peer certificate without the name that peers expect is refused here,
//!   with the name of the file. Otherwise handshakes would fail without a visible reason. If a reload fails, the last
//!   valid certificates stay in use.
//! - Both listeners require a certificate that was issued by their authority. gRPC supports only TLS 1.2 and 1.3. The
//!   dialling side checks names: a client checks the host that it dialled, a peer checks the node
//!   ([`super::peer_names`]).
//! - gRPC requests a listener's certificates at every handshake. They are returned from memory.
//!
//! Parts, in reading order: `error` (why certificates are refused), `verify` (the checks by OpenSSL), `material`
//! (reads and checks the files), `check` (all errors at once), `live` (the material in use, reloads, warnings), `connection_certificate` (whether
//! the certificate of an open connection is still accepted), `receipts` (signs receipts).

mod check;
mod connection_certificate;
mod error;
mod live;
mod material;
mod receipts;
mod signing_key;
mod verify;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use grpcio::{
    CertificateRequestType, ChannelCredentials, ChannelCredentialsBuilder, ServerCredentials, ServerCredentialsBuilder,
    ServerCredentialsFetcher,
};

pub use self::check::check_files;
pub use self::connection_certificate::{Authorities, ConnectionCertificate};
pub use self::error::TlsError;
pub use self::live::EXPIRES_SOON;
use self::live::LiveTls;
use self::material::{Material, Pair, read_ca, read_pair};
pub use self::receipts::{BadSignature, Signature, Signer, check_signature};
use crate::config::TlsFiles;
use crate::types::NodeName;

const REQUEST: CertificateRequestType = CertificateRequestType::RequestAndRequireClientCertificateAndVerify;

/// The node's current TLS material. Clones share it.
#[derive(Clone)]
pub struct Tls(Option<Arc<LiveTls>>);

impl Tls {
    /// Reads and checks the files. Without files, TLS is off.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: Option<&TlsFiles>, cluster_name: &str) -> Result<Tls, TlsError> {
        Tls::load_for(files, cluster_name, None)
    }

    /// Like [`Tls::load`], but refuses a peer certificate that names only other nodes than this one.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load_for(files: Option<&TlsFiles>, cluster_name: &str, node: Option<&NodeName>) -> Result<Tls, TlsError> {
        files.map(|files| LiveTls::load(files, cluster_name, node).map(Arc::new)).transpose().map(Tls)
    }

    /// Returns true if TLS is off.
    pub fn is_insecure(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the credentials of the client listener. New connections use the certificates of the last reload.
    pub fn client_listener(&self) -> ServerCredentials {
        self.listener(|m| (&m.client_ca, &m.server))
    }

    /// Returns the credentials of the peer listener. New connections use the certificates of the last reload.
    pub fn peer_listener(&self) -> ServerCredentials {
        self.listener(|m| (&m.peer_ca, &m.peer))
    }

    fn listener(&self, choose: fn(&Material) -> (&Vec<u8>, &Pair)) -> ServerCredentials {
        match &self.0 {
            None => ServerCredentials::insecure(),
            Some(live) => {
                let fetcher = Fetcher { live: live.clone(), choose, fetched: AtomicU64::new(0) };
                ServerCredentials::with_fetcher(Box::new(fetcher), REQUEST)
            }
        }
    }

    /// Returns the current credentials to dial a peer. The caller must create a new channel when
    /// [`Tls::peer_ca_generation`] changes.
    pub fn peer_channel(&self) -> ChannelCredentials {
        match &self.0 {
            None => ChannelCredentials::insecure(),
            Some(live) => {
                let now = live.current();
                channel(&now.peer_ca, &now.peer)
            }
        }
    }

    /// Returns a number that changes when a reload has changed the files.
    pub fn generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |live| live.generation())
    }

    /// Returns a number that changes when a reload has changed the authorities of peers.
    pub fn peer_ca_generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |live| live.peer_ca_generation())
    }

    /// Reads the files again. Returns whether they have changed. After an error, the last valid certificates stay in
    /// use.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.0.as_ref().map_or(Ok(false), |live| live.reload())
    }

    /// Warns if the server certificate does not name the host of `rpc_addr` (`host:port`), the address that clients
    /// learn from the cluster. Clients that dial it would refuse the connection. It is only a warning, because
    /// clients may dial another name.
    pub fn warn_unless_named(&self, rpc_addr: &str) {
        let warning = self.0.as_ref().and_then(|live| live.not_named(rpc_addr));
        warning.iter().for_each(|warning| log::warn!("{warning}"));
    }

    /// Returns everything that loading the files and [`Tls::warn_unless_named`] warn about. `rpc_addr` is the advertised
    /// address, if it is known.
    pub fn warnings(&self, rpc_addr: Option<&str>) -> Vec<String> {
        let Some(live) = &self.0 else { return Vec::new() };
        live.warn(true, SystemTime::now()).into_iter().chain(rpc_addr.and_then(|addr| live.not_named(addr))).collect()
    }

    /// Returns when the first of the certificates in use expires. `None` without TLS.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|live| live.current().expires.0)
    }

    /// Returns what signs with the current peer key.
    pub fn signer(&self) -> Signer {
        Signer::new(self.0.clone())
    }

    /// Returns when each of the certificates in use expires, by the option that names its file. Empty without TLS.
    pub fn expiries(&self) -> Vec<(&'static str, SystemTime)> {
        self.0.as_ref().map(|live| live.current().expiries.clone()).unwrap_or_default()
    }

    /// Returns the authorities of clients.
    pub fn client_authorities(&self) -> Authorities {
        Authorities::new(self.0.clone(), |material| &material.client_ca)
    }

    /// Returns the authorities of peers.
    pub fn peer_authorities(&self) -> Authorities {
        Authorities::new(self.0.clone(), |material| &material.peer_ca)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.as_ref().map(|live| live.files())).finish_non_exhaustive()
    }
}

/// Returns the credentials of a client (command line, tests): the authority that must have issued the server's
/// certificate, and the client's own certificate and key.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn client_credentials(ca: &Path, cert: &Path, key: &Path) -> Result<ChannelCredentials, TlsError> {
    let (ca, _) = read_ca(ca)?;
    let (pair, _) = read_pair(cert, key)?;
    Ok(channel(&ca, &pair))
}

fn channel(ca: &[u8], pair: &Pair) -> ChannelCredentials {
    ChannelCredentialsBuilder::new().root_cert(ca.to_owned()).cert(pair.cert.clone(), pair.key.clone()).build()
}

/// Passes a listener's certificates to gRPC when they have changed.
struct Fetcher {
    live: Arc<LiveTls>,
    choose: fn(&Material) -> (&Vec<u8>, &Pair),
    /// The generation that gRPC fetched last. gRPC holds a lock during the call.
    fetched: AtomicU64,
}

impl ServerCredentialsFetcher for Fetcher {
    fn fetch(&self) -> Result<Option<ServerCredentialsBuilder>, Box<dyn std::error::Error>> {
        // The generation is read before the material. If the material is newer than the generation, it is only
        // fetched once more.
        let generation = self.live.generation();
        if self.fetched.swap(generation, Ordering::AcqRel) == generation {
            return Ok(None);
        }
        let now = self.live.current();
        let (ca, pair) = (self.choose)(&now);
        let builder = ServerCredentialsBuilder::new().root_cert(ca.clone(), REQUEST);
        Ok(Some(builder.add_cert(pair.cert.clone(), pair.key.clone())))
    }
}

#[cfg(test)]
mod tests;
