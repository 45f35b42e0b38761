//! The client of every measurement, which sends raw bytes over one channel. The same code calls a node and the raw server, so that
//! both sides of a ratio contain the cost of the client.

use std::io::Read as _;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures::channel::{mpsc, oneshot};
use futures::executor::block_on;
use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::{
    CallOption, ChannelCredentials, ChannelCredentialsBuilder, Client, GrpcSlice, Marshaller, MessageReader, Method,
    MethodType, WriteFlags,
};
use protobuf::Message as _;
use seriatim::client::ClientFiles;
use seriatim::grpc::{Env, client_channel};
use seriatim::pb::v1::{ConsumeRequest, ProduceRequest, Record};
use seriatim::thread::fatal_channel;

/// A serialized message.
pub type Bytes = Vec<u8>;

pub const PRODUCE: Method<Bytes, Bytes> = method(MethodType::Unary, "/seriatim.v1.LogService/Produce");
pub const PRODUCE_STREAM: Method<Bytes, Bytes> = method(MethodType::Duplex, "/seriatim.v1.LogService/ProduceStream");
pub const CONSUME_STREAM: Method<Bytes, Bytes> =
    method(MethodType::ServerStreaming, "/seriatim.v1.LogService/ConsumeStream");

pub const fn method(ty: MethodType, name: &'static str) -> Method<Bytes, Bytes> {
    Method { ty, name, req_mar: Marshaller { ser: put, de: take }, resp_mar: Marshaller { ser: put, de: take } }
}

fn put(bytes: &Bytes, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = GrpcSlice::from(bytes.as_slice());
    Ok(())
}

fn take(mut reader: MessageReader) -> grpcio::Result<Bytes> {
    let mut bytes = Vec::with_capacity(reader.len());
    reader.read_to_end(&mut bytes).map_err(|e| grpcio::Error::Codec(Box::new(e)))?;
    Ok(bytes)
}

/// One thread for all channels, as in a typical client: several gRPC threads contend with each other.
static ENV: LazyLock<Env> = LazyLock::new(|| Env::start("bench-client", 1, &fatal_channel().0));

/// A client's channel.
pub struct Caller(Client);

impl Caller {
    /// Connects to a node or to the raw server.
    pub fn connect(addr: &str, files: &ClientFiles) -> Caller {
        Caller::connect_with(addr, Some(files))
    }

    /// Connects with these certificates, or without TLS.
    pub fn connect_with(addr: &str, files: Option<&ClientFiles>) -> Caller {
        let read = |path| std::fs::read(path).expect("a certificate");
        let credentials = files.map_or_else(ChannelCredentials::insecure, |files| {
            ChannelCredentialsBuilder::new()
                .root_cert(read(&files.ca_file))
                .cert(read(&files.cert_file), read(&files.key_file))
                .build()
        });
        let channel = client_channel(ENV.get(), addr, credentials, files.map(|_| "localhost"));
        assert!(block_on(channel.wait_for_connected(Duration::from_secs(10))), "no connection to {addr}");
        Caller(Client::new(channel))
    }

    pub fn client(&self) -> &Client {
        &self.0
    }

    /// Runs a future on the channel's thread, and waits for its result.
    fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        self.client().spawn(async move {
            let _ = sender.send(future.await);
        });
        block_on(receiver).expect("the load ends")
    }

    /// Makes one unary call at a time. Returns their latencies.
    pub fn latencies(&self, request: Bytes, took: Duration) -> Vec<Duration> {
        let client = self.client().clone();
        self.run(async move {
            let mut times = Vec::new();
            let end = Instant::now() + took;
            while Instant::now() < end {
                let begin = Instant::now();
                let call = client.unary_call_async(&PRODUCE, &request, CallOption::default()).expect("a call");
                call.await.expect("a response");
                times.push(begin.elapsed());
            }
            times
        })
    }

    /// Keeps this many unary calls in flight. Returns calls per second.
    pub fn unary_rate(&self, request: &Bytes, in_flight: usize, took: Duration) -> f64 {
        self.rate_of_each(&vec![request.clone(); in_flight], took)
    }

    /// Keeps one unary call of each request in flight. Returns calls per second.
    pub fn rate_of_each(&self, requests: &[Bytes], took: Duration) -> f64 {
        let begin = Instant::now();
        let end = begin + took;
        let done = Arc::new(AtomicU64::new(0));
        let all = requests.iter().map(|request| {
            let (client, request, done) = (self.client().clone(), request.clone(), done.clone());
            let (sender, receiver) = oneshot::channel::<()>();
            self.client().spawn(async move {
                while Instant::now() < end {
                    let call = client.unary_call_async(&PRODUCE, &request, CallOption::default()).expect("a call");
                    call.await.expect("a response");
                    done.fetch_add(1, Ordering::Relaxed);
                }
                let _ = sender.send(());
            });
            receiver
        });
        let all: Vec<_> = all.collect();
        block_on(join_all(all));
        done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
    }

    /// Sends one stream with at most `window` messages without a response. Returns messages per second.
    pub fn upload_rate(&self, message: Bytes, window: usize, took: Duration) -> f64 {
        self.upload_until(message, window, move |_, time| time >= took)
    }

    /// Sends one stream of at least this many messages.
    pub fn upload(&self, message: Bytes, window: usize, messages: u64) {
        self.upload_until(message, window, move |count, _| count >= messages);
    }

    /// Sends one stream until `is_enough`, which gets the number of responses after each of them.
    pub fn upload_until_enough(
        &self,
        message: Bytes,
        window: usize,
        is_enough: impl Fn(u64, Duration) -> bool + Send + 'static,
    ) {
        self.upload_until(message, window, is_enough);
    }

    fn upload_until(
        &self,
        message: Bytes,
        window: usize,
        is_enough: impl Fn(u64, Duration) -> bool + Send + 'static,
    ) -> f64 {
        let (mut sink, mut answers) =
            self.client().duplex_streaming(&PRODUCE_STREAM, CallOption::default()).expect("a stream");
        let (mut slots, mut free_slot) = mpsc::channel::<()>(window.saturating_sub(1));
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let (closed, is_closed) = oneshot::channel::<()>();
        self.client().spawn(async move {
            sink.enhance_batch(true);
            while !stopping.load(Ordering::Relaxed) && slots.feed(()).await.is_ok() {
                sink.send((message.clone(), WriteFlags::default())).await.expect("sends");
            }
            sink.close().await.expect("closes");
            let _ = closed.send(());
        });
        self.run(async move {
            let begin = Instant::now();
            let mut count = 0u64;
            let mut last_answer = begin;
            while let Some(answer) = answers.next().await {
                answer.expect("a response");
                count += 1;
                last_answer = Instant::now();
                if is_enough(count, last_answer - begin) {
                    stop.store(true, Ordering::Relaxed);
                }
                free_slot.next().await;
            }
            let _ = is_closed.await;
            count as f64 / (last_answer - begin).as_secs_f64()
        })
    }

    /// Reads one stream to its end.
    pub fn download(&self, request: Bytes) -> Download {
        let mut answers =
            self.client().server_streaming(&CONSUME_STREAM, &request, CallOption::default()).expect("a stream");
        self.run(async move {
            let begin = Instant::now();
            let mut download = Download::default();
            while let Some(answer) = answers.next().await {
                let bytes = answer.expect("records").len() as u64;
                download.messages += 1;
                download.bytes += bytes;
                download.message_bytes = download.message_bytes.max(bytes);
            }
            download.took = begin.elapsed();
            download
        })
    }

    /// Sends messages at a fixed interval, without waiting for responses.
    pub fn feed(&self, messages: u64, every: Duration, message: impl Fn() -> Bytes + Send + 'static) {
        let (mut sink, mut answers) =
            self.client().duplex_streaming(&PRODUCE_STREAM, CallOption::default()).expect("a stream");
        let begin = Instant::now();
        for number in 0..messages {
            let at = begin + every * number as u32;
            std::thread::park_timeout(at.saturating_duration_since(Instant::now()));
            block_on(sink.send((message(), WriteFlags::default()))).expect("sends");
        }
        block_on(sink.close()).expect("closes");
        self.run(async move { while answers.next().await.is_some() {} });
    }

    /// Sends messages at a fixed interval until `is_enough`, which gets the number of responses after each of them.
    pub fn feed_until_enough(
        &self,
        message: Bytes,
        every: Duration,
        is_enough: impl Fn(u64, Duration) -> bool + Send + 'static,
    ) {
        let (mut sink, mut answers) =
            self.client().duplex_streaming(&PRODUCE_STREAM, CallOption::default()).expect("a stream");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let begin = Instant::now();
        self.spawn(async move {
            let mut count = 0;
            while let Some(answer) = answers.next().await {
                answer.expect("a response");
                count += 1;
                if is_enough(count, begin.elapsed()) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        let mut sent = 0;
        while !stopping.load(Ordering::Relaxed) {
            // What is due: a late wake-up sends several.
            let due = (begin.elapsed().as_secs_f64() / every.as_secs_f64()) as u64;
            while sent < due {
                block_on(sink.send((message.clone(), WriteFlags::default().buffer_hint(sent + 1 < due))))
                    .expect("sends");
                sent += 1;
            }
            std::thread::park_timeout(every.max(Duration::from_millis(1)));
        }
        block_on(sink.close()).expect("closes");
    }

    /// Makes one unary call. Returns its latency.
    pub fn latency(&self, request: &Bytes) -> Duration {
        let begin = Instant::now();
        let call = self.client().unary_call_async(&PRODUCE, request, CallOption::default()).expect("a call");
        block_on(call).expect("a response");
        begin.elapsed()
    }

    /// Opens streams that stay open until the result is dropped.
    pub fn tails(&self, request: &Bytes, count: usize) -> Tails {
        let open =
            |_| self.client().server_streaming(&CONSUME_STREAM, request, CallOption::default()).expect("a stream");
        Tails((0..count).map(open).collect())
    }

    /// Runs a future on the channel's thread, without waiting for it.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.client().spawn(future);
    }
}

/// Open streams.
pub struct Tails(pub Vec<grpcio::ClientSStreamReceiver<Bytes>>);

impl Tails {
    /// Waits until each stream has received a message.
    pub fn wait_for_first(&mut self) {
        for tail in &mut self.0 {
            block_on(pin!(tail).next()).expect("open").expect("a message");
        }
    }
}

/// The messages that a stream returned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Download {
    pub messages: u64,
    pub bytes: u64,
    pub message_bytes: u64,
    pub took: Duration,
}

impl Download {
    /// Returns megabytes per second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }
}

/// Returns a `ProduceRequest` with this many records of this many bytes.
pub fn produce_request(records: usize, value_bytes: usize) -> Bytes {
    produce_request_to("", records, value_bytes)
}

/// Returns a `ProduceRequest` to a log.
pub fn produce_request_to(log: &str, records: usize, value_bytes: usize) -> Bytes {
    let record = Record { value: vec![7; value_bytes].into(), ..Record::default() };
    let request = ProduceRequest { log: log.to_owned(), records: vec![record; records], ..ProduceRequest::default() };
    request.write_to_bytes().expect("bytes")
}

pub fn consume_request(request: &ConsumeRequest) -> Bytes {
    request.write_to_bytes().expect("bytes")
}
