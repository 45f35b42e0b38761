//! Tests of the refusals when files are loaded. `grpc/tests/` tests refusals on real connections.

use std::fs;
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::x509::X509;

use super::live::DAY_SECONDS;
use super::verify::names;
use super::*;
use crate::security::certs::{Ca, Plan, Request, Usage, make};
use crate::security::peer_names::peer_san;

fn certs(dir: &Path) -> TlsFiles {
    make(dir, &Plan::new("c").host("localhost").peer("n1")).expect("certificates");
    TlsFiles::in_dir(dir, "n1")
}

fn refused(files: &TlsFiles) -> TlsError {
    Tls::load(Some(files), "c").expect_err("refused")
}

fn issue(ca: &Ca, dir: &Path, stem: &str, san: &str, usage: Usage, lifetime_seconds: i64) {
    let request =
        Request { common_names: vec!["peer".to_owned()], hosts: vec![san.to_owned()], usage, lifetime_seconds };
    ca.issue_files(&request, dir, stem).expect("a certificate");
}

#[test]
fn unusable_files_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = certs(dir.path());
    let path = |name: &str| dir.path().join(name);
    assert!(Tls::load(Some(&good), "c").expect("TLS").expires().is_some());

    let expected = "<node name>.peer.other.seriatim.internal".to_owned();
    let other_cluster = Tls::load(Some(&good), "other").expect_err("another cluster");
    let found = "n1.peer.c.seriatim.internal, member.c.seriatim.internal".to_owned();
    let lacks = TlsError::NoPeerName { cert: path("n1/peer.pem"), expected, found };
    assert_eq!(other_cluster, lacks);
    let text = lacks.to_string();
    assert!(text.contains("Correct node_name and cluster_name, or issue a certificate"), "{text}");

    let files = TlsFiles { server_key_file: path("none"), ..good.clone() };
    assert!(matches!(refused(&files), TlsError::Unreadable { file, .. } if file == path("none")));
    let files = TlsFiles { server_key_file: path("n1/peer-key.pem"), ..good.clone() };
    let mismatch = TlsError::KeyMismatch { key: path("n1/peer-key.pem"), cert: path("server.pem") };
    assert_eq!(refused(&files), mismatch);
    let files = TlsFiles { server_key_file: path("ca.pem"), ..good.clone() };
    assert_eq!(refused(&files), TlsError::NoKey(path("ca.pem")));
    let files = TlsFiles { client_ca_file: path("ca-key.pem"), ..good.clone() };
    assert_eq!(refused(&files), TlsError::NoCertificate(path("ca-key.pem")));

    let mut with_nul = fs::read(path("server.pem")).expect("a file");
    with_nul.push(0);
    fs::write(path("nul.pem"), with_nul).expect("written");
    let files = TlsFiles { server_cert_file: path("nul.pem"), ..good.clone() };
    assert!(matches!(refused(&files), TlsError::Unreadable { file, .. } if file == path("nul.pem")));

    let key = PKey::private_key_from_pem(&fs::read(path("server-key.pem")).expect("a file")).expect("a key");
    let locked = key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret");
    fs::write(path("locked.pem"), locked.expect("a key")).expect("written");
    let files = TlsFiles { server_key_file: path("locked.pem"), ..good.clone() };
    assert_eq!(refused(&files), TlsError::NoKey(path("locked.pem")));
}

#[test]
fn refuses_certificates_that_peers_would_refuse() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = certs(dir.path());
    let ca = Ca::load(dir.path()).expect("the CA");
    let with = |stem: &str| {
        let cert = dir.path().join(format!("{stem}.pem"));
        let key = dir.path().join(format!("{stem}-key.pem"));
        TlsFiles { peer_cert_file: cert, peer_key_file: key, ..good.clone() }
    };
    let san = peer_san("c");
    issue(&ca, dir.path(), "expired", &san, Usage::Peer, -60);
    assert!(
        matches!(refused(&with("expired")), TlsError::Expired { file, .. } if file == dir.path().join("expired.pem"))
    );
    issue(&ca, dir.path(), "client", &san, Usage::Client, 60);
    assert!(matches!(refused(&with("client")), TlsError::NotOfCa { .. }));
    issue(&ca, dir.path(), "server-only", &san, Usage::Server, 60);
    assert!(matches!(refused(&with("server-only")), TlsError::NotOfCa { .. }));
    issue(&Ca::create("another").expect("a CA"), dir.path(), "foreign", &san, Usage::Peer, 60);
    assert!(matches!(refused(&with("foreign")), TlsError::NotOfCa { .. }));
    issue(&ca, dir.path(), "fine", &san, Usage::Peer, 60);
    assert!(Tls::load(Some(&with("fine")), "c").is_ok());
}

/// All peers would refuse a node with the certificate of another node.
#[test]
fn refuses_a_peer_certificate_that_names_another_node() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = certs(dir.path());
    let node = |name: &str| NodeName::new(name).expect("a name");
    assert!(Tls::load_for(Some(&good), "c", Some(&node("n1"))).is_ok());
    let lacks = |files: &TlsFiles, name: &str| match Tls::load_for(Some(files), "c", Some(&node(name))) {
        Err(TlsError::NoPeerName { expected, .. }) => expected,
        other => panic!("{other:?}"),
    };
    assert_eq!(lacks(&good, "N1"), "_n1.peer.c.seriatim.internal");
    let ca = Ca::load(dir.path()).expect("the CA");
    issue(&ca, dir.path(), "half", "n1.peer.c.seriatim.internal", Usage::Peer, 60);
    let path = |name: &str| dir.path().join(name);
    let half = TlsFiles { peer_cert_file: path("half.pem"), peer_key_file: path("half-key.pem"), ..good };
    assert_eq!(lacks(&half, "n1"), "member.c.seriatim.internal", "joining nodes could not dial it");
}

/// A client certificate was accepted as the server certificate. The node reported "ready", but no client could connect.
#[test]
fn refuses_a_certificate_that_clients_would_refuse() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = certs(dir.path());
    let ca = Ca::load(dir.path()).expect("the CA");
    let load = |ca: &Ca, usage: Usage| {
        issue(ca, dir.path(), "server", "localhost", usage, 60);
        Tls::load(Some(&good), "c").map(|_| ())
    };
    let Err(TlsError::NotAServers { cert, error }) = load(&ca, Usage::Client) else { panic!("taken") };
    assert_eq!(cert, dir.path().join("server.pem"));
    assert!(!error.is_empty());
    assert_eq!(load(&ca, Usage::Peer), Ok(()), "it is valid for a server, too");
    assert_eq!(
        load(&Ca::create("another").expect("a CA"), Usage::Server),
        Ok(()),
        "only clients check which authority signed it"
    );
}

#[test]
fn hosts_are_compared_with_the_names_of_a_certificate() {
    let request = Request {
        common_names: vec!["server".to_owned()],
        hosts: ["node-1.example", "*.seriatim.example", "192.0.2.1", "::1"].map(str::to_owned).to_vec(),
        usage: Usage::Server,
        lifetime_seconds: 60,
    };
    let issued = Ca::create("x").and_then(|ca| ca.issue(&request)).expect("a certificate");
    let cert = X509::from_pem(&issued.cert_pem).expect("a certificate");
    for host in ["node-1.example", "Node-1.Example", "a.seriatim.example", "192.0.2.1", "::1", "0::1"] {
        assert!(names(&cert, host), "{host}");
    }
    for host in ["server", "example", "seriatim.example", "a.b.seriatim.example", "192.0.2.2", "::2", ""] {
        assert!(!names(&cert, host), "{host}");
    }
}

#[test]
fn a_reload_loads_all_files_or_keeps_the_last_good_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = certs(dir.path());
    let tls = Tls::load(Some(&files), "c").expect("TLS");
    assert_eq!((tls.reload(), tls.generation()), (Ok(false), 1));
    let ca = Ca::load(dir.path()).expect("the CA");
    issue(&ca, dir.path(), "server", "localhost", Usage::Server, 60);
    let key = fs::read(&files.server_key_file).expect("a key");
    fs::copy(&files.peer_key_file, &files.server_key_file).expect("copied");
    assert!(matches!(tls.reload(), Err(TlsError::KeyMismatch { .. })));
    assert_eq!(tls.generation(), 1);
    fs::write(&files.server_key_file, key).expect("written");
    assert_eq!((tls.clone().reload(), tls.generation()), (Ok(true), 2));
    let left = tls.expires().expect("TLS").duration_since(SystemTime::now()).expect("not ended");
    assert!(left.as_secs() <= 60, "{left:?}");
    let without = Tls::load(None, "c").expect("no TLS");
    assert!(without.is_insecure() && without.reload() == Ok(false) && without.expires().is_none());
}

#[test]
fn a_bundle_may_contain_an_expired_authority() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = certs(dir.path());
    let ca = Ca::load(dir.path()).expect("the CA");
    issue(&ca, dir.path(), "ended", "x", Usage::Server, -60);
    let ended = fs::read(dir.path().join("ended.pem")).expect("a file");
    let both = [ended.clone(), fs::read(&files.peer_ca_file).expect("a file")].concat();
    fs::write(dir.path().join("both.pem"), both).expect("written");
    let bundle = TlsFiles { client_ca_file: dir.path().join("both.pem"), ..files.clone() };
    assert!(Tls::load(Some(&bundle), "c").is_ok());
    let alone = TlsFiles { client_ca_file: dir.path().join("ended.pem"), ..files };
    assert!(matches!(refused(&alone), TlsError::Expired { .. }));
}

/// There was no warning about a certificate that expired within a week, or about a key that gRPC's own clients can't
/// use.
#[test]
fn warns_of_certificates_that_expire_soon_or_do_not_work_for_all_clients() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = certs(dir.path());
    let shared = |files: &TlsFiles| Tls::load(Some(files), "c").expect("TLS").0.expect("with TLS");
    let fresh = shared(&good);
    let now = SystemTime::now();
    assert_eq!(fresh.warn(true, now), Vec::<String>::new());

    let ca = Ca::load(dir.path()).expect("the CA");
    let week = 7 * 24 * 60 * 60 + 60;
    issue(&ca, dir.path(), "short", "localhost", Usage::Server, week);
    let path = |name: &str| dir.path().join(name);
    let files =
        TlsFiles { server_cert_file: path("short.pem"), server_key_file: path("short-key.pem"), ..good.clone() };
    let short = shared(&files);
    // The load has already logged the warning.
    let warned_at = short.warned_at.load(Ordering::Relaxed);
    assert!(warned_at > 0);
    assert_eq!(short.warn(false, now), Vec::<String>::new(), "once a day");
    let tomorrow = SystemTime::UNIX_EPOCH + Duration::from_secs(warned_at + DAY_SECONDS);
    let warnings = short.warn(false, tomorrow);
    assert!(warnings.len() == 1 && warnings[0].contains("short.pem expires in 6 days"), "{warnings:?}");

    let key = PKey::generate_ed25519().expect("a key");
    let mut cert = openssl::x509::X509Builder::new().expect("a builder");
    cert.set_pubkey(&key).expect("set");
    let begin = openssl::asn1::Asn1Time::days_from_now(0).expect("a time");
    let end = openssl::asn1::Asn1Time::days_from_now(100).expect("a time");
    cert.set_not_before(&begin).and_then(|()| cert.set_not_after(&end)).expect("set");
    cert.sign(&key, openssl::hash::MessageDigest::null()).expect("signed");
    fs::write(path("ed.pem"), cert.build().to_pem().expect("PEM")).expect("written");
    fs::write(path("ed-key.pem"), key.private_key_to_pem_pkcs8().expect("PEM")).expect("written");
    let files = TlsFiles { server_cert_file: path("ed.pem"), server_key_file: path("ed-key.pem"), ..good };
    let warnings = shared(&files).warn(true, now);
    assert!(warnings.len() == 1 && warnings[0].contains("ed.pem has an Ed25519"), "{warnings:?}");
}
