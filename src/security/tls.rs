//! Certificates and keys of this node: read, checked, kept in memory, handed to gRPC.
//!
//! They are taken all or none, and only when they can work: a key that is not its certificate's, a certificate that has
//! ended, a peer's certificate without the cluster's peer name are refused here with the file's name, instead of as
//! handshakes that fail for no visible reason. A reload that fails keeps the last good ones. gRPC asks for a listener's
//! certificates on every handshake, and is answered from memory.
//!
//! Both listeners require a certificate of their authority; gRPC speaks TLS 1.2 and 1.3 and nothing older. The names of
//! hosts are checked by whoever dials: a client against the host that it dialled, a peer against the node ([`super::peer_names`]).

mod error;
mod standing;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use grpcio::{
    CertificateRequestType, ChannelCredentials, ChannelCredentialsBuilder, ServerCredentials, ServerCredentialsBuilder,
    ServerCredentialsFetcher,
};
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey};
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509PurposeId, X509StoreContext};
use parking_lot::RwLock;

pub use self::error::TlsError;
pub use self::standing::{Authorities, Standing};
use super::identity::system_time;
use super::peer_names::{Dialled, PeerName, PeerNames};
use super::read_needed;
use crate::config::TlsFiles;
use crate::types::NodeName;

/// A certificate that expires within this time is warned of, once a day.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 60 * 60;

const REQUEST: CertificateRequestType = CertificateRequestType::RequestAndRequireClientCertificateAndVerify;

/// The node's TLS as it is now; a clone is the same.
#[derive(Clone)]
pub struct Tls(Option<Arc<Shared>>);

struct Shared {
    files: TlsFiles,
    own: OwnName,
    current: RwLock<Arc<Material>>,
    generation: AtomicU64,
    peer_ca_generation: AtomicU64,
    /// When a certificate that expires soon was last warned of, Unix seconds.
    warned_at: AtomicU64,
}

impl Tls {
    /// Reads and checks the files; none means without TLS.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: Option<&TlsFiles>, cluster_name: &str) -> Result<Tls, TlsError> {
        Tls::load_for(files, cluster_name, None)
    }

    /// The same for the node of this name: a peer certificate that names others is refused.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load_for(files: Option<&TlsFiles>, cluster_name: &str, node: Option<&NodeName>) -> Result<Tls, TlsError> {
        let Some(files) = files else { return Ok(Tls(None)) };
        let own = OwnName { names: PeerNames::new(cluster_name), node: node.cloned() };
        let current = Material::load(files, &own)?;
        let shared = Shared {
            files: files.clone(),
            own,
            current: RwLock::new(Arc::new(current)),
            generation: AtomicU64::new(1),
            peer_ca_generation: AtomicU64::new(1),
            warned_at: AtomicU64::new(0),
        };
        shared.warn(true, SystemTime::now()).iter().for_each(|warning| log::warn!("{warning}"));
        Ok(Tls(Some(Arc::new(shared))))
    }

    /// True without TLS.
    pub fn is_insecure(&self) -> bool {
        self.0.is_none()
    }

    /// For the client listener. Certificates that a later reload takes are served to new connections.
    pub fn client_listener(&self) -> ServerCredentials {
        self.listener(|m| (&m.client_ca, &m.server))
    }

    /// For the peer listener, likewise.
    pub fn peer_listener(&self) -> ServerCredentials {
        self.listener(|m| (&m.peer_ca, &m.peer))
    }

    fn listener(&self, choose: fn(&Material) -> (&Vec<u8>, &Pair)) -> ServerCredentials {
        match &self.0 {
            None => ServerCredentials::insecure(),
            Some(shared) => {
                let fetcher = Fetcher { shared: shared.clone(), choose, given: AtomicU64::new(0) };
                ServerCredentials::with_fetcher(Box::new(fetcher), REQUEST)
            }
        }
    }

    /// For dialling a peer, as of now: make a new channel when [`Tls::peer_ca_generation`] moves.
    pub fn peer_channel(&self) -> ChannelCredentials {
        match &self.0 {
            None => ChannelCredentials::insecure(),
            Some(shared) => {
                let now = shared.current();
                channel(&now.peer_ca, &now.peer)
            }
        }
    }

    /// Counts reloads that changed something.
    pub fn generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.generation.load(Ordering::Acquire))
    }

    /// Counts reloads that changed the authorities of peers.
    pub fn peer_ca_generation(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.peer_ca_generation.load(Ordering::Acquire))
    }

    /// Reads the files again. True when they changed; on an error the last good ones stay.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(shared) = &self.0 else { return Ok(false) };
        let new = Material::load(&shared.files, &shared.own)?;
        let mut current = shared.current.write();
        let changed = new != **current;
        if changed {
            if new.peer_ca != current.peer_ca {
                shared.peer_ca_generation.fetch_add(1, Ordering::AcqRel);
            }
            *current = Arc::new(new);
            shared.generation.fetch_add(1, Ordering::AcqRel);
        }
        drop(current);
        shared.warn(changed, SystemTime::now()).iter().for_each(|warning| log::warn!("{warning}"));
        Ok(changed)
    }

    /// Warns when the server's certificate does not name the host of `rpc_addr` (`host:port`), where clients are told to
    /// dial this node: all of them would turn away. Only a warning: they may dial it by another name.
    pub fn warn_unless_named(&self, rpc_addr: &str) {
        let Some(shared) = &self.0 else { return };
        let host = rpc_addr.rsplit_once(':').map_or(rpc_addr, |(host, _)| host).trim_matches(['[', ']']);
        let certs = X509::stack_from_pem(&shared.current().server.cert).unwrap_or_default();
        if certs.first().is_some_and(|cert| !names(cert, host)) {
            let file = shared.files.server_cert_file.display();
            log::warn!(
                "{file} does not name {host}: clients that dial this node at {rpc_addr} will refuse it. Name {host} in the \
                 certificate, or set advertise_rpc_addr to what it names"
            );
        }
    }

    /// When the first of the certificates in use ends; none without TLS.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|shared| shared.current().expires.0)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.as_ref().map(|s| &s.files)).finish_non_exhaustive()
    }
}

impl Shared {
    fn current(&self) -> Arc<Material> {
        self.current.read().clone()
    }

    /// What works today and may not work for all clients, or not for long. `changed`: the files are new.
    fn warn(&self, changed: bool, now: SystemTime) -> Vec<String> {
        let current = self.current();
        let mut warnings = Vec::new();
        let server = X509::stack_from_pem(&current.server.cert).unwrap_or_default();
        let key = server.first().and_then(|cert| cert.public_key().ok()).map(|key| key.id());
        if changed && matches!(key, Some(Id::ED25519 | Id::ED448)) {
            warnings.push(format!(
                "{} has an Ed25519 or Ed448 key: clients with BoringSSL (gRPC for Python, C++, Ruby and others) can't connect. \
                 Use an ECDSA (P-256) or RSA key",
                self.files.server_cert_file.display()
            ));
        }
        let (expires, file) = &current.expires;
        let left = expires.duration_since(now).unwrap_or_default();
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if left < EXPIRES_SOON && (changed || now >= self.warned_at.load(Ordering::Relaxed) + DAY_SECONDS) {
            self.warned_at.store(now, Ordering::Relaxed);
            let days = left.as_secs() / DAY_SECONDS;
            warnings
                .push(format!("{} expires in {days} days: renew it, and restart or reload this node", file.display()));
        }
        warnings
    }
}

/// For a client (command line, tests): the CA that the server must have, and the client's own certificate and key.
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

/// A certificate with what it needs to be verified, and its key; PEM. Has no `Debug`: it is a secret.
#[derive(PartialEq)]
struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Whose peer certificate it must be.
struct OwnName {
    names: PeerNames,
    /// None: any node's.
    node: Option<NodeName>,
}

#[derive(PartialEq)]
struct Material {
    client_ca: Vec<u8>,
    peer_ca: Vec<u8>,
    server: Pair,
    peer: Pair,
    /// The first of them to expire, and its file.
    expires: (SystemTime, PathBuf),
}

impl Material {
    fn load(files: &TlsFiles, own: &OwnName) -> Result<Material, TlsError> {
        let (client_ca, client_ca_certs) = read_ca(&files.client_ca_file)?;
        let (peer_ca, peer_ca_certs) = read_ca(&files.peer_ca_file)?;
        let (server, server_certs) = read_pair(&files.server_cert_file, &files.server_key_file)?;
        let (peer, peer_certs) = read_pair(&files.peer_cert_file, &files.peer_key_file)?;
        // Who signed it is for clients to judge, so it is its own authority here.
        if let Some(error) = refused(&server_certs[..1], &server_certs, X509PurposeId::SSL_SERVER) {
            return Err(TlsError::NotAServers { cert: files.server_cert_file.clone(), error });
        }
        check_peer(files, own, &peer_ca_certs, &peer_certs)?;
        let mut expires = Vec::new();
        for (certs, file) in [
            (&client_ca_certs, &files.client_ca_file),
            (&peer_ca_certs, &files.peer_ca_file),
            (&server_certs, &files.server_cert_file),
            (&peer_certs, &files.peer_cert_file),
        ] {
            // Of a bundle of authorities some may have ended; of a chain the leaf counts, the first.
            let end = system_time(certs[0].not_after()).map_err(|_| TlsError::NoCertificate(file.clone()))?;
            expires.push((end, file.clone()));
        }
        let expires = expires.into_iter().min().unwrap_or((SystemTime::UNIX_EPOCH, PathBuf::new()));
        Ok(Material { client_ca, peer_ca, server, peer, expires })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error: String| TlsError::Unreadable { file: file.to_owned(), error };
    let bytes = read_needed(file).map_err(|e| unreadable(e.to_string()))?;
    // gRPC takes C strings.
    if bytes.contains(&0) { Err(unreadable("is not text".to_owned())) } else { Ok(bytes) }
}

fn read_certs(file: &Path) -> Result<(Vec<u8>, Vec<X509>), TlsError> {
    let pem = read(file)?;
    let certs = X509::stack_from_pem(&pem).unwrap_or_default();
    if certs.is_empty() { Err(TlsError::NoCertificate(file.to_owned())) } else { Ok((pem, certs)) }
}

/// A bundle of authorities; those that hold now come first, and there is one.
fn read_ca(file: &Path) -> Result<(Vec<u8>, Vec<X509>), TlsError> {
    let (pem, mut certs) = read_certs(file)?;
    certs.sort_by_key(|cert| check_time(cert, file).is_err());
    check_time(&certs[0], file)?;
    Ok((pem, certs))
}

fn read_pair(cert_file: &Path, key_file: &Path) -> Result<(Pair, Vec<X509>), TlsError> {
    let (cert, certs) = read_certs(cert_file)?;
    let key = read(key_file)?;
    // With a passphrase given, OpenSSL does not ask for one on the terminal.
    let parsed = PKey::private_key_from_pem_passphrase(&key, b"").map_err(|_| TlsError::NoKey(key_file.to_owned()))?;
    if !certs[0].public_key().is_ok_and(|public| public.public_eq(&parsed)) {
        return Err(TlsError::KeyMismatch { key: key_file.to_owned(), cert: cert_file.to_owned() });
    }
    check_time(&certs[0], cert_file)?;
    Ok((Pair { cert, key }, certs))
}

fn check_time(cert: &X509, file: &Path) -> Result<(), TlsError> {
    let now = SystemTime::now();
    let bad = |_: ErrorStack| TlsError::NoCertificate(file.to_owned());
    if system_time(cert.not_after()).map_err(bad)? <= now {
        return Err(TlsError::Expired { file: file.to_owned(), end: cert.not_after().to_string() });
    }
    if system_time(cert.not_before()).map_err(bad)? > now {
        return Err(TlsError::NotYet { file: file.to_owned(), begin: cert.not_before().to_string() });
    }
    Ok(())
}

/// A peer's certificate is shown to peers in both directions, so it must pass for both.
fn check_peer(files: &TlsFiles, own: &OwnName, ca: &[X509], certs: &[X509]) -> Result<(), TlsError> {
    let (cert_file, ca_file) = (&files.peer_cert_file, &files.peer_ca_file);
    let names = certs[0].subject_alt_names();
    let names: Vec<&str> = names.iter().flatten().filter_map(|name| name.dnsname()).collect();
    let own_name = own.node.as_ref().map(|node| own.names.expected(&Dialled::Node(node.clone())));
    let own_name = own_name.unwrap_or_else(|| format!("<node name>.{}", own.names.expected(&Dialled::Shared)));
    let lacks = |expected: String| TlsError::NoPeerName { cert: cert_file.clone(), expected };
    match own.names.read(names.iter().copied()) {
        Some(PeerName::Shared | PeerName::Unproven) => {}
        Some(PeerName::Nodes(nodes)) if own.node.as_ref().is_none_or(|node| nodes.contains(node)) => {
            if !own.names.is_member(names.iter().copied()) {
                return Err(lacks(own.names.expected(&Dialled::Member)));
            }
        }
        Some(PeerName::Nodes(_)) | None => return Err(lacks(own_name)),
    }
    for (purpose, role) in [(X509PurposeId::SSL_SERVER, "as a server's"), (X509PurposeId::SSL_CLIENT, "as a client's")]
    {
        if let Some(error) = refused(ca, certs, purpose) {
            let error = format!("{error} ({role})");
            return Err(TlsError::NotOfCa { cert: cert_file.clone(), ca: ca_file.clone(), error });
        }
    }
    Ok(())
}

/// Why somebody who trusts `ca` refuses the first of `certs`, the others being its chain, for this purpose.
fn refused(ca: &[X509], certs: &[X509], purpose: X509PurposeId) -> Option<String> {
    store(ca, purpose).map_or_else(|e| Some(e.to_string()), |store| refused_by(&store, certs))
}

fn store(ca: &[X509], purpose: X509PurposeId) -> Result<X509Store, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?; // as gRPC does
    for cert in ca {
        store.add_cert(cert.clone())?;
    }
    store.set_purpose(purpose)?;
    Ok(store.build())
}

fn refused_by(store: &X509Store, certs: &[X509]) -> Option<String> {
    let verified = || -> Result<Option<String>, ErrorStack> {
        let mut chain = Stack::new()?;
        for cert in &certs[1..] {
            chain.push(cert.clone())?;
        }
        X509StoreContext::new()?.init(store, &certs[0], &chain, |context| {
            Ok((!context.verify_cert()?).then(|| context.error().error_string().to_owned()))
        })
    };
    verified().unwrap_or_else(|e| Some(e.to_string()))
}

/// True when the subject alternative names of `cert` have this host, which is an IP address or a name.
fn names(cert: &X509, host: &str) -> bool {
    let ip = host.parse::<IpAddr>().ok().map(|ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    });
    let is = |name: &str| {
        let behind = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_ascii_lowercase());
        name.eq_ignore_ascii_case(host) || (name.starts_with("*.") && behind(name) == behind(host))
    };
    cert.subject_alt_names().iter().flatten().any(|name| match &ip {
        Some(ip) => name.ipaddress() == Some(ip),
        None => name.dnsname().is_some_and(is),
    })
}

/// Gives gRPC a listener's certificates when they are new to it.
struct Fetcher {
    shared: Arc<Shared>,
    choose: fn(&Material) -> (&Vec<u8>, &Pair),
    /// The generation that gRPC has. gRPC holds a lock over the call.
    given: AtomicU64,
}

impl ServerCredentialsFetcher for Fetcher {
    fn fetch(&self) -> Result<Option<ServerCredentialsBuilder>, Box<dyn std::error::Error>> {
        // The generation first: what is read after it is as new, or newer and then given once more.
        let generation = self.shared.generation.load(Ordering::Acquire);
        if self.given.swap(generation, Ordering::AcqRel) == generation {
            return Ok(None);
        }
        let now = self.shared.current();
        let (ca, pair) = (self.choose)(&now);
        let builder = ServerCredentialsBuilder::new().root_cert(ca.clone(), REQUEST);
        Ok(Some(builder.add_cert(pair.cert.clone(), pair.key.clone())))
    }
}

#[cfg(test)]
mod tests;
