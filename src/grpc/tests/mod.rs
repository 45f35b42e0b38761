//! Tests the effect of each option on a real listener, and which certificates the two listeners accept.

mod options;
mod refusal;

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::Receiver;
use grpcio::{
    CallOption, Channel, ChannelBuilder, ChannelCredentials, Client, Marshaller, Method, MethodType, RpcStatusCode,
    Server, ServiceBuilder,
};

use super::*;
use crate::security::certs::{Ca, Plan, Request, Usage, make};
use crate::security::identity::Identities;
use crate::security::tls::{Tls, client_credentials};
use crate::thread::{Fatal, fatal_channel};

const RAW: Marshaller<Vec<u8>> = Marshaller {
    ser: |bytes, out| {
        *out = bytes.clone().into();
        Ok(())
    },
    de: |mut reader| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).map_err(|e| grpcio::Error::Codec(e.into()))?;
        Ok(bytes)
    },
};

/// A method that returns the client's name, or the reason why it has none. It panics on request.
const WHO: Method<Vec<u8>, Vec<u8>> =
    Method { ty: MethodType::Unary, name: "/test.Test/Who", req_mar: RAW, resp_mar: RAW };

/// The name that the certificate of every peer of cluster "c" contains.
const MEMBER: &str = "member.c.seriatim.internal";

enum Side {
    Clients,
    Peers,
}

/// A listener with one method on a free port. The fields are dropped in this order, the threads last.
struct Listener {
    server: Server,
    port: u16,
    fatal: Receiver<Fatal>,
    env: Env,
}

impl Listener {
    fn start(tls: &Tls, side: Side) -> Listener {
        let (sender, fatal) = fatal_channel();
        let env = Env::start("grpc-test", 1, &sender);
        let identities = Identities::new("c", tls.is_insecure());
        let peers = matches!(side, Side::Peers);
        let service = ServiceBuilder::new()
            .add_unary_handler(&WHO, move |ctx, request, sink| {
                let who = if peers { identities.peer(&ctx).map(|p| p.identity) } else { identities.client(&ctx) };
                let answer = who.map_or_else(|e| e.to_string(), |i| i.principal.to_string());
                let finish = async move {
                    assert_ne!(request, b"panic", "told to");
                    let _ = sink.success(answer.into_bytes()).await;
                };
                spawn_guarded(&ctx, &sender, finish);
            })
            .build();
        let builder = if peers { peer_listener(&env, 256 << 20) } else { client_listener(&env, 256 << 20) };
        let mut server = builder.register_service(service).build().expect("a server");
        let creds = if peers { tls.peer_listener() } else { tls.client_listener() };
        let port = server.add_listening_port("127.0.0.1:0", creds).expect("a port");
        server.start();
        Listener { server, port, fatal, env }
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends a request as a client with these credentials, which expects the server name `localhost`.
    fn ask(&self, creds: ChannelCredentials) -> Result<String, (RpcStatusCode, String)> {
        ask(&client_channel(self.env.get(), &self.addr(), creds, Some("localhost")), b"")
    }
}

fn ask(channel: &Channel, request: &[u8]) -> Result<String, (RpcStatusCode, String)> {
    let client = Client::new(channel.clone());
    let option = CallOption::default().timeout(Duration::from_secs(5));
    match client.unary_call(&WHO, &request.to_vec(), option) {
        Ok(answer) => Ok(String::from_utf8(answer).expect("UTF-8")),
        Err(grpcio::Error::RpcFailure(status)) => Err((status.code(), status.message().to_owned())),
        Err(other) => panic!("{other}"),
    }
}

/// The certificates of cluster "c", and the other ones that tests use.
struct Certs {
    dir: tempfile::TempDir,
    ca: Ca,
}

impl Certs {
    fn new() -> Certs {
        let dir = tempfile::tempdir().expect("a directory");
        make(dir.path(), &Plan::new("c").host("localhost").peer("n1").client("root")).expect("certificates");
        let ca = Ca::load(dir.path()).expect("the CA");
        Certs { dir, ca }
    }

    fn tls(&self) -> Tls {
        Tls::load(Some(&crate::config::TlsFiles::in_dir(self.dir.path(), "n1")), "c").expect("TLS")
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn client(&self, stem: &str) -> ChannelCredentials {
        let (cert, key) = (self.path(&format!("{stem}.pem")), self.path(&format!("{stem}-key.pem")));
        client_credentials(&self.path("ca.pem"), &cert, &key).expect("credentials")
    }

    /// Returns credentials with any certificate; the client does not check it.
    fn unchecked(&self, ca: &Ca, common_names: &[&str], usage: Usage, lifetime_seconds: i64) -> ChannelCredentials {
        let request = Request {
            common_names: common_names.iter().map(|n| (*n).to_owned()).collect(),
            hosts: Vec::new(),
            usage,
            lifetime_seconds,
        };
        let issued = ca.issue(&request).expect("a certificate");
        let own_ca = self.ca.cert_pem().expect("PEM");
        grpcio::ChannelCredentialsBuilder::new().root_cert(own_ca).cert(issued.cert_pem, issued.key_pem).build()
    }
}
