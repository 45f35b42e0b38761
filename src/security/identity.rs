//! Who calls: a principal from a certificate's common name, and whether a certificate is a peer's.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use grpcio::RpcContext;

/// Who calls, as the access policy names them. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Takes a name: 1 to 64 printable ASCII characters without `*`, comma or space, not beginning with `role:`.
    ///
    /// # Errors
    /// [`NoIdentity::BadName`].
    pub fn new(name: &str) -> Result<Principal, NoIdentity> {
        todo!("{name}")
    }

    /// The principal of everybody without TLS.
    pub fn anonymous() -> Principal {
        Principal("anonymous".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who calls, and until when their certificate holds. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name for the access policy.
    pub principal: Principal,
    /// The end of the certificate; none without TLS.
    pub expires: Option<SystemTime>,
}

impl Identity {
    /// For open streams, once a minute and on reload.
    ///
    /// # Errors
    /// [`NoIdentity::Expired`].
    pub fn check(&self, now: SystemTime) -> Result<(), NoIdentity> {
        todo!("{now:?}")
    }
}

/// Why a call has no usable identity: UNAUTHENTICATED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoIdentity {
    /// The connection carries no certificate.
    NoCertificate,
    /// The certificate can't be read.
    Unreadable,
    /// The certificate has no common name.
    NoCommonName,
    /// The certificate has several common names.
    ManyCommonNames,
    /// The name can't be a principal.
    BadName(String),
    /// The certificate has ended.
    Expired,
    /// On the peer listener: the certificate lacks the cluster's peer name.
    NoPeer {
        /// The SAN that a peer of this cluster has.
        expected: String,
    },
}

/// The SAN that every peer's certificate of the cluster carries, and that whoever dials a peer expects.
pub fn peer_san(cluster_name: &str) -> String {
    format!("peer.{cluster_name}.seriatim.internal")
}

/// Tells who calls. One for the process; a clone shares the memory of certificates seen.
#[derive(Clone, Debug)]
pub struct Identities {}

impl Identities {
    /// For listeners with TLS, or without (`insecure`).
    pub fn new(cluster_name: &str, insecure: bool) -> Identities {
        todo!("{cluster_name} {insecure}")
    }

    /// The caller on the client listener.
    ///
    /// # Errors
    /// [`NoIdentity`]: answer UNAUTHENTICATED.
    pub fn client(&self, ctx: &RpcContext<'_>) -> Result<Identity, NoIdentity> {
        todo!("{:?}", ctx.method())
    }

    /// The caller on the peer listener; besides what a client needs, the certificate carries [`peer_san`].
    ///
    /// # Errors
    /// [`NoIdentity`]: answer UNAUTHENTICATED.
    pub fn peer(&self, ctx: &RpcContext<'_>) -> Result<Identity, NoIdentity> {
        todo!("{:?}", ctx.method())
    }
}
