//! The ceilings: gRPC without logic, in its own process, and the raw disk.
//!
//! The raw server has the node's listener options, mutual TLS and method names, but no logic. `Produce` echoes the request.
//! `ProduceStream` responds to each message with a small one. `ConsumeStream` sends `max_records` messages of `max_bytes` bytes,
//! or for `max_records` 0 one message, and then leaves the stream open.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use grpcio::{
    CertificateRequestType, GrpcSlice, Marshaller, Method, MethodType, ServerCredentialsBuilder, ServiceBuilder,
    WriteFlags,
};
use protobuf::Message as _;
use seriatim::client::ClientFiles;
use seriatim::grpc::sockets::bound_receive_buffers;
use seriatim::grpc::{Env, RECEIVE_BUFFER_BYTES, client_listener};
use seriatim::pb::v1::ConsumeRequest;
use seriatim::thread::fatal_channel;

use super::calls::{Bytes, CONSUME_STREAM, Caller, PRODUCE, PRODUCE_STREAM};

/// The raw server's `ConsumeStream`, whose responses share one buffer.
const SEND: Method<Bytes, Arc<[u8]>> = Method {
    ty: MethodType::ServerStreaming,
    name: CONSUME_STREAM.name,
    req_mar: CONSUME_STREAM.req_mar,
    resp_mar: Marshaller { ser: put_shared, de: |_| Err(grpcio::Error::Codec("only a client reads this".into())) },
};

fn put_shared(bytes: &Arc<[u8]>, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = GrpcSlice::from(&bytes[..]);
    Ok(())
}

/// The argument that runs this program as the raw server.
pub const SERVE: &str = "--raw-server";

/// Runs in the child process: serves until standard input is closed.
pub fn serve(certs: &Path) {
    let read = |name: &str| std::fs::read(certs.join(name)).expect("a certificate");
    let request = CertificateRequestType::RequestAndRequireClientCertificateAndVerify;
    let credentials = ServerCredentialsBuilder::new()
        .root_cert(read("ca.pem"), request)
        .add_cert(read("server.pem"), read("server-key.pem"))
        .build();
    let (fatal, _) = fatal_channel();
    let env = Env::start("raw", 1, &fatal);
    let builder = ServiceBuilder::new()
        .add_unary_handler(&PRODUCE, |ctx, request, sink| {
            ctx.spawn(async move { drop(sink.success(request).await) });
        })
        .add_duplex_streaming_handler(&PRODUCE_STREAM, |ctx, mut requests, mut sink| {
            ctx.spawn(async move {
                sink.enhance_batch(true);
                while let Some(Ok(_)) = requests.next().await {
                    if sink.send((vec![7; 20], WriteFlags::default())).await.is_err() {
                        return;
                    }
                }
                let _ = sink.close().await;
            });
        })
        .add_server_streaming_handler(&SEND, |ctx, request, mut sink| {
            let request = ConsumeRequest::parse_from_bytes(&request).expect("a request");
            ctx.spawn(async move {
                // Shared, so that the only copy is the one into gRPC's buffer.
                let message: Arc<[u8]> = vec![7; request.max_bytes as usize].into();
                for _ in 0..request.max_records.max(1) {
                    if sink.send((message.clone(), WriteFlags::default())).await.is_err() {
                        return;
                    }
                }
                if request.max_records == 0 {
                    // Keeps the stream open.
                    futures::future::pending::<()>().await;
                }
                let _ = sink.close().await;
            });
        });
    let mut server = client_listener(&env, u64::MAX >> 1).register_service(builder.build()).build().expect("a server");
    let port = server.add_listening_port("127.0.0.1:0", credentials).expect("a port");
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(bound_receive_buffers(addr, RECEIVE_BUFFER_BYTES).expect("a bound"), 1);
    server.start();
    println!("{port}");
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read(&mut [0]);
    // Exits with all connections open.
    std::process::exit(0);
}

/// The raw server in its own process; killed when dropped.
pub struct RawServer {
    child: Child,
    addr: String,
    files: ClientFiles,
}

impl RawServer {
    pub fn start(certs: &Path, files: ClientFiles) -> RawServer {
        RawServer::start_wrapped(&[], certs, files)
    }

    /// Like [`RawServer::start`], with a command that runs the program.
    pub fn start_wrapped(wrapper: &[String], certs: &Path, files: ClientFiles) -> RawServer {
        let program = std::env::current_exe().expect("this program").display().to_string();
        let mut words = wrapper.iter().chain([&program]);
        let mut child = Command::new(words.next().expect("the program"))
            .args(words)
            .arg(SERVE)
            .arg(certs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the raw server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a port");
        RawServer { child, addr: format!("127.0.0.1:{}", line.trim()), files }
    }

    pub fn connect(&self) -> Caller {
        Caller::connect(&self.addr, &self.files)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file that is written like a segment: sequentially, into reserved space.
pub struct RawFile {
    file: File,
    at: u64,
    bytes: u64,
}

impl RawFile {
    pub fn create(dir: &Path, bytes: u64) -> RawFile {
        let file = tempfile::tempfile_in(dir).expect("a file");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("space");
        file.sync_all().expect("syncs");
        RawFile { file, at: 0, bytes }
    }

    fn write_and_sync(&mut self, block: &[u8]) {
        if self.at + block.len() as u64 > self.bytes {
            self.at = 0;
        }
        self.file.write_all_at(block, self.at).expect("writes");
        self.file.sync_data().expect("syncs");
        self.at += block.len() as u64;
    }

    /// Writes blocks and syncs each. Returns megabytes per second.
    pub fn rate(&mut self, block: &[u8], took: Duration) -> f64 {
        let begin = Instant::now();
        let mut bytes = 0;
        while begin.elapsed() < took {
            self.write_and_sync(block);
            bytes += block.len();
        }
        bytes as f64 / 1e6 / begin.elapsed().as_secs_f64()
    }

    /// Writes blocks and syncs each. Returns their latencies.
    pub fn latencies(&mut self, block: &[u8], took: Duration) -> Vec<Duration> {
        let end = Instant::now() + took;
        let mut times = Vec::new();
        while Instant::now() < end {
            let begin = Instant::now();
            self.write_and_sync(block);
            times.push(begin.elapsed());
        }
        times
    }
}

/// Reads files completely. Returns megabytes per second.
pub fn read_rate(files: &[File]) -> f64 {
    let begin = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    for file in files {
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer, at).expect("reads");
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        bytes += at;
    }
    bytes as f64 / 1e6 / begin.elapsed().as_secs_f64()
}

/// Drops files from the page cache.
pub fn drop_from_page_cache(files: &[File]) {
    for file in files {
        file.sync_all().expect("syncs");
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("dropped");
    }
}
