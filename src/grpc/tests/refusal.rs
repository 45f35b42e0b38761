//! Tests which certificates are accepted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use parking_lot::Mutex;

use super::*;

/// A logger that keeps all lines. No other unit test sets a logger.
struct Captured(Mutex<Vec<String>>);

static CAPTURED: Captured = Captured(Mutex::new(Vec::new()));

impl ::log::Log for Captured {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        metadata.target() == log::TARGET
    }

    fn log(&self, record: &::log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn rejects_foreign_expired_and_missing_certificates_and_logs_why() {
    ::log::set_logger(&CAPTURED).expect("no other logger");
    ::log::set_max_level(::log::LevelFilter::Info);
    redirect_log();
    let certs = Certs::new();
    let listener = Listener::start(&certs.tls(), Side::Clients);
    assert_eq!(listener.ask(certs.client("client-root")), Ok("root".to_owned()));

    let foreign = Ca::create("another").expect("a CA");
    let own_ca = || grpcio::ChannelCredentialsBuilder::new().root_cert(certs.ca.cert_pem().expect("PEM"));
    let cases = [
        (
            certs.unchecked(&foreign, &["root"], Usage::Client, 60),
            "has expired, is not valid yet (check this clock), or is not for this use",
        ),
        (
            certs.unchecked(&certs.ca, &["root"], Usage::Client, -60),
            "has expired, is not valid yet (check this clock), or is not for this use",
        ),
        (own_ca().build(), "peer did not return a certificate"),
        // A server certificate is not valid for a client.
        (
            certs.unchecked(&certs.ca, &["root"], Usage::Server, 60),
            "has expired, is not valid yet (check this clock), or is not for this use",
        ),
        (ChannelCredentials::insecure(), "wrong version number"),
    ];
    for (creds, reason) in cases {
        CAPTURED.0.lock().clear();
        let refused = listener.ask(creds);
        assert!(matches!(refused, Err((RpcStatusCode::UNAVAILABLE, _))), "{reason}: {refused:?}");
        let lines = CAPTURED.0.lock().join("\n");
        assert!(lines.contains(reason), "{reason}: {lines}");
    }
    // An operator could not find out which host had failed to connect.
    CAPTURED.0.lock().clear();
    let mut stray = TcpStream::connect(("127.0.0.1", listener.port)).expect("connected");
    stray.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    while stray.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
    let lines = CAPTURED.0.lock().join("\n");
    let addr = stray.local_addr().expect("an address");
    assert!(lines.contains("the connection is ") && lines.contains(&format!("{addr} to ")), "{addr}: {lines}");
}

#[test]
fn an_unusable_name_is_reported_to_the_handler() {
    let certs = Certs::new();
    let listener = Listener::start(&certs.tls(), Side::Clients);
    let named = |names: &[&str]| listener.ask(certs.unchecked(&certs.ca, names, Usage::Client, 60)).expect("an answer");
    assert_eq!(named(&["anybody"]), "anybody");
    assert!(named(&[]).contains("no common name"));
    assert!(named(&["root", "nobody"]).contains("more than one common name"));
    assert!(named(&["nobody", "root"]).contains("more than one common name"));
    assert!(named(&["role:admin"]).contains("can't be the name of a caller"));
    assert!(named(&["*"]).contains("can't be the name of a caller"));
}

#[test]
fn every_client_is_anonymous_without_tls() {
    let tls = Tls::load(None, "c").expect("no TLS");
    let peers = Listener::start(&tls, Side::Peers);
    assert_eq!(peers.ask(ChannelCredentials::insecure()), Ok("anonymous".to_owned()));
    assert_eq!(
        ask(&peer_channel(peers.env.get(), &peers.addr(), tls.peer_channel(), MEMBER), b""),
        Ok("anonymous".to_owned())
    );
    let certs = Certs::new();
    let refused = peers.ask(certs.client("client-root"));
    assert!(matches!(refused, Err((RpcStatusCode::UNAVAILABLE, _))), "{refused:?}");
}

#[test]
fn a_client_is_not_a_peer() {
    let certs = Certs::new();
    let tls = certs.tls();
    let listener = Listener::start(&tls, Side::Peers);
    let dial = |creds| ask(&peer_channel(listener.env.get(), &listener.addr(), creds, MEMBER), b"");
    assert_eq!(dial(tls.peer_channel()), Ok("peer".to_owned()));
    let client = dial(certs.client("client-root")).expect("an answer");
    assert!(client.contains("lacks the subject alternative name <node name>.peer.c.seriatim.internal"), "{client}");
    // A certificate for both usages, but for another cluster.
    let request = Request {
        common_names: vec!["peer".to_owned()],
        hosts: vec!["peer.other.seriatim.internal".to_owned()],
        usage: Usage::Peer,
        lifetime_seconds: 60,
    };
    certs.ca.issue_files(&request, certs.dir.path(), "other").expect("a certificate");
    assert!(dial(certs.client("other")).expect("an answer").contains("is not a peer's"));
}

#[test]
fn a_channel_rejects_an_impostor_of_a_peer() {
    let certs = Certs::new();
    let tls = certs.tls();
    // The node's own server certificate is valid and issued by the right CA, but is not a peer certificate of this
    // cluster. The same applies to the certificate of another cluster's peer.
    let server = Listener::start(&tls, Side::Clients);
    let refused = ask(&peer_channel(server.env.get(), &server.addr(), tls.peer_channel(), MEMBER), b"");
    assert!(matches!(refused, Err((RpcStatusCode::UNAVAILABLE, _))), "{refused:?}");
    let peers = Listener::start(&tls, Side::Peers);
    let refused =
        ask(&peer_channel(peers.env.get(), &peers.addr(), tls.peer_channel(), "member.d.seriatim.internal"), b"");
    assert!(matches!(refused, Err((RpcStatusCode::UNAVAILABLE, _))), "{refused:?}");
}

#[test]
fn a_client_checks_the_name_that_it_dialled() {
    let certs = Certs::new();
    let listener = Listener::start(&certs.tls(), Side::Clients);
    let dial =
        |addr: &str, name| ask(&client_channel(listener.env.get(), addr, certs.client("client-root"), name), b"");
    assert!(dial(&listener.addr(), None).is_err(), "127.0.0.1 is not in the certificate");
    assert_eq!(dial(&format!("localhost:{}", listener.port), None), Ok("root".to_owned()));
    assert!(dial(&listener.addr(), Some("another.example")).is_err());
}

#[test]
fn rejects_versions_before_tls_1_2() {
    let certs = Certs::new();
    let listener = Listener::start(&certs.tls(), Side::Clients);
    let handshake = |version: SslVersion| {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
        // The client's OpenSSL must allow it, so that only the listener can reject it.
        builder.set_cipher_list("ALL:@SECLEVEL=0").expect("ciphers");
        builder.set_min_proto_version(Some(version)).expect("a version");
        builder.set_max_proto_version(Some(version)).expect("a version");
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_alpn_protos(b"\x02h2").expect("h2");
        builder.set_certificate_file(certs.path("client-root.pem"), SslFiletype::PEM).expect("a certificate");
        builder.set_private_key_file(certs.path("client-root-key.pem"), SslFiletype::PEM).expect("a key");
        let stream = TcpStream::connect(listener.addr()).expect("a connection");
        builder.build().connect("localhost", stream).map(|s| s.ssl().version_str()).map_err(|e| e.to_string())
    };
    assert!(handshake(SslVersion::TLS1).is_err());
    let tls_1_1 = handshake(SslVersion::TLS1_1).expect_err("refused");
    assert!(tls_1_1.contains("EOF"), "the listener hangs up: {tls_1_1}");
    assert_eq!(handshake(SslVersion::TLS1_2), Ok("TLSv1.2"));
    assert_eq!(handshake(SslVersion::TLS1_3), Ok("TLSv1.3"));
}

#[test]
fn new_connections_get_reloaded_certificates() {
    let certs = Certs::new();
    let tls = certs.tls();
    let listener = Listener::start(&tls, Side::Clients);
    let old_client =
        client_channel(listener.env.get(), &listener.addr(), certs.client("client-root"), Some("localhost"));
    assert_eq!(ask(&old_client, b""), Ok("root".to_owned()));
    // All files are replaced, with certificates of another CA.
    let new = Certs::new();
    for file in ["ca.pem", "server.pem", "server-key.pem", "n1/peer.pem", "n1/peer-key.pem"] {
        std::fs::copy(new.path(file), certs.path(file)).expect("copied");
    }
    assert!(listener.ask(new.client("client-root")).is_err(), "the files are not reloaded yet");
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(listener.ask(new.client("client-root")), Ok("root".to_owned()));
    let old = certs.unchecked(&certs.ca, &["root"], Usage::Client, 60);
    assert!(listener.ask(old).is_err(), "the old CA is no longer trusted");
    assert_eq!(ask(&old_client, b""), Ok("root".to_owned()), "open connections stay");
}
