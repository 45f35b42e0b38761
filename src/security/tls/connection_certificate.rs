//! Checks whether the certificate of an open connection would still be accepted.
//!
//! gRPC verifies a certificate only once, in the handshake, but the connection lives as long as calls use it. So it
//! is checked again by every call, and by every open stream once a minute and at a reload: has the certificate
//! expired, and do the listener's authorities, as of the last reload, still verify it? The result is cached for each
//! certificate until the files change, but at most for a minute, because an authority can expire, too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use grpcio::RpcContext;
use openssl::error::ErrorStack;
use openssl::x509::store::X509Store;
use openssl::x509::{X509, X509PurposeId};
use parking_lot::{Mutex, MutexGuard};

use super::super::identity::{NoIdentity, system_time};
use super::live::LiveTls;
use super::material::Material;
use super::verify::{refused_by, store};

/// The time after which a certificate is verified again.
const VERIFIED_FOR: Duration = Duration::from_secs(60);

/// The number of certificates in the cache. When it is full, it is emptied.
const CERTIFICATES_REMEMBERED_MAX: usize = 1024;

/// The authorities of one listener. Clones share the cache.
#[derive(Clone, Default)]
pub struct Authorities(Option<Arc<ListenerAuthorities>>);

struct ListenerAuthorities {
    live: Arc<LiveTls>,
    choose: fn(&Material) -> &Vec<u8>,
    /// The key is the PEM text, as in `identity.rs`.
    seen: Mutex<BTreeMap<Vec<u8>, Arc<SeenCertificate>>>,
    /// The store of the authorities, for one generation of [`LiveTls`].
    store: Mutex<Option<(u64, Arc<X509Store>)>>,
}

/// The certificate of a connection, which can be checked repeatedly.
#[derive(Clone, Default)]
pub struct ConnectionCertificate(Option<(Arc<ListenerAuthorities>, Arc<SeenCertificate>)>);

/// A certificate that was verified in a handshake.
struct SeenCertificate {
    leaf: X509,
    /// The chain that the client sent with the certificate. A resumed session sends no chain; the last one is used
    /// then.
    chain: Vec<X509>,
    chain_text: Vec<u8>,
    expires: SystemTime,
    verified: Mutex<Option<Verified>>,
}

struct Verified {
    generation: u64,
    at: Instant,
    refused: Option<String>,
}

impl Authorities {
    pub(super) fn new(live: Option<Arc<LiveTls>>, choose: fn(&Material) -> &Vec<u8>) -> Authorities {
        let listener =
            |live| Arc::new(ListenerAuthorities { live, choose, seen: Mutex::default(), store: Mutex::default() });
        Authorities(live.map(listener))
    }

    /// Returns the certificate of a call's connection. Without TLS, the result passes every check.
    ///
    /// # Errors
    /// [`NoIdentity`] if the connection has no readable certificate.
    pub fn certificate_of(&self, ctx: &RpcContext<'_>) -> Result<ConnectionCertificate, NoIdentity> {
        let Some(listener) = &self.0 else { return Ok(ConnectionCertificate::default()) };
        let auth = ctx.auth_context().filter(|auth| auth.peer_is_authenticated()).ok_or(NoIdentity::NoCertificate)?;
        let (mut leaf, mut chain) = (None, None);
        for property in auth.into_iter() {
            match property.name() {
                "x509_pem_cert" => leaf = leaf.or(Some(property.value())),
                "x509_pem_cert_chain" => chain = chain.or(Some(property.value())),
                _ => {}
            }
        }
        listener.certificate(leaf.ok_or(NoIdentity::NoCertificate)?, chain.unwrap_or_default())
    }
}

impl ListenerAuthorities {
    fn certificate(
        self: &Arc<ListenerAuthorities>,
        leaf: &[u8],
        chain: &[u8],
    ) -> Result<ConnectionCertificate, NoIdentity> {
        let mut seen = lock(&self.seen);
        if let Some(known) = seen.get(leaf)
            && (chain.is_empty() || known.chain_text == chain)
        {
            return Ok(ConnectionCertificate(Some((self.clone(), known.clone()))));
        }
        let certificate = Arc::new(SeenCertificate::read(leaf, chain).map_err(|_| NoIdentity::Unreadable)?);
        if seen.len() >= CERTIFICATES_REMEMBERED_MAX {
            seen.clear();
        }
        seen.insert(leaf.to_owned(), certificate.clone());
        Ok(ConnectionCertificate(Some((self.clone(), certificate))))
    }

    /// Returns why the authorities of this generation refuse the certificate, if they do.
    fn refused(&self, seen: &SeenCertificate, generation: u64) -> Option<String> {
        let certs: Vec<X509> = std::iter::once(&seen.leaf).chain(&seen.chain).cloned().collect();
        match self.store(generation) {
            Ok(store) => refused_by(&store, &certs),
            Err(error) => Some(error.to_string()),
        }
    }

    fn store(&self, generation: u64) -> Result<Arc<X509Store>, ErrorStack> {
        let mut made = lock(&self.store);
        if let Some((_, store)) = made.as_ref().filter(|(of, _)| *of == generation) {
            return Ok(store.clone());
        }
        let authorities = X509::stack_from_pem((self.choose)(&self.live.current()))?;
        let store = Arc::new(store(&authorities, X509PurposeId::SSL_CLIENT)?);
        *made = Some((generation, store.clone()));
        Ok(store)
    }
}

impl ConnectionCertificate {
    /// Checks that the certificate has not expired and that the listener's authorities still verify it.
    ///
    /// # Errors
    /// [`NoIdentity::Expired`], [`NoIdentity::Untrusted`].
    pub fn check(&self, now: SystemTime) -> Result<(), NoIdentity> {
        let Some((listener, seen)) = &self.0 else { return Ok(()) };
        if seen.expires <= now {
            return Err(NoIdentity::Expired);
        }
        // The generation is read first. If the authorities are newer than the generation, the certificate is only
        // verified once more.
        let generation = listener.live.generation();
        let mut verified = lock(&seen.verified);
        let holds = |last: &&Verified| last.generation == generation && last.at.elapsed() < VERIFIED_FOR;
        let refused = match verified.as_ref().filter(holds) {
            Some(last) => last.refused.clone(),
            None => {
                let refused = listener.refused(seen, generation);
                *verified = Some(Verified { generation, at: Instant::now(), refused: refused.clone() });
                refused
            }
        };
        refused.map_or(Ok(()), |error| Err(NoIdentity::Untrusted(error)))
    }

    /// Returns when the certificate expires. `None` without TLS.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|(_, seen)| seen.expires)
    }
}

impl fmt::Debug for ConnectionCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionCertificate").field("expires", &self.expires()).finish_non_exhaustive()
    }
}

impl SeenCertificate {
    fn read(leaf: &[u8], chain_text: &[u8]) -> Result<SeenCertificate, ErrorStack> {
        let leaf = X509::from_pem(leaf)?;
        let chain = if chain_text.is_empty() { Vec::new() } else { X509::stack_from_pem(chain_text)? };
        let expires = system_time(leaf.not_after())?;
        Ok(SeenCertificate { leaf, chain, chain_text: chain_text.to_owned(), expires, verified: Mutex::default() })
    }
}

/// Every critical section leaves the state consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use openssl::asn1::Asn1Time;
    use openssl::bn::{BigNum, MsbOption};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::x509::X509Name;
    use openssl::x509::extension::{BasicConstraints, SubjectKeyIdentifier};

    use super::*;
    use crate::config::TlsFiles;
    use crate::security::certs::{Ca, Plan, Request, Usage, make};
    use crate::security::tls::Tls;

    fn issue(ca: &Ca, lifetime_seconds: i64) -> Vec<u8> {
        let request =
            Request { common_names: vec!["root".to_owned()], hosts: vec![], usage: Usage::Client, lifetime_seconds };
        ca.issue(&request).expect("a certificate").cert_pem
    }

    fn load(dir: &Path) -> (Tls, TlsFiles) {
        make(dir, &Plan::new("c").host("localhost").peer("n1")).expect("certificates");
        let files = TlsFiles::in_dir(dir, "n1");
        // A separate file, so that it can be replaced without changing the authority of peers.
        let files = TlsFiles { client_ca_file: dir.join("client-ca.pem"), ..files };
        std::fs::copy(&files.peer_ca_file, &files.client_ca_file).expect("copied");
        (Tls::load(Some(&files), "c").expect("TLS"), files)
    }

    fn untrusted(certificate: &ConnectionCertificate) -> bool {
        matches!(certificate.check(SystemTime::now()), Err(NoIdentity::Untrusted(_)))
    }

    #[test]
    fn a_certificate_of_a_removed_authority_is_refused_until_the_authority_is_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tls, files) = load(dir.path());
        let (clients, peers) = (tls.client_authorities(), tls.peer_authorities());
        let first = Ca::load(dir.path()).expect("the CA");
        let second_dir = tempfile::tempdir().expect("a directory");
        make(second_dir.path(), &Plan::new("c").host("localhost").peer("n1")).expect("certificates");
        let second = Ca::load(second_dir.path()).expect("the CA");

        let certificate = |authorities: &Authorities, pem: &[u8]| {
            authorities.0.as_ref().expect("with TLS").certificate(pem, &[]).expect("readable")
        };
        let (old_pem, new_pem) = (issue(&first, 60), issue(&second, 60));
        let (old, new) = (certificate(&clients, &old_pem), certificate(&clients, &new_pem));
        assert_eq!(old.check(SystemTime::now()), Ok(()));
        assert!(untrusted(&new));

        let first_pem = std::fs::read(&files.client_ca_file).expect("read");
        let second_pem = std::fs::read(second_dir.path().join("ca.pem")).expect("read");
        std::fs::write(&files.client_ca_file, &second_pem).expect("written");
        assert_eq!(old.check(SystemTime::now()), Ok(()), "not loaded yet");
        assert_eq!(tls.reload(), Ok(true));
        assert!(untrusted(&old));
        assert_eq!(new.check(SystemTime::now()), Ok(()));
        let peer = certificate(&peers, &old_pem);
        assert_eq!(peer.check(SystemTime::now()), Ok(()), "the peers' authority is the old one");

        std::fs::write(&files.client_ca_file, [first_pem, second_pem].concat()).expect("written");
        assert_eq!(tls.reload(), Ok(true));
        for certificate in [&old, &new] {
            assert_eq!(certificate.check(SystemTime::now()), Ok(()), "a bundle of both");
        }
    }

    #[test]
    fn an_expired_certificate_is_refused_and_without_tls_no_certificate_is_checked() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tls, _) = load(dir.path());
        let ca = Ca::load(dir.path()).expect("the CA");
        let listener = tls.client_authorities().0.expect("with TLS");
        let certificate = listener.certificate(&issue(&ca, 60), &[]).expect("readable");
        let now = SystemTime::now();
        assert_eq!(certificate.check(now + Duration::from_secs(61)), Err(NoIdentity::Expired));
        assert!(certificate.expires().is_some_and(|end| end > now));
        assert!(listener.certificate(b"nonsense", &[]).is_err());
        assert_eq!(ConnectionCertificate::default().check(now + Duration::from_secs(1 << 32)), Ok(()));
        assert!(Tls::load(None, "c").expect("no TLS").client_authorities().0.is_none());
    }

    /// A resumed session sends only the certificate, without the intermediate that signed it.
    #[test]
    fn a_chain_that_was_sent_once_is_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tls, _) = load(dir.path());
        let listener = tls.client_authorities().0.expect("with TLS");
        let ca = Ca::load(dir.path()).expect("the CA");
        let pem = issue(&ca, 60);
        let chain = std::fs::read(dir.path().join("ca.pem")).expect("read");
        let alone = listener.certificate(&pem, &[]).expect("readable");
        let whole = listener.certificate(&pem, &chain).expect("readable");
        let again = listener.certificate(&pem, &[]).expect("readable");
        let chain_of = |certificate: &ConnectionCertificate| certificate.0.as_ref().map(|(_, seen)| seen.chain.len());
        assert_eq!([alone, whole, again].map(|s| chain_of(&s)), [Some(0), Some(1), Some(1)]);
        for n in 0..CERTIFICATES_REMEMBERED_MAX * 2 {
            // Text before the certificate changes the bytes, but not the certificate.
            listener.certificate(&[format!("{n}\n").as_bytes(), &pem].concat(), &[]).expect("readable");
            assert!(lock(&listener.seen).len() <= CERTIFICATES_REMEMBERED_MAX);
        }
    }

    /// Returns an authority with this name and key, signed by itself or by another one.
    fn authority(name: &str, key: &PKey<Private>, by: Option<(&X509, &PKey<Private>)>) -> X509 {
        let make = || -> Result<X509, ErrorStack> {
            let mut names = X509Name::builder()?;
            names.append_entry_by_text("CN", name)?;
            let subject = names.build();
            let mut serial = BigNum::new()?;
            serial.rand(64, MsbOption::MAYBE_ZERO, false)?;
            let mut builder = X509::builder()?;
            builder.set_version(2)?;
            builder.set_serial_number(&*serial.to_asn1_integer()?)?;
            builder.set_subject_name(&subject)?;
            builder.set_issuer_name(by.map_or(&*subject, |(issuer, _)| issuer.subject_name()))?;
            builder.set_pubkey(key)?;
            builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
            builder.set_not_after(&*Asn1Time::days_from_now(1)?)?;
            builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
            let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
            builder.append_extension(key_id)?;
            builder.sign(by.map_or(key, |(_, key)| key), MessageDigest::sha256())?;
            Ok(builder.build())
        };
        make().expect("an authority")
    }

    /// An intermediate authority moves from one root to another. It keeps its key and the certificates that it has
    /// issued. The first chain of a certificate was used forever, so a connection with the new chain was refused.
    #[test]
    fn a_certificate_is_verified_by_the_chain_that_was_sent_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tls, files) = load(dir.path());
        let listener = tls.client_authorities().0.expect("with TLS");
        let new_key = || {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
            PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
        };
        let keys = [new_key(), new_key()];
        let roots = [("a", &keys[0]), ("b", &keys[1])].map(|(name, key)| authority(name, key, None));
        let between_key = new_key();
        let between = [0, 1].map(|n| {
            let cert = authority("between", &between_key, Some((&roots[n], &keys[n])));
            cert.to_pem().expect("PEM")
        });
        let issuer = tempfile::tempdir().expect("a directory");
        std::fs::write(issuer.path().join("ca.pem"), &between[0]).expect("written");
        let key_pem = between_key.private_key_to_pem_pkcs8().expect("PEM");
        std::fs::write(issuer.path().join("ca-key.pem"), key_pem).expect("written");
        let leaf = issue(&Ca::load(issuer.path()).expect("the CA"), 60);
        for n in [0, 1, 0] {
            std::fs::write(&files.client_ca_file, roots[n].to_pem().expect("PEM")).expect("written");
            assert_eq!(tls.reload(), Ok(true));
            let certificate = listener.certificate(&leaf, &between[n]).expect("readable");
            assert_eq!(certificate.check(SystemTime::now()), Ok(()), "with root {n}");
        }
    }
}
