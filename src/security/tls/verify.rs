//! The checks of a certificate by OpenSSL: whether it is valid now, whether a party that trusts these authorities
//! would accept it, and which hosts it names.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509PurposeId, X509StoreContext};

use super::super::identity::system_time;
use super::error::TlsError;

pub(super) fn check_time(cert: &X509, file: &Path) -> Result<(), TlsError> {
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

/// Returns why a party that trusts `ca` would refuse the first of `certs` for this purpose. The other certificates
/// are its chain.
pub(super) fn refused(ca: &[X509], certs: &[X509], purpose: X509PurposeId) -> Option<String> {
    store(ca, purpose).map_or_else(|e| Some(e.to_string()), |store| refused_by(&store, certs))
}

pub(super) fn store(ca: &[X509], purpose: X509PurposeId) -> Result<X509Store, ErrorStack> {
    store_builder(ca, purpose).map(X509StoreBuilder::build)
}

pub(super) fn store_builder(ca: &[X509], purpose: X509PurposeId) -> Result<X509StoreBuilder, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?; // as gRPC does
    for cert in ca {
        store.add_cert(cert.clone())?;
    }
    store.set_purpose(purpose)?;
    Ok(store)
}

pub(super) fn refused_by(store: &X509Store, certs: &[X509]) -> Option<String> {
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

/// Returns true if the subject alternative names of `cert` contain this host, which is an IP address or a name.
pub(super) fn names(cert: &X509, host: &str) -> bool {
    let ip = host.parse::<IpAddr>().ok().map(|ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    });
    let is_host = |name: &str| {
        let parent = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_ascii_lowercase());
        name.eq_ignore_ascii_case(host) || (name.starts_with("*.") && parent(name) == parent(host))
    };
    cert.subject_alt_names().iter().flatten().any(|name| match &ip {
        Some(ip) => name.ipaddress() == Some(ip),
        None => name.dnsname().is_some_and(is_host),
    })
}
