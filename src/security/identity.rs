//! Who calls: a principal from a certificate's common name, and whether a certificate is a peer's.
//!
//! gRPC has verified the certificate against the listener's authority before a call gets here. What gRPC reports of it is
//! not enough (of two common names it gives the first, and of an end nothing), so the certificate itself is read, once: what
//! was found is remembered for the calls after. Whether it has ended is looked at on every call.

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

use super::peer_names::{Dialled, PeerName, PeerNames};

/// Remembers so many certificates; when there are more it forgets all and reads them again.
const CERTIFICATES_REMEMBERED_MAX: usize = 1024;

/// The longest name of a principal, characters.
const PRINCIPAL_CHARS_MAX: usize = 64;

/// Names that begin so are roles of the policy, never callers.
pub const ROLE_PREFIX: &str = "role:";

/// Who calls, as the access policy names them. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Takes a name: 1 to 64 printable ASCII characters without `*`, comma or space, not beginning with `role:`.
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
    /// Does the certificate still hold? For open streams, once a minute and on reload.
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

/// Who calls on the peer listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCaller {
    /// As the access policy names them.
    pub identity: Identity,
    /// The node that the certificate names.
    pub name: PeerName,
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
    /// No authority of the listener verifies it any more; what OpenSSL says.
    Untrusted(String),
    /// On the peer listener: the certificate names no node of this cluster.
    NoPeer {
        /// How the names in certificates of this cluster's peers end.
        expected: String,
    },
}

impl fmt::Display for NoIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoIdentity::NoCertificate => f.write_str("the connection carries no certificate"),
            NoIdentity::Unreadable => f.write_str("the certificate can't be read"),
            NoIdentity::NoCommonName => f.write_str("the certificate has no common name; it needs exactly one"),
            NoIdentity::ManyCommonNames => {
                f.write_str("the certificate has more than one common name; it needs exactly one")
            }
            NoIdentity::BadName(name) => write!(
                f,
                "{name:?} can't be the name of a caller: 1 to {PRINCIPAL_CHARS_MAX} printable ASCII characters without \
                 '*', comma and space, not beginning with {ROLE_PREFIX:?}"
            ),
            NoIdentity::Expired => f.write_str("the certificate has expired"),
            NoIdentity::Untrusted(error) => {
                write!(
                    f,
                    "the certificate's authority is no longer accepted: {error}; connect with a certificate of one that is"
                )
            }
            NoIdentity::NoPeer { expected } => {
                write!(
                    f,
                    "the certificate is not a peer's: it lacks the subject alternative name <node name>.{expected}"
                )
            }
        }
    }
}

impl std::error::Error for NoIdentity {}

/// Tells who calls. One for the process; a clone shares the memory of certificates seen.
#[derive(Clone)]
pub struct Identities {
    insecure: bool,
    peer_names: PeerNames,
    /// By its text. Ordered and not hashed: texts differ early, and a hash reads all of it, twice a call.
    seen: Arc<Mutex<BTreeMap<Vec<u8>, Arc<Certificate>>>>,
}

impl Identities {
    /// For listeners with TLS, or without (`insecure`).
    pub fn new(cluster_name: &str, insecure: bool) -> Identities {
        Identities { insecure, peer_names: PeerNames::new(cluster_name), seen: Arc::default() }
    }

    /// The caller on the client listener.
    ///
    /// # Errors
    /// [`NoIdentity`]: answer UNAUTHENTICATED.
    pub fn client(&self, ctx: &RpcContext<'_>) -> Result<Identity, NoIdentity> {
        if self.insecure {
            return Ok(Identity { principal: Principal::anonymous(), expires: None });
        }
        self.certificate(ctx)?.identity(SystemTime::now())
    }

    /// The caller on the peer listener; besides what a client needs, the certificate names a node of the cluster.
    ///
    /// # Errors
    /// [`NoIdentity`]: answer UNAUTHENTICATED.
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

/// The principal that a certificate (PEM) names, for a message to people: whether it still holds is not looked at.
pub fn principal_of(pem: &[u8]) -> Option<Principal> {
    Certificate::read(pem).ok()?.principal.ok()
}

/// What a certificate says of its owner.
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

/// A time of a certificate; one before 1970 is 1970.
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
    fn exactly_one_usable_common_name() {
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
    fn a_certificate_ends() {
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
    fn names_of_hosts_are_read() {
        assert_eq!(read(&["x"], &["a.example", "127.0.0.1", "b"], 60).dns_names, ["a.example", "b"]);
    }

    #[test]
    fn remembers_certificates_within_bounds() {
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
            // Text before the certificate makes other bytes of the same certificate.
            identities.read(&[format!("{n}\n").as_bytes(), &pem].concat()).expect("readable");
            assert!(identities.seen.lock().len() <= CERTIFICATES_REMEMBERED_MAX);
        }
        assert!(identities.read(b"nonsense").is_err());
    }
}
