//! What is compared: clusters of three nodes, and what each of them can be asked to do.

use std::time::{Duration, Instant};

use super::{etcd, nats, ours, redis};

/// The bytes of a small record's value.
pub const SMALL: usize = 100;
/// The bytes of a large record's value.
pub const LARGE: usize = 1024;

/// Appends a small record, and returns when it is acknowledged.
pub type Append = Box<dyn FnMut()>;

/// Appends for this long. Returns acknowledged records per second.
pub type Load = Box<dyn FnMut(Duration) -> f64>;

/// A producer, and a consumer that waits for its records.
pub struct Tail {
    pub append: Append,
    /// Waits for the next record, and returns the time of its arrival.
    pub receive: Box<dyn FnMut() -> Instant + Send>,
}

/// Reads a log from its first record to its last one. Returns the bytes of the values.
pub type Read = Box<dyn FnMut() -> u64>;

/// How 256 callers share one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// Threads that wait for their acknowledgements.
    Threads,
    /// One thread that keeps 256 records in flight, in the fastest way that the client has.
    OneThread,
    /// Unary calls of one thread, a record each.
    Unary,
    /// Messages of one stream, a record each.
    Stream,
}

/// A cluster of three nodes. Dropping it stops the nodes and removes their data. `None`: the system has no such form.
pub trait Contestant {
    /// The processes of the nodes, the leader first.
    fn pids(&self) -> Vec<u32>;

    /// Opens a connection to the leader that appends one record at a time.
    fn append(&self) -> Append;

    /// Opens a producer and a consumer of the leader.
    fn tail(&self) -> Option<Tail>;

    /// Opens one client of 256 callers.
    fn shared(&self, form: Shared) -> Option<Load>;

    /// Opens 256 clients with a connection each and one record in flight.
    fn own_connections(&self) -> Load;

    /// Opens producers with a connection each, which send without waiting for each acknowledgement.
    fn batched(&self, value_bytes: usize, producers: usize) -> Load;

    /// Fills a log with this many large records, and opens a reader.
    fn catch_up(&self, records: usize) -> Read;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OursTls,
    OursInsecure,
    NatsSyncAlways,
    NatsDefault,
    Etcd,
    Redis,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::OursTls, Kind::OursInsecure, Kind::NatsSyncAlways, Kind::NatsDefault, Kind::Etcd, Kind::Redis];

    pub fn title(self) -> &'static str {
        match self {
            Kind::OursTls => "Seriatim, TLS",
            Kind::OursInsecure => "Seriatim, insecure",
            Kind::NatsSyncAlways => "NATS, sync always",
            Kind::NatsDefault => "NATS, not synced",
            Kind::Etcd => "etcd",
            Kind::Redis => "Redis, WAIT 1",
        }
    }

    /// The program that must be on the PATH.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Kind::OursTls | Kind::OursInsecure => None,
            Kind::NatsSyncAlways | Kind::NatsDefault => Some("nats-server"),
            Kind::Etcd => Some("etcd"),
            Kind::Redis => Some("redis-server"),
        }
    }

    pub fn is_first_of_its_program(&self) -> bool {
        Kind::ALL.iter().find(|kind| kind.program() == self.program()) == Some(self)
    }

    /// Starts three nodes, and checks that they are a cluster.
    pub fn start(self) -> Box<dyn Contestant> {
        match self {
            Kind::OursTls => Box::new(ours::Ours::start(true)),
            Kind::OursInsecure => Box::new(ours::Ours::start(false)),
            Kind::NatsSyncAlways => Box::new(nats::Nats::start("sync_interval: always")),
            Kind::NatsDefault => Box::new(nats::Nats::start("")),
            Kind::Etcd => Box::new(etcd::Etcd::start()),
            Kind::Redis => Box::new(redis::Redis::start()),
        }
    }
}
