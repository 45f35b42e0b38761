//! The certificates in use. A reload replaces them as a whole. Warnings are logged if they expire soon, or don't work
//! for all clients.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use openssl::pkey::Id;
use openssl::x509::X509;
use parking_lot::RwLock;

use super::super::peer_names::PeerNames;
use super::error::TlsError;
use super::material::{Material, OwnName};
use super::verify::names;
use crate::config::TlsFiles;
use crate::types::NodeName;

/// A warning is logged once a day if a certificate expires within this time.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * DAY_SECONDS);
pub(super) const DAY_SECONDS: u64 = 24 * 60 * 60;

/// The material of one node's files.
pub(super) struct LiveTls {
    files: TlsFiles,
    own: OwnName,
    current: RwLock<Arc<Material>>,
    generation: AtomicU64,
    peer_ca_generation: AtomicU64,
    /// When the last warning about the expiry was logged, Unix seconds.
    pub(super) warned_at: AtomicU64,
}

impl LiveTls {
    pub(super) fn load(files: &TlsFiles, cluster_name: &str, node: Option<&NodeName>) -> Result<LiveTls, TlsError> {
        let own = OwnName { names: PeerNames::new(cluster_name), node: node.cloned() };
        let current = Material::load(files, &own)?;
        let live = LiveTls {
            files: files.clone(),
            own,
            current: RwLock::new(Arc::new(current)),
            generation: AtomicU64::new(1),
            peer_ca_generation: AtomicU64::new(1),
            warned_at: AtomicU64::new(0),
        };
        live.warn(true, SystemTime::now()).iter().for_each(|warning| log::warn!("{warning}"));
        Ok(live)
    }

    pub(super) fn files(&self) -> &TlsFiles {
        &self.files
    }

    pub(super) fn current(&self) -> Arc<Material> {
        self.current.read().clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn peer_ca_generation(&self) -> u64 {
        self.peer_ca_generation.load(Ordering::Acquire)
    }

    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let new = Material::load(&self.files, &self.own)?;
        let mut current = self.current.write();
        let changed = new != **current;
        if changed {
            if new.peer_ca != current.peer_ca {
                self.peer_ca_generation.fetch_add(1, Ordering::AcqRel);
            }
            *current = Arc::new(new);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        drop(current);
        self.warn(changed, SystemTime::now()).iter().for_each(|warning| log::warn!("{warning}"));
        Ok(changed)
    }

    /// Returns warnings about certificates that work now, but not for all clients, or not for long. `changed`: the
    /// files are new.
    pub(super) fn warn(&self, changed: bool, now: SystemTime) -> Vec<String> {
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

    /// Returns a warning if the server certificate does not name the host of `rpc_addr`.
    pub(super) fn not_named(&self, rpc_addr: &str) -> Option<String> {
        let host = host_of(rpc_addr);
        let certs = X509::stack_from_pem(&self.current().server.cert).unwrap_or_default();
        let file = Path::new(&self.files.server_cert_file).display();
        certs.first().filter(|cert| !names(cert, host)).map(|_| {
            format!(
                "{file} does not name {host}: clients that dial this node at {rpc_addr} will refuse it. Name {host} in the \
                 certificate, or set advertise_rpc_addr to a name that it contains"
            )
        })
    }
}

fn host_of(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host).trim_matches(['[', ']'])
}
