//! Ids, positions and names as types that can't be confused with each other.
//!
//! A [`LogIndex`] numbers Raft entries, an [`Offset`] numbers records: a no-op entry takes an index and no offset.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A record's number within its log. Offsets are contiguous from 0 and never reused.
    Offset
}
number! {
    /// A Raft entry's number within its group. The first stored entry has index 2; index 1 is the empty base.
    LogIndex
}
number! {
    /// A Raft term.
    Term
}
number! {
    /// The id of one replica of a group, which is Raft's peer id. The catalog hands out each id once, so a replica that
    /// returns to a node has another id than the one that left it. In the catalog's own group, and in the logs of
    /// clusters from before [`crate::feature_level::Feature::ManyLogs`], it equals the id of the node.
    ReplicaId
}
number! {
    /// A Raft group: 0 is the catalog, every other group is one log.
    GroupId
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns a new random id, never 0 (0 means "none").
            ///
            /// # Errors
            /// If the system can't provide random bytes.
            pub fn random() -> Result<Self, openssl::error::ErrorStack> {
                loop {
                    let id = crate::random::bits()?;
                    if id != 0 {
                        return Ok(Self(id));
                    }
                }
            }
        }

        impl fmt::Display for $name {
            /// Sixteen hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            /// Parses the output of `Display`.
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(s, 16).map(Self)
            }
        }
    };
}

random_id! {
    /// A node's id, created with its data directory: a node with a wiped disk is a new node. Never reused after a
    /// removal.
    NodeId
}
random_id! {
    /// A cluster's id, created at bootstrap. Every message between peers contains it.
    ClusterId
}
random_id! {
    /// The id of one run of a produce stream. Once a proposal of a run was not appended, no later proposal of that
    /// run is appended either: the stream continues with the next run. Ids are never reused.
    StreamId
}
random_id! {
    /// The id of a producer within its log. Never used again in that log.
    ProducerId
}
random_id! {
    /// A log's id, created with the log. The same name with another id is another log.
    LogId
}

impl Offset {
    /// The largest offset, and the largest `next_offset`: 63 bits, which fit into a varint of nine bytes.
    /// protobuf-java reads the tenth byte of a padded varint as 1, and a Java `long` would become negative.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// Returns the offset `count` records later, or `None` above [`Offset::MAX`].
    pub fn plus(self, count: u64) -> Option<Offset> {
        self.0.checked_add(count).map(Offset).filter(|end| *end <= Offset::MAX)
    }
}

impl Term {
    /// The largest term, for the same reason as [`Offset::MAX`].
    pub const MAX: Term = Term(i64::MAX as u64);
}

impl GroupId {
    /// Group 0, which stores the members and the logs.
    pub const CATALOG: GroupId = GroupId(0);
}

impl ReplicaId {
    /// The replica of a node in a group whose replicas have the ids of their nodes.
    pub fn of_node(node: NodeId) -> ReplicaId {
        ReplicaId(node.0)
    }
}

impl StreamId {
    /// Returns the id of the stream's next run. Each stream starts at a random id, so that the ids of streams don't
    /// collide.
    #[must_use]
    pub fn next(self) -> StreamId {
        StreamId(self.0.checked_add(1).unwrap_or(1))
    }
}

impl LogIndex {
    /// Returns the index of the next entry.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

/// The name of a log: 1 to 255 of `a-z A-Z 0-9 . _ -`, starting with a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(String);

/// The name of a node: 1 to 64 of the characters of a log's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// The name of a producer within its log: 1 to 255 of the characters of a log's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerName(String);

/// The name of a cursor within its log: 1 to 255 of the characters of a log's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorName(String);

/// A name that is empty, too long, or contains other characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a valid {what} name: use 1 to {length_max} of a-z A-Z 0-9 . _ -, starting with a letter or a digit"
)]
pub struct BadName {
    what: &'static str,
    name: String,
    length_max: usize,
}

fn check_name(what: &'static str, name: &str, length_max: usize) -> Result<String, BadName> {
    let good = name.len() <= length_max
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if good { Ok(name.to_owned()) } else { Err(BadName { what, name: name.chars().take(80).collect(), length_max }) }
}

impl LogName {
    /// The log of requests without a name.
    pub const DEFAULT: &'static str = "default";

    /// Checks the name of a log. An empty name means [`LogName::DEFAULT`].
    ///
    /// # Errors
    /// [`BadName`] if it is not valid.
    pub fn new(name: &str) -> Result<LogName, BadName> {
        let name = if name.is_empty() { LogName::DEFAULT } else { name };
        check_name("log", name, 255).map(LogName)
    }

    /// Returns the name that requests without one mean.
    pub fn default_log() -> LogName {
        LogName(LogName::DEFAULT.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    /// Checks the name of a node.
    ///
    /// # Errors
    /// [`BadName`] if it is empty or not valid.
    pub fn new(name: &str) -> Result<NodeName, BadName> {
        check_name("node", name, 64).map(NodeName)
    }

    /// Returns a placeholder for a rejected name, so that the rest of a configuration can be checked, too.
    pub(crate) fn placeholder() -> NodeName {
        NodeName("placeholder".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProducerName {
    /// Checks the name of a producer.
    ///
    /// # Errors
    /// [`BadName`] if it is empty or not valid.
    pub fn new(name: &str) -> Result<ProducerName, BadName> {
        check_name("producer", name, 255).map(ProducerName)
    }
}

impl CursorName {
    /// Checks the name of a cursor.
    ///
    /// # Errors
    /// [`BadName`] if it is empty or not valid.
    pub fn new(name: &str) -> Result<CursorName, BadName> {
        check_name("cursor", name, 255).map(CursorName)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProducerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CursorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_malformed_names() {
        assert_eq!(LogName::new("").map(|n| n.to_string()), Ok("default".to_owned()));
        for bad in ["/", "a b", "-a", ".", "ä", &"x".repeat(256)] {
            assert!(LogName::new(bad).is_err(), "{bad}");
        }
        assert!(NodeName::new("").is_err());
        assert!(NodeName::new("node-1.example").is_ok());
    }

    #[test]
    fn ids_parse_their_own_output() {
        let id = NodeId::random().expect("randomness");
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
    }

    #[test]
    fn the_next_run_never_gets_id_0() {
        assert_eq!(StreamId(7).next(), StreamId(8));
        assert_eq!(StreamId(u64::MAX).next(), StreamId(1));
    }
}
