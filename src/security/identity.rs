//! The identity of a caller: the principal in the common name of its certificate, and the node that a peer
//! certificate names.
//!
//! gRPC verifies the certificate against the listener's authority before a call arrives here. But it reports only the
//! first of several common names, and no expiry. So the certificate itself is parsed once, and the result is cached
//! for later calls. The expiry is checked at every call.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grpcio::RpcContext;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::x509::X509;
use parking_lot::Mutex;
use thiserror::Error;

use super::peer_names::{Dialled, PeerName, PeerNames};

/// The number of certificates in the cache. When it is full, it is emptied.
const CERTIFICATES_REMEMBERED_MAX: usize = 1024;

/// The maximum length of a principal's name, in characters.
const PRINCIPAL_CHARS_MAX: usize = 64;

/// The prefix of role names in the policy. The name of a principal can't start with it.
pub const ROLE_PREFIX: &str = "role:";

/// The name of a caller in the access policy. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Checks the name of a principal: 1 to 64 printable ASCII characters except `*`, comma and space, not starting
    /// with `role:`.
    ///
    /// # Errors
    /// [`NoIdentity::BadName`].
    pub fn new(name: &str) -> Result<Principal, NoIdentity> {
        let length_good = (1..=PRINCIPAL_CHARS_MAX).contains(&name.len());
        let good = length_good && name.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b',');
        if good && !name.starts_with(ROLE_PREFIX) {
            Ok(Principal(name.into()))
        } else {
            Err(NoIdentity::BadName(name.chars().take(PRINCIPAL_CHARS_MAX).collect()))
        }
    }

    /// Returns the principal of every caller without TLS.
    pub fn anonymous() -> Principal {
        Principal("anonymous".into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a caller, and when its certificate expires. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name for the access policy.
    pub principal: Principal,
    /// When the certificate expires. `None` without TLS.
    pub expires: Option<SystemTime>,
}

impl Identity {
    /// Checks that the certificate has not expired. Open streams call this once a minute and at a reload.
    ///
    /// # Errors
    /// [`NoIdentity::Expired`].
    pub fn check(&self, now: SystemTime) -> Result<(), NoIdentity> {
        match self.expires {
            Some(end) if end <= now => Err(NoIdentity::Expired),
            Some(_) | None => Ok(()),
        }
    }
}

/// A caller on the peer listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCaller {
    /// The caller's identity for the access policy.
    pub identity: Identity,
    /// The node that the certificate names.
    pub name: PeerName,
}

/// Why a call does not have a usable identity. The call fails with UNAUTHENTICATED.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoIdentity {
    /// The connection does not have a certificate.
    #[error("the connection carries no certificate")]
    NoCertificate,
    /// The certificate can't be read.
    #[error("the certificate can't be read")]
    Unreadable,
    /// The certificate does not have a common name.
    #[error("the certificate has no common name; it needs exactly one")]
    NoCommonName,
    /// The certificate has several common names.
    #[error("the certificate has more than one common name; it needs exactly one")]
    ManyCommonNames,
    /// The common name is not a valid name of a principal.
    #[error(
        "{0:?} can't be the name of a caller: 1 to {PRINCIPAL_CHARS_MAX} printable ASCII characters without '*', comma and space, \
         not beginning with {ROLE_PREFIX:?}"
    )]
    BadName(String),
    /// The certificate has expired.
    #[error("the certificate has expired")]
    Expired,
    /// The authorities of the listener no longer verify the certificate. Contains OpenSSL's text.
    #[error("the certificate's authority is no longer accepted: {0}; connect with a certificate of one that is")]
    Untrusted(String),
    /// The certificate of a call on the peer listener does not name a node of this cluster.
    #[error("the certificate is not a peer's: it lacks the subject alternative name <node name>.{expected}")]
    NoPeer {
        /// The suffix of the names in peer certificates of this cluster.
        expected: String,
    },
}

/// Determines the identities of callers. Clones share the cache of certificates.
#[derive(Clone)]
pub struct Identities {
    insecure: bool,
    peer_names: PeerNames,
    /// The key is the PEM text. The map is ordered instead of hashed: PEM texts differ near their start, while a hash
    /// would read the whole text, twice per call.
    seen: Arc<Mutex<BTreeMap<Vec<u8>, Arc<Certificate>>>>,
}

impl Identities {
    /// Creates the object for listeners with TLS, or without it (`insecure`).
    pub fn new(cluster_name: &str, insecure: bool) -> Identities {
        Identities { insecure, peer_names: PeerNames::new(cluster_name), seen: Arc::default() }
    }

    /// Returns the identity of a caller on the client listener.
    ///
    /// # Errors
    /// [`NoIdentity`]. The call must fail with UNAUTHENTICATED.
    pub fn client(&self, ctx: &RpcContext<'_>) -> Result<Identity, NoIdentity> {
        if self.insecure {
            return Ok(Identity { principal: Principal::anonymous(), expires: None });
        }
        self.certificate(ctx)?.identity(SystemTime::now())
    }

    /// Returns the identity of a caller on the peer listener. In addition to the requirements for clients, its
    /// certificate must name a node of the cluster.
    ///
    /// # Errors
    /// [`NoIdentity`]. The call must fail with UNAUTHENTICATED.
    pub fn peer(&self, ctx: &RpcContext<'_>) -> Result<PeerCaller, NoIdentity> {
        if self.insecure {
            return Ok(PeerCaller { identity: self.client(ctx)?, name: PeerName::Unproven });
        }
        let certificate = self.certificate(ctx)?;
        let name = self.peer_names.read(certificate.dns_names.iter().map(String::as_str));
        let name = name.ok_or_else(|| NoIdentity::NoPeer { expected: self.peer_names.expected(&Dialled::Shared) })?;
        Ok(PeerCaller { identity: certificate.identity(SystemTime::now())?, name })
    }

    fn certificate(&self, ctx: &RpcContext<'_>) -> Result<Arc<Certificate>, NoIdentity> {
        let auth = ctx.auth_context().filter(|auth| auth.peer_is_authenticated()).ok_or(NoIdentity::NoCertificate)?;
        let pem = auth.into_iter().find(|p| p.name() == "x509_pem_cert").ok_or(NoIdentity::NoCertificate)?;
        self.read(pem.value())
    }

    fn read(&self, pem: &[u8]) -> Result<Arc<Certificate>, NoIdentity> {
        let mut seen = self.seen.lock();
        if let Some(certificate) = seen.get(pem) {
            return Ok(certificate.clone());
        }
        let certificate = Arc::new(Certificate::read(pem).map_err(|_| NoIdentity::Unreadable)?);
        if seen.len() >= CERTIFICATES_REMEMBERED_MAX {
            seen.clear();
        }
        seen.insert(pem.to_owned(), certificate.clone());
        Ok(certificate)
    }
}

/// Returns the principal that a certificate (PEM) names, for messages. The expiry is not checked.
pub fn principal_of(pem: &[u8]) -> Option<Principal> {
    Certificate::read(pem).ok()?.principal.ok()
}

/// The parsed parts of a certificate.
struct Certificate {
    principal: Result<Principal, NoIdentity>,
    dns_names: Vec<String>,
    expires: SystemTime,
}

impl Certificate {
    fn read(pem: &[u8]) -> Result<Certificate, ErrorStack> {
        let cert = X509::from_pem(pem)?;
        let mut names = cert.subject_name().entries_by_nid(Nid::COMMONNAME);
        let principal = match (names.next(), names.next()) {
            (None, _) => Err(NoIdentity::NoCommonName),
            (Some(_), Some(_)) => Err(NoIdentity::ManyCommonNames),
            (Some(name), None) => match name.data().to_string() {
                Ok(name) if name.is_empty() => Err(NoIdentity::NoCommonName),
                Ok(name) => Principal::new(&name),
                Err(_) => Err(NoIdentity::Unreadable),
            },
        };
        let alternatives = cert.subject_alt_names();
        let dns_names = alternatives.iter().flatten().filter_map(|n| n.dnsname().map(str::to_owned)).collect();
        Ok(Certificate { principal, dns_names, expires: system_time(cert.not_after())? })
    }

    fn identity(&self, now: SystemTime) -> Result<Identity, NoIdentity> {
        let identity = Identity { principal: self.principal.clone()?, expires: Some(self.expires) };
        identity.check(now)?;
        Ok(identity)
    }
}

/// Converts a time in a certificate. A time before 1970 becomes 1970.
pub(super) fn system_time(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * 24 * 60 * 60 + i64::from(since.secs);
    Ok(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::certs::{Ca, Request, Usage};

    fn read(common_names: &[&str], hosts: &[&str], lifetime_seconds: i64) -> Arc<Certificate> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let request =
            Request { common_names: own(common_names), hosts: own(hosts), usage: Usage::Client, lifetime_seconds };
        let issued = Ca::create("ca").and_then(|ca| ca.issue(&request)).expect("a certificate");
        Identities::new("c", false).read(&issued.cert_pem).expect("readable")
    }

    fn identity(common_names: &[&str]) -> Result<String, NoIdentity> {
        read(common_names, &[], 60).identity(SystemTime::now()).map(|i| i.principal.to_string())
    }

    #[test]
    fn a_certificate_needs_exactly_one_usable_common_name() {
        assert_eq!(identity(&["root"]), Ok("root".to_owned()));
        assert_eq!(identity(&["a@example.org"]), Ok("a@example.org".to_owned()));
        assert_eq!(identity(&[]), Err(NoIdentity::NoCommonName));
        assert_eq!(identity(&["root", "nobody"]), Err(NoIdentity::ManyCommonNames));
        for bad in ["role:admin", "*", "ro*", "a,b", "a b", " ", "ä"] {
            assert_eq!(identity(&[bad]), Err(NoIdentity::BadName(bad.to_owned())));
        }
        assert!(Principal::new(&"x".repeat(64)).is_ok());
        for bad in ["", &"x".repeat(65), "a\0b", "a\nb", "\u{7f}"] {
            assert!(Principal::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_expires() {
        let now = SystemTime::now();
        let expired = read(&["root"], &[], -60);
        assert_eq!(expired.identity(now), Err(NoIdentity::Expired));
        let identity = read(&["root"], &[], 60).identity(now).expect("an identity");
        assert_eq!(identity.check(now + Duration::from_secs(50)), Ok(()));
        assert_eq!(identity.check(now + Duration::from_secs(61)), Err(NoIdentity::Expired));
        let anonymous = Identity { principal: Principal::anonymous(), expires: None };
        assert_eq!(anonymous.check(now + Duration::from_secs(1 << 32)), Ok(()));
    }

    #[test]
    fn dns_names_are_read() {
        assert_eq!(read(&["x"], &["a.example", "127.0.0.1", "b"], 60).dns_names, ["a.example", "b"]);
    }

    #[test]
    fn the_cache_of_certificates_is_bounded() {
        let identities = Identities::new("c", false);
        let ca = Ca::create("ca").expect("a CA");
        let request = Request {
            common_names: vec!["a".to_owned()],
            hosts: Vec::new(),
            usage: Usage::Client,
            lifetime_seconds: 60,
        };
        let pem = ca.issue(&request).expect("a certificate").cert_pem;
        let first = identities.read(&pem).expect("readable");
        assert!(Arc::ptr_eq(&first, &identities.clone().read(&pem).expect("readable")));
        for n in 0..CERTIFICATES_REMEMBERED_MAX * 2 {
            // Text before the certificate changes the bytes, but not the certificate.
            identities.read(&[format!("{n}\n").as_bytes(), &pem].concat()).expect("readable");
            assert!(identities.seen.lock().len() <= CERTIFICATES_REMEMBERED_MAX);
        }
        assert!(identities.read(b"nonsense").is_err());
    }
}
