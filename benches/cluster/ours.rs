//! Seriatim, with and without TLS on all connections.

use std::time::Instant;

use seriatim::client::{self, ClusterOptions, Producer, ProducerOptions};
use seriatim::pb::v1::{ConsumeRequest, CreateLogRequest, Start};

use super::callers::{CALLERS, future_rate, rate};
use super::calls::{Caller, PRODUCE, produce_request, produce_request_to};
use super::contestant::{Append, Contestant, LARGE, Load, Read, SMALL, Shared, Tail};
use super::harness::{Cluster, Site, next_records, record};
use super::http2::Calls;
use super::unary::unary_rate;
use super::wire::rate_of_all;

/// The log of the reader that catches up.
const CATCH_UP: &str = "catch-up";
/// A batched message has about this many bytes of values, and a stream at most this many messages without a response.
const BATCH_BYTES: usize = 100 << 10;
const BATCHES_IN_FLIGHT: usize = 32;

pub struct Ours {
    cluster: Cluster,
    leader: usize,
}

impl Ours {
    pub fn start(tls: bool) -> Ours {
        let site = if tls { Site::new() } else { Site::insecure() };
        let cluster = Cluster::start_at(site, 3, &[], |_| Vec::new());
        let leader = cluster.leader();
        Ours { leader, cluster }
    }

    fn connect(&self, node: usize) -> Caller {
        let site = &self.cluster.site;
        let files = (!site.is_insecure()).then(|| site.client_files("root"));
        Caller::connect_with(&self.cluster.nodes[node].rpc_addr, files.as_ref())
    }

    fn producer(&self) -> Producer {
        let site = &self.cluster.site;
        let options = ClusterOptions {
            files: (!site.is_insecure()).then(|| site.client_files("root")),
            ..ClusterOptions::new([self.cluster.nodes[self.leader].rpc_addr.clone()])
        };
        let cluster = client::Cluster::new(options).expect("a client");
        cluster.producer(&ProducerOptions::new("")).expect("a producer")
    }
}

impl Contestant for Ours {
    fn pids(&self) -> Vec<u32> {
        let leader = &self.cluster.nodes[self.leader];
        let others = self.cluster.nodes.iter().filter(|node| node.name() != leader.name());
        [leader].into_iter().chain(others).map(super::harness::Node::pid).collect()
    }

    fn append(&self) -> Append {
        let client = self.cluster.client(self.leader);
        Box::new(move || drop(client.produce("", vec![record([7; SMALL])]).expect("appended")))
    }

    fn tail(&self) -> Option<Tail> {
        let client = self.cluster.client(self.leader);
        let request = ConsumeRequest { start: Start::START_LATEST.into(), ..ConsumeRequest::default() };
        let mut stream = client.consume_stream(&request, None).expect("a stream");
        // The first message contains no records: the stream is open.
        stream.next().expect("open").expect("no status");
        let receive = move || {
            next_records(&mut stream);
            Instant::now()
        };
        Some(Tail { append: self.append(), receive: Box::new(receive) })
    }

    fn shared(&self, form: Shared) -> Option<Load> {
        let small = produce_request(1, SMALL);
        Some(match form {
            Shared::Threads => {
                let producer = self.producer();
                Box::new(move |took| {
                    rate(took, &|| {
                        producer.append(client::Record::new(vec![7; SMALL])).expect("appended");
                    })
                })
            }
            Shared::OneThread => {
                let producer = self.producer();
                Box::new(move |took| future_rate(took, &producer))
            }
            Shared::Unary => {
                let caller = self.connect(self.leader);
                Box::new(move |took| caller.unary_rate(&small, CALLERS, took))
            }
            Shared::Stream => {
                let caller = self.connect(self.leader);
                Box::new(move |took| caller.upload_rate(small.clone(), CALLERS, took))
            }
        })
    }

    fn own_connections(&self) -> Load {
        let small = produce_request(1, SMALL);
        if self.cluster.site.is_insecure() {
            let addr = &self.cluster.nodes[self.leader].rpc_addr;
            let open = |_| {
                let small = small.clone();
                Calls::open(addr, PRODUCE.name, move || small.clone())
            };
            let mut all: Vec<_> = (0..CALLERS).map(open).collect();
            return Box::new(move |took| rate_of_all(&mut all, took));
        }
        let callers: Vec<Caller> = (0..CALLERS).map(|_| self.connect(self.leader)).collect();
        Box::new(move |took| {
            let small = small.clone();
            unary_rate(&callers, &PRODUCE, 1, took, move || small.clone())
        })
    }

    fn batched(&self, value_bytes: usize, producers: usize) -> Load {
        let records = BATCH_BYTES / value_bytes;
        let message = produce_request(records, value_bytes);
        let callers: Vec<Caller> = (0..producers).map(|_| self.connect(self.leader)).collect();
        Box::new(move |took| {
            let rate = |caller: &Caller| caller.upload_rate(message.clone(), BATCHES_IN_FLIGHT, took) * records as f64;
            std::thread::scope(|scope| {
                let all: Vec<_> = callers.iter().map(|caller| scope.spawn(move || rate(caller))).collect();
                all.into_iter().map(|thread| thread.join().expect("appends")).sum()
            })
        })
    }

    fn catch_up(&self, records: usize) -> Read {
        let create = CreateLogRequest { log: CATCH_UP.to_owned(), ..CreateLogRequest::default() };
        self.cluster.client(self.leader).create_log(&create).expect("created");
        let leader = self.cluster.leader_of(CATCH_UP);
        let each = BATCH_BYTES / LARGE;
        let caller = self.connect(leader);
        caller.upload(produce_request_to(CATCH_UP, each, LARGE), BATCHES_IN_FLIGHT, (records / each) as u64);
        let request = ConsumeRequest {
            log: CATCH_UP.to_owned(),
            start: Start::START_EARLIEST.into(),
            max_records: 100_000,
            stop_at_end: true,
            ..ConsumeRequest::default()
        };
        let request = super::calls::consume_request(&request);
        Box::new(move || caller.download(request.clone()).bytes)
    }
}
