//! Counters of one node: plain atomics, one struct for each node, handed down by `Arc`. Nothing is global.
//!
//! Names are those of Prometheus, labels among them; `GetNode` shows them. Who counts looks nothing up and waits for nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a call can run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Limit {
    /// Bytes of a record.
    RecordBytes,
    /// Bytes of a request's records.
    RequestBytes,
    /// Bytes of a message that carries no records.
    MessageBytes,
    /// Open streams of one principal.
    PrincipalStreams,
    /// Open streams of all.
    Streams,
    /// Unanswered calls of one principal.
    PrincipalCalls,
    /// Unanswered calls of all.
    Calls,
    /// Bytes in flight of one principal.
    PrincipalBytes,
    /// Bytes in flight of all.
    Bytes,
    /// A queue of the node.
    Queue,
}

impl Limit {
    /// All of them, in their order.
    pub const ALL: [Limit; 10] = [
        Limit::RecordBytes,
        Limit::RequestBytes,
        Limit::MessageBytes,
        Limit::PrincipalStreams,
        Limit::Streams,
        Limit::PrincipalCalls,
        Limit::Calls,
        Limit::PrincipalBytes,
        Limit::Bytes,
        Limit::Queue,
    ];

    /// The value of its label: where it can be configured, the name of the option.
    pub fn name(self) -> &'static str {
        match self {
            Limit::RecordBytes => "record_bytes_max",
            Limit::RequestBytes => "request_bytes_max",
            Limit::MessageBytes => "message_bytes",
            Limit::PrincipalStreams => "streams_per_principal_max",
            Limit::Streams => "streams_max",
            Limit::PrincipalCalls => "calls_per_principal_max",
            Limit::Calls => "calls_max",
            Limit::PrincipalBytes => "bytes_per_principal_max",
            Limit::Bytes => "bytes_max",
            Limit::Queue => "queue",
        }
    }
}

/// The counters of one node, since its process started.
#[derive(Debug, Default)]
pub struct Metrics {
    limit_refused: [Counter; Limit::ALL.len()],
    /// Calls that were refused because of who made them.
    pub access_refused: Counter,
    /// Peers that were refused because of the node that their certificate names, or does not name.
    pub peer_name_refused: Counter,
    /// Connections that were closed because their calls were taken back in floods.
    pub flood_closed: Counter,
    /// When the first of the node's certificates expires, Unix seconds; 0: it has none.
    certificate_expires: AtomicU64,
}

/// The name under which [`Metrics::all`] has that time.
pub const CERTIFICATE_EXPIRES: &str = "seriatim_certificate_expires_unix_seconds";

impl Metrics {
    /// What was refused for that limit.
    pub fn limit_refused(&self, limit: Limit) -> &Counter {
        &self.limit_refused[limit as usize]
    }

    /// Notes when the first of the node's certificates expires.
    pub fn set_certificate_expires(&self, at: Option<SystemTime>) {
        let seconds = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |at| at.as_secs());
        self.certificate_expires.store(seconds, Ordering::Relaxed);
    }

    /// Every counter, by name.
    pub fn all(&self) -> Vec<(String, u64)> {
        let limits = Limit::ALL.iter().map(|limit| {
            let name = format!("seriatim_limit_refused_total{{limit=\"{}\"}}", limit.name());
            (name, self.limit_refused(*limit).get())
        });
        let access = ("seriatim_access_refused_total".to_owned(), self.access_refused.get());
        let peers = ("seriatim_peer_name_refused_total".to_owned(), self.peer_name_refused.get());
        let flood = ("seriatim_flood_connections_closed_total".to_owned(), self.flood_closed.get());
        let expires = self.certificate_expires.load(Ordering::Relaxed);
        let expires = (expires > 0).then(|| (CERTIFICATE_EXPIRES.to_owned(), expires));
        limits.chain([access, peers, flood]).chain(expires).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_counter_of_its_own() {
        let metrics = Metrics::default();
        for (i, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, i);
            (0..=i).for_each(|_| metrics.limit_refused(*limit).inc());
        }
        let all = metrics.all();
        let expected: Vec<u64> = (1..=Limit::ALL.len() as u64).chain([0, 0, 0]).collect();
        assert_eq!(all.iter().map(|(_, value)| *value).collect::<Vec<_>>(), expected);
        assert_eq!(all[4].0, "seriatim_limit_refused_total{limit=\"streams_max\"}");
    }
}
