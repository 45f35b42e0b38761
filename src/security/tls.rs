//! Certificates and keys of this node: read, checked, kept in memory and handed to gRPC.
//!
//! - Certificates are taken all together or not at all, and only if they can work. A key that does not belong to its
//!   certificate, an expired certificate or a peer certificate without the name that peers expect is refused here, with
//!   the name of the file, instead of as a handshake that fails for no visible reason. A reload that fails keeps the
//!   last good certificates.
//! - Both listeners require a certificate that their authority has issued. gRPC speaks TLS 1.2 and 1.3 only. The side
//!   that dials checks host names: a client checks the host that it dialled, a peer checks the node
//!   ([`super::peer_names`]).
//! - gRPC asks for a listener's certificates at every handshake and is answered from memory.
//!
//! Parts, in reading order: `error` (why certificates are refused), `verify` (what OpenSSL is asked), `material` (the
//! files, read and checked), `live` (the material in use, reloads, warnings), `standing` (whether the certificate of an
//! open connection is still accepted).

mod error;
mod live;
mod material;
mod standing;
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

pub use self::error::TlsError;
pub use self::live::EXPIRES_SOON;
use self::live::LiveTls;
use self::material::{Material, Pair, read_ca, read_pair};
pub use self::standing::{Authorities, Standing};
use crate::config::TlsFiles;
use crate::types::NodeName;

const REQUEST: CertificateRequestType = CertificateRequestType::RequestAndRequireClientCertificateAndVerify;

/// The node's TLS as it is now. Clones share the same state.
#[derive(Clone)]
pub struct Tls(Option<Arc<LiveTls>>);

impl Tls {
    /// Reads and checks the files. `None` means without TLS.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: Option<&TlsFiles>, cluster_name: &str) -> Result<Tls, TlsError> {
        Tls::load_for(files, cluster_name, None)
    }

    /// Like [`Tls::load`], for the node of this name: a peer certificate that names other nodes only is refused.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load_for(files: Option<&TlsFiles>, cluster_name: &str, node: Option<&NodeName>) -> Result<Tls, TlsError> {
        files.map(|files| LiveTls::load(files, cluster_name, node).map(Arc::new)).transpose().map(Tls)
    }

    /// True without TLS.
    pub fn is_insecure(&self) -> bool {
        self.0.is_none()
    }

    /// Credentials of the client listener. New connections get the certificates of the last reload.
    pub fn client_listener(&self) -> ServerCredentials {
        self.listener(|m| (&m.client_ca, &m.server))
    }

    /// Credentials of the peer listener. New connections get the certificates of the last reload.
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

    /// Credentials to dial a peer with, as of now. Make a new channel when [`Tls::peer_ca_generation`] changes.
    pub fn peer_channel(&self) -> ChannelCredentials {
        match &self.0 {
            None => ChannelCredentials::insecure(),
            Some(live) => {
                let now = live.current();
                channel(&now.peer_ca, &now.peer)
            }
        }
    }

    /// Counts the reloads that changed something.
    pub fn generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |live| live.generation())
    }

    /// Counts the reloads that changed the authorities of peers.
    pub fn peer_ca_generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |live| live.peer_ca_generation())
    }

    /// Reads the files again and returns whether they changed. After an error the last good certificates stay in use.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.0.as_ref().map_or(Ok(false), |live| live.reload())
    }

    /// Warns if the server certificate does not name the host of `rpc_addr` (`host:port`), the address that clients are
    /// told to dial: clients that dial it would refuse the connection. It is only a warning, since they may dial
    /// another name.
    pub fn warn_unless_named(&self, rpc_addr: &str) {
        if let Some(live) = &self.0 {
            live.warn_unless_named(rpc_addr);
        }
    }

    /// When the first of the certificates in use expires. `None` without TLS.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|live| live.current().expires.0)
    }

    /// The authorities of clients.
    pub fn client_authorities(&self) -> Authorities {
        Authorities::new(self.0.clone(), |material| &material.client_ca)
    }

    /// The authorities of peers.
    pub fn peer_authorities(&self) -> Authorities {
        Authorities::new(self.0.clone(), |material| &material.peer_ca)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.as_ref().map(|live| live.files())).finish_non_exhaustive()
    }
}

/// Credentials of a client (command line, tests): the authority that the server must have, and the client's own
/// certificate and key.
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

/// Hands gRPC a listener's certificates when they have changed.
struct Fetcher {
    live: Arc<LiveTls>,
    choose: fn(&Material) -> (&Vec<u8>, &Pair),
    /// The generation that gRPC has. gRPC holds a lock during the call.
    fetched: AtomicU64,
}

impl ServerCredentialsFetcher for Fetcher {
    fn fetch(&self) -> Result<Option<ServerCredentialsBuilder>, Box<dyn std::error::Error>> {
        // The generation is read before the material: the material is then as new, or newer and fetched once more.
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
