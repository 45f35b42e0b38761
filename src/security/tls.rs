//! Certificates and keys of this node: read, checked, kept in memory, handed to gRPC.

use std::path::Path;
use std::time::SystemTime;

use grpcio::{ChannelCredentials, ServerCredentials};

use crate::config::TlsFiles;

/// The node's TLS as it is now; a clone is the same.
#[derive(Clone)]
pub struct Tls {}

/// Why certificates are not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {}

impl Tls {
    /// Reads and checks the files; none means without TLS.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: Option<&TlsFiles>) -> Result<Tls, TlsError> {
        todo!("{files:?}")
    }

    /// True without TLS.
    pub fn is_insecure(&self) -> bool {
        todo!()
    }

    /// For the client listener. Certificates that a later reload takes are served to new connections.
    pub fn client_listener(&self) -> ServerCredentials {
        todo!()
    }

    /// For the peer listener, likewise.
    pub fn peer_listener(&self) -> ServerCredentials {
        todo!()
    }

    /// For dialling a peer, as of now: make a new channel when [`Tls::generation`] moves.
    pub fn peer_channel(&self) -> ChannelCredentials {
        todo!()
    }

    /// Counts reloads that changed something.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// Reads the files again. True when they changed; on an error the last good ones stay.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn reload(&self) -> Result<bool, TlsError> {
        todo!()
    }

    /// When the first of the certificates in use ends; none without TLS.
    pub fn expires(&self) -> Option<SystemTime> {
        todo!()
    }
}

/// For a client (command line, tests): the CA that the server must have, and the client's own certificate and key.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn client_credentials(ca: &Path, cert: &Path, key: &Path) -> Result<ChannelCredentials, TlsError> {
    todo!("{ca:?} {cert:?} {key:?}")
}
