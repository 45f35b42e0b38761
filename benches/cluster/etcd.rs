//! etcd: three members, and a new key for each record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use grpcio::{CallOption, Method, MethodType, WriteFlags};

use super::callers::CALLERS;
use super::calls::{Bytes, Caller, method};
use super::contestant::{Append, Contestant, LARGE, Load, Read, SMALL, Shared, Tail};
use super::harness::eventually;
use super::http2::Calls;
use super::protobuf_bytes::{bytes_of, number_of, put_bytes, put_number};
use super::server::{Server, free_ports};
use super::unary::{call, unary_rate};
use super::wire::rate_of_all;

const PUT: Method<Bytes, Bytes> = method(MethodType::Unary, "/etcdserverpb.KV/Put");
const TXN: Method<Bytes, Bytes> = method(MethodType::Unary, "/etcdserverpb.KV/Txn");
const RANGE: Method<Bytes, Bytes> = method(MethodType::Unary, "/etcdserverpb.KV/Range");
const STATUS: Method<Bytes, Bytes> = method(MethodType::Unary, "/etcdserverpb.Maintenance/Status");
const WATCH: Method<Bytes, Bytes> = method(MethodType::Duplex, "/etcdserverpb.Watch/Watch");

/// The most operations that a transaction may contain by default.
const BATCH: usize = 128;
/// The transactions that a producer of batches has in flight.
const BATCHES_IN_FLIGHT: usize = 32;
/// A reader requests this many keys at once.
const PAGE: u64 = 1000;

pub struct Etcd {
    // Stopped before their directory is removed.
    servers: Vec<Server>,
    addrs: Vec<String>,
    leader: usize,
    keys: Keys,
    _home: tempfile::TempDir,
}

/// The keys of a log: a letter and a number.
#[derive(Clone)]
struct Keys {
    log: u8,
    next: Arc<AtomicU64>,
}

impl Keys {
    fn of_log(log: u8) -> Keys {
        Keys { log, next: Arc::new(AtomicU64::new(0)) }
    }

    /// Returns a `PutRequest` with a new key.
    fn put(&self, value_bytes: usize) -> Bytes {
        let mut request = Vec::with_capacity(value_bytes + 16);
        put_bytes(&mut request, 1, &self.key(self.next.fetch_add(1, Ordering::Relaxed)));
        put_bytes(&mut request, 2, &vec![7; value_bytes]);
        request
    }

    /// Returns a `TxnRequest` with this many puts.
    fn transaction(&self, puts: usize, value_bytes: usize) -> Bytes {
        let mut request = Vec::with_capacity(puts * (value_bytes + 32));
        for _ in 0..puts {
            let mut operation = Vec::with_capacity(value_bytes + 24);
            put_bytes(&mut operation, 2, &self.put(value_bytes));
            put_bytes(&mut request, 2, &operation);
        }
        request
    }

    fn key(&self, number: u64) -> [u8; 9] {
        let mut key = [self.log; 9];
        key[1..].copy_from_slice(&number.to_be_bytes());
        key
    }

    /// Returns the key after the last one.
    fn end(&self) -> [u8; 1] {
        [self.log + 1]
    }
}

impl Etcd {
    pub fn start() -> Etcd {
        let home = tempfile::tempdir().expect("a folder");
        let (clients, peers) = (free_ports::<3>(), free_ports::<3>());
        let members: Vec<String> = (0..3).map(|i| format!("e{i}=http://127.0.0.1:{}", peers[i])).collect();
        let servers = (0..3).map(|i| {
            let (client, peer) = (format!("http://127.0.0.1:{}", clients[i]), format!("http://127.0.0.1:{}", peers[i]));
            let name = format!("e{i}");
            let args = [
                format!("--name={name}"),
                format!("--data-dir={}", home.path().join(&name).display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", members.join(",")),
                "--log-level=error".to_owned(),
                // The default of 2 GiB is too small for what is appended in a round.
                format!("--quota-backend-bytes={}", 16u64 << 30),
            ];
            Server::start("etcd", &name, home.path(), args)
        });
        let servers = servers.collect();
        let addrs: Vec<String> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut etcd = Etcd { servers, addrs, leader: 0, keys: Keys::of_log(b'a'), _home: home };
        etcd.leader = eventually("etcd has a leader", || {
            let statuses = etcd.addrs.iter().map(|addr| {
                let client = Caller::connect_with(addr, None);
                let option = CallOption::default().timeout(Duration::from_secs(5));
                client.client().unary_call(&STATUS, &Vec::new(), option).map_err(|e| e.to_string())
            });
            let statuses: Vec<Bytes> = statuses.collect::<Result<_, _>>()?;
            let leads = |status: &Bytes| {
                let member = number_of(bytes_of(status, 1).unwrap_or_default(), 2);
                member != 0 && member == number_of(status, 4)
            };
            let is_known = statuses.iter().all(|status| number_of(status, 4) == number_of(&statuses[0], 4));
            statuses.iter().position(leads).filter(|_| is_known).ok_or("none".into())
        });
        etcd
    }

    fn connect(&self) -> Caller {
        Caller::connect_with(&self.addrs[self.leader], None)
    }
}

impl Contestant for Etcd {
    fn pids(&self) -> Vec<u32> {
        let others = (0..3).filter(|i| *i != self.leader);
        [self.leader].into_iter().chain(others).map(|i| self.servers[i].pid()).collect()
    }

    fn append(&self) -> Append {
        let (caller, keys) = (self.connect(), self.keys.clone());
        Box::new(move || drop(call(&caller, &PUT, &keys.put(SMALL))))
    }

    fn tail(&self) -> Option<Tail> {
        let caller = self.connect();
        let (mut sink, mut events) = caller.client().duplex_streaming(&WATCH, CallOption::default()).expect("a stream");
        let (mut create, mut request) = (Vec::new(), Vec::new());
        put_bytes(&mut create, 1, &self.keys.key(0));
        put_bytes(&mut create, 2, &self.keys.end());
        put_bytes(&mut request, 1, &create);
        block_on(sink.send((request, WriteFlags::default()))).expect("sends");
        // The first message says that the watch exists.
        block_on(events.next()).expect("open").expect("a message");
        let receive = move || {
            let _open = (&caller, &sink);
            loop {
                let message = block_on(events.next()).expect("open").expect("a message");
                if bytes_of(&message, 11).is_some() {
                    return Instant::now();
                }
            }
        };
        Some(Tail { append: self.append(), receive: Box::new(receive) })
    }

    fn shared(&self, form: Shared) -> Option<Load> {
        (form == Shared::OneThread).then(|| {
            let (callers, keys) = ([self.connect()], self.keys.clone());
            Box::new(move |took: Duration| {
                let keys = keys.clone();
                unary_rate(&callers, &PUT, CALLERS, took, move || keys.put(SMALL))
            }) as Load
        })
    }

    fn own_connections(&self) -> Load {
        let open = |_| {
            let keys = self.keys.clone();
            Calls::open(&self.addrs[self.leader], PUT.name, move || keys.put(SMALL))
        };
        let mut all: Vec<_> = (0..CALLERS).map(open).collect();
        Box::new(move |took| rate_of_all(&mut all, took))
    }

    fn batched(&self, value_bytes: usize, producers: usize) -> Load {
        let callers: Vec<Caller> = (0..producers).map(|_| self.connect()).collect();
        let keys = self.keys.clone();
        Box::new(move |took| {
            let keys = keys.clone();
            let request = move || keys.transaction(BATCH, value_bytes);
            unary_rate(&callers, &TXN, BATCHES_IN_FLIGHT, took, request) * BATCH as f64
        })
    }

    fn catch_up(&self, records: usize) -> Read {
        let (caller, keys) = (self.connect(), Keys::of_log(b'c'));
        for _ in 0..records.div_ceil(BATCH * BATCHES_IN_FLIGHT) {
            let calls = (0..BATCHES_IN_FLIGHT).map(|_| {
                let request = keys.transaction(BATCH, LARGE);
                caller.client().unary_call_async(&TXN, &request, CallOption::default()).expect("a call")
            });
            block_on(join_all(calls)).into_iter().for_each(|response| drop(response.expect("a response")));
        }
        let records = keys.next.load(Ordering::Relaxed);
        Box::new(move || {
            for first in (0..records).step_by(PAGE as usize) {
                let mut request = Vec::new();
                put_bytes(&mut request, 1, &keys.key(first));
                put_bytes(&mut request, 2, &keys.end());
                put_number(&mut request, 3, PAGE);
                // Serializable: the member responds with what it has.
                put_number(&mut request, 7, 1);
                let response = call(&caller, &RANGE, &request);
                assert!(response.len() as u64 > PAGE.min(records - first) * LARGE as u64, "too few keys");
            }
            records * LARGE as u64
        })
    }
}
