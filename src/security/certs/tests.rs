//! Tests of the certificates that `seriatim certs` creates, and of the plans that it refuses.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn plan() -> Plan {
    let plan = Plan::new("seriatim").host("localhost").host("127.0.0.1").host("::1");
    plan.peer("n1").peer("N_2").client("root").client("nobody")
}

fn make_in(out: &Path) -> Result<Vec<PathBuf>, CertsError> {
    make(out, &plan())
}

/// `--use-ca --clients carol` also issued new certificates for servers and peers, with the default hosts. A node at
/// other addresses loaded them, and every client refused it.
#[test]
fn makes_all_certificates_and_keeps_an_existing_authority() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("certs");
    let made = make_in(&out).expect("certificates");
    let mut names: Vec<_> = made.iter().map(|f| f.strip_prefix(&out).expect("in it").to_string_lossy()).collect();
    names.sort();
    assert_eq!(
        names.join(" "),
        "N_2/peer-key.pem N_2/peer.pem ca-key.pem ca.pem client-nobody-key.pem client-nobody.pem client-root-key.pem \
         client-root.pem n1/peer-key.pem n1/peer.pem server-key.pem server.pem"
    );
    for file in &made {
        let mode = fs::metadata(file).expect("a file").permissions().mode() & 0o777;
        let key = file.to_string_lossy().ends_with("-key.pem");
        assert!(if key { mode == 0o600 } else { mode & 0o022 == 0 }, "{file:?} {mode:o}");
    }
    let server = X509::from_pem(&fs::read(out.join("server.pem")).expect("a certificate")).expect("PEM");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
    let yesterday = Asn1Time::from_unix(now - DAY_SECONDS - 3600).expect("a time");
    assert!(server.not_before() < yesterday, "a node whose clock is a day slow accepts it");
    let ca = fs::read(out.join("ca.pem")).expect("the CA");
    assert_eq!(make_in(&out), Err(CertsError::CaExists(out.join("ca.pem"))));
    fs::remove_file(out.join("ca.pem")).expect("removed");
    assert_eq!(make_in(&out), Err(CertsError::CaExists(out.join("ca-key.pem"))));
    fs::write(out.join("ca.pem"), &ca).expect("written");
    let server = fs::read(out.join("server.pem")).expect("a certificate");
    let none = Plan::new("seriatim");
    let more = renew(&out, &none.clone().client("carol")).expect("more");
    assert_eq!(more, [out.join("client-carol.pem"), out.join("client-carol-key.pem")]);
    let more = renew(&out, &none.clone().peer("n4")).expect("more");
    assert_eq!(more, [out.join("n4/peer.pem"), out.join("n4/peer-key.pem")]);
    assert_eq!(fs::read(out.join("server.pem")).expect("a certificate"), server);
    let renewed = renew(&out, &none.clone().host("localhost")).expect("renewed");
    assert_eq!(renewed, [out.join("server.pem"), out.join("server-key.pem")]);
    assert_ne!(fs::read(out.join("server.pem")).expect("a certificate"), server);
    assert!(matches!(renew(&out, &none), Err(CertsError::BadPlan(_))));
    assert_eq!(fs::read(out.join("ca.pem")).expect("the CA"), ca);
}

#[test]
fn certificates_contain_their_usage() {
    let dir = tempfile::tempdir().expect("a directory");
    make_in(dir.path()).expect("certificates");
    let text = |file: &str| {
        let cert = X509::from_pem(&fs::read(dir.path().join(file)).expect("a file")).expect("a certificate");
        String::from_utf8(cert.to_text().expect("text")).expect("UTF-8")
    };
    let (server, peer, client) = (text("server.pem"), text("N_2/peer.pem"), text("client-root.pem"));
    assert!(server.contains("DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1"), "{server}");
    assert!(server.contains("TLS Web Server") && !server.contains("TLS Web Client"));
    assert!(
        peer.contains("DNS:_n__2.peer.seriatim.seriatim.internal, DNS:member.seriatim.seriatim.internal"),
        "{peer}"
    );
    assert!(!peer.contains("DNS:peer."), "it is not a shared certificate: {peer}");
    assert!(peer.contains("TLS Web Server") && peer.contains("TLS Web Client"));
    assert!(client.contains("CN = root") || client.contains("CN=root"));
    assert!(!client.contains("TLS Web Server") && client.contains("TLS Web Client"));
}

/// `foo.SERIATIM.INTERNAL` was accepted as the name of a client, although TLS ignores case.
#[test]
fn refuses_unusable_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("certs");
    let refuses = |plan: Plan| {
        let error = make(&out, &plan).expect_err("refused");
        assert!(matches!(error, CertsError::BadPlan(_)), "{plan:?}: {error}");
    };
    let plan = || Plan::new("seriatim").host("localhost");
    let clients = ["role:admin", "a b", "", "*", "../x", "root-key", "peer.seriatim.seriatim.internal"];
    for bad in clients.into_iter().chain(["foo.SERIATIM.INTERNAL", "Seriatim.Internal", "foo.seriatim.internal."]) {
        refuses(plan().client(bad));
    }
    for bad in ["", "a b", "localhost:8400", "http://a", "a..b", ".a", "*", "n1.peer.c.Seriatim.Internal"] {
        refuses(plan().host(bad));
    }
    for bad in ["", "-a", "a b", "a..b", "a.", "n1+", "ä", &"N".repeat(32), &"n".repeat(64)] {
        refuses(plan().peer(bad));
    }
    refuses(Plan { cluster_name: "not a name".into(), ..plan() });
    refuses(Plan::new("seriatim").client("root"));
    assert!(!out.exists());
}
