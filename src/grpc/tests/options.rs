//! Tests the effects of the options.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use grpcio::{CompressionAlgorithms, MetadataBuilder};

use super::*;

fn insecure() -> Listener {
    Listener::start(&Tls::load(None, "c").expect("no TLS"), Side::Clients)
}

fn dial(listener: &Listener) -> Channel {
    client_channel(listener.env.get(), &listener.addr(), ChannelCredentials::insecure(), None)
}

#[test]
fn rejects_a_port_in_use() {
    let first = insecure();
    let mut second = client_listener(&first.env, 256 << 20).build().expect("a server");
    let bound = second.add_listening_port(first.addr(), grpcio::ServerCredentials::insecure());
    assert!(matches!(bound, Err(grpcio::Error::BindFail(_))), "{bound:?}");
}

#[test]
fn rejects_compressed_messages() {
    let listener = insecure();
    let channel = ChannelBuilder::new(listener.env.get())
        .default_compression_algorithm(CompressionAlgorithms::GRPC_COMPRESS_GZIP)
        .connect(&listener.addr());
    let refused = ask(&channel, &vec![0; 1 << 20]);
    assert!(matches!(refused, Err((RpcStatusCode::UNIMPLEMENTED, _))), "{refused:?}");
}

#[test]
fn messages_have_a_limit() {
    let listener = insecure();
    let channel = ChannelBuilder::new(listener.env.get()).connect(&listener.addr());
    assert_eq!(ask(&channel, &vec![0; CLIENT_MESSAGE_BYTES_MAX]), Ok("anonymous".to_owned()));
    let refused = ask(&channel, &vec![0; CLIENT_MESSAGE_BYTES_MAX + 1]);
    assert!(matches!(refused, Err((RpcStatusCode::RESOURCE_EXHAUSTED, _))), "{refused:?}");
    // This crate's channel does not even send it.
    let refused = ask(&dial(&listener), &vec![0; CLIENT_MESSAGE_BYTES_MAX + 1]);
    assert!(matches!(refused, Err((RpcStatusCode::RESOURCE_EXHAUSTED, _))), "{refused:?}");
}

#[test]
fn metadata_has_a_limit() {
    let listener = insecure();
    let channel = dial(&listener);
    let with = |bytes: usize| {
        let mut metadata = MetadataBuilder::with_capacity(1);
        metadata.add_str("x", &"x".repeat(bytes)).expect("metadata");
        let option = CallOption::default().headers(metadata.build()).timeout(Duration::from_secs(5));
        Client::new(channel.clone()).unary_call(&WHO, &Vec::new(), option)
    };
    assert!(with(4 << 10).is_ok());
    assert!(
        matches!(with(20 << 10), Err(grpcio::Error::RpcFailure(s)) if s.code() == RpcStatusCode::RESOURCE_EXHAUSTED)
    );
}

/// Returns the settings that the server announces on a new connection: (identifier, value), RFC 9113, section 6.5.
fn settings(listener: &Listener) -> Vec<(u16, u32)> {
    let mut stream = TcpStream::connect(listener.addr()).expect("a connection");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut header = [0; 9];
    stream.read_exact(&mut header).expect("a frame");
    assert_eq!(header[3], 4, "the first frame is SETTINGS");
    let mut body = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
    stream.read_exact(&mut body).expect("a frame");
    let setting = |s: &[u8]| (u16::from_be_bytes([s[0], s[1]]), u32::from_be_bytes([s[2], s[3], s[4], s[5]]));
    body.chunks_exact(6).map(setting).collect()
}

#[test]
fn streams_and_headers_of_a_connection_are_limited() {
    let settings = settings(&insecure());
    assert!(settings.contains(&(3, 1024)), "MAX_CONCURRENT_STREAMS: {settings:?}");
    assert!(settings.contains(&(6, 16 << 10)), "MAX_HEADER_LIST_SIZE: {settings:?}");
}

#[test]
fn a_handshake_times_out_after_ten_seconds() {
    let certs = Certs::new();
    let listener = Listener::start(&certs.tls(), Side::Clients);
    let mut silent = TcpStream::connect(listener.addr()).expect("a connection");
    silent.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let start = Instant::now();
    // The connection may be closed or reset.
    let ended = silent.read(&mut [0; 1]).map_or_else(|e| e.kind() != std::io::ErrorKind::WouldBlock, |n| n == 0);
    assert!(ended && start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn ignores_the_proxy_of_the_environment() {
    // In a separate process, because environment variables are per process. Nothing listens at the proxy's address.
    const PROXY: &str = "http://127.0.0.1:1";
    if std::env::var("http_proxy").as_deref() == Ok(PROXY) {
        let listener = insecure();
        let asks_the_proxy = ChannelBuilder::new(listener.env.get()).connect(&listener.addr());
        assert!(ask(&asks_the_proxy, b"").is_err());
        assert_eq!(ask(&dial(&listener), b""), Ok("anonymous".to_owned()));
        return;
    }
    let test = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "grpc::tests::options::ignores_the_proxy_of_the_environment"])
        .env("http_proxy", PROXY)
        .env_remove("no_proxy")
        .env_remove("no_grpc_proxy")
        .output()
        .expect("a process");
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
}

#[test]
fn a_channel_reconnects_to_a_restarted_server() {
    let mut listener = insecure();
    let (sender, _fatal) = fatal_channel();
    let env = Env::start("grpc-back", 1, &sender);
    let channel = client_channel(env.get(), &listener.addr(), ChannelCredentials::insecure(), None);
    assert!(ask(&channel, b"").is_ok());
    let port = listener.port;
    futures::executor::block_on(listener.server.shutdown()).expect("stopped");
    drop(listener);
    assert!(ask(&channel, b"").is_err());
    let back = insecure_at(port);
    let client = Client::new(channel);
    let option = CallOption::default().wait_for_ready(true).timeout(Duration::from_secs(5));
    let start = Instant::now();
    assert_eq!(client.unary_call(&WHO, &Vec::new(), option).expect("an answer"), b"back");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    drop((client, back));
    assert_eq!(env.stop(), Ok(()));
}

/// Starts a listener on a given port, without TLS.
fn insecure_at(port: u16) -> (Server, Env) {
    let (sender, _fatal) = fatal_channel();
    let env = Env::start("grpc-at", 1, &sender);
    let handler = move |ctx: grpcio::RpcContext<'_>, _: Vec<u8>, sink: grpcio::UnarySink<Vec<u8>>| {
        spawn_guarded(&ctx, &sender, async move {
            let _ = sink.success(b"back".to_vec()).await;
        });
    };
    let service = ServiceBuilder::new().add_unary_handler(&WHO, handler).build();
    let mut server = client_listener(&env, 256 << 20).register_service(service).build().expect("a server");
    server.add_listening_port(format!("127.0.0.1:{port}"), grpcio::ServerCredentials::insecure()).expect("the port");
    server.start();
    (server, env)
}

#[test]
fn a_panic_in_a_handler_is_reported_and_its_thread_continues() {
    let listener = insecure();
    let channel = dial(&listener);
    assert!(ask(&channel, b"panic").is_err());
    let fatal = listener.fatal.recv_timeout(Duration::from_secs(5)).expect("a report");
    assert!(fatal.to_string().contains("told to"), "{fatal}");
    assert_eq!(ask(&channel, b""), Ok("anonymous".to_owned()));
    let (sender, fatal) = fatal_channel();
    assert_eq!(guarded(&sender, || 7), Some(7));
    assert_eq!(guarded(&sender, || -> u8 { panic!("before the future") }), None);
    assert!(fatal.try_recv().expect("a report").to_string().contains("before the future"));
}

#[test]
fn a_thread_that_dies_is_fatal() {
    let (sender, fatal) = fatal_channel();
    let env = Env::start("grpc-dying", 1, &sender);
    let client = Client::new(client_channel(env.get(), "127.0.0.1:1", ChannelCredentials::insecure(), None));
    // It is first polled on this thread, then on a completion-queue thread.
    let (wake, woken) = crate::reply::reply::<()>();
    client.spawn(async {
        let _ = woken.await;
        panic!("nobody guards this");
    });
    wake.send(());
    let fatal = fatal.recv_timeout(Duration::from_secs(5)).expect("a report");
    assert_eq!(fatal.to_string(), "thread grpc-dying failed: a completion-queue thread panicked");
    drop(client);
    assert_eq!(env.stop(), Ok(()));
}

#[test]
fn threads_are_joined() {
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
        let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("grpc-joined")).count()
    };
    for _ in 0..20 {
        let (sender, fatal) = fatal_channel();
        let env = Env::start("grpc-joined", 2, &sender);
        assert_eq!(threads(), 2);
        assert_eq!(env.stop(), Ok(()));
        assert_eq!(threads(), 0);
        assert!(fatal.try_recv().is_err());
    }
    let (sender, _fatal) = fatal_channel();
    let env = Env::start("grpc-joined", 1, &sender);
    let held = env.get();
    assert_eq!(env.stop().map_err(|e| e.threads), Err(1));
    drop(held);
}
