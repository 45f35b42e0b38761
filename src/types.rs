//! The words of the system as types: ids, positions and sizes that must not be mistaken for each other.
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
    /// A record's number within its log: contiguous from 0, never given twice.
    Offset
}
number! {
    /// A Raft entry's number within its group; the first stored one is 2 (1 is the base that nobody stores).
    LogIndex
}
number! {
    /// A Raft term.
    Term
}
number! {
    /// A Raft group: 0 is the catalog, every other one is one named log.
    GroupId
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// A new random id, never 0 (0 stands for "none").
            ///
            /// # Errors
            /// When the system has no randomness to give.
            pub fn random() -> Result<Self, openssl::error::ErrorStack> {
                let mut bytes = [0; 8];
                loop {
                    openssl::rand::rand_bytes(&mut bytes)?;
                    let id = u64::from_le_bytes(bytes);
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

            /// Reads what `Display` writes.
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(s, 16).map(Self)
            }
        }
    };
}

random_id! {
    /// A node's id, made when its data directory is first initialised: a wiped disk is a new node. Never used again after removal.
    NodeId
}
random_id! {
    /// A cluster's id, made at bootstrap. Everything between peers carries it.
    ClusterId
}
random_id! {
    /// Identifies one run of a stream: none of its proposals is appended after one that was not appended. Never reused.
    StreamId
}
random_id! {
    /// A log's id, made when the log is created: the same name with another id is another log.
    LogId
}

impl Offset {
    /// The largest offset, and the largest `next_offset`: 63 bits, which a varint of nine bytes holds. protobuf-java reads
    /// the tenth byte of a padded varint as 1, and a Java `long` would be negative.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// The offset `count` records later; `None` past [`Offset::MAX`].
    pub fn plus(self, count: u64) -> Option<Offset> {
        self.0.checked_add(count).map(Offset).filter(|end| *end <= Offset::MAX)
    }
}

impl Term {
    /// The largest term: as [`Offset::MAX`].
    pub const MAX: Term = Term(i64::MAX as u64);
}

impl GroupId {
    /// Group 0: which nodes are members, which logs exist.
    pub const CATALOG: GroupId = GroupId(0);
}

impl StreamId {
    /// The id of the stream's next run. Streams begin at random ids, so that no two of them meet.
    #[must_use]
    pub fn next(self) -> StreamId {
        StreamId(self.0.checked_add(1).unwrap_or(1))
    }
}

impl LogIndex {
    /// The entry behind this one.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

/// The name of a log, as clients give it: 1 to 255 of `a-z A-Z 0-9 . _ -`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(String);

/// The name of a node, as its owner chose it: the same characters as a log's name, at most 64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// The name is empty, too long, or has a character that names don't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    what: &'static str,
    name: String,
    length_max: usize,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no name of a {}: 1 to {} of a-z A-Z 0-9 . _ -, the first a letter or a digit",
            self.name, self.what, self.length_max
        )
    }
}

impl std::error::Error for BadName {}

fn check_name(what: &'static str, name: &str, length_max: usize) -> Result<String, BadName> {
    let good = name.len() <= length_max
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if good { Ok(name.to_owned()) } else { Err(BadName { what, name: name.chars().take(80).collect(), length_max }) }
}

impl LogName {
    /// The log that requests without a name mean.
    pub const DEFAULT: &'static str = "default";

    /// Takes the name of a log; the empty one is [`LogName::DEFAULT`].
    ///
    /// # Errors
    /// [`BadName`] for a malformed one.
    pub fn new(name: &str) -> Result<LogName, BadName> {
        let name = if name.is_empty() { LogName::DEFAULT } else { name };
        check_name("log", name, 255).map(LogName)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    /// Takes the name of a node.
    ///
    /// # Errors
    /// [`BadName`] for a malformed one, the empty one among them.
    pub fn new(name: &str) -> Result<NodeName, BadName> {
        check_name("node", name, 64).map(NodeName)
    }

    /// Stands in for a name that was rejected, while the rest of a configuration is checked.
    pub(crate) fn placeholder() -> NodeName {
        NodeName("placeholder".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
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
    fn names() {
        assert_eq!(LogName::new("").map(|n| n.to_string()), Ok("default".to_owned()));
        for bad in ["/", "a b", "-a", ".", "ä", &"x".repeat(256)] {
            assert!(LogName::new(bad).is_err(), "{bad}");
        }
        assert!(NodeName::new("").is_err());
        assert!(NodeName::new("node-1.example").is_ok());
    }

    #[test]
    fn ids_read_what_they_write() {
        let id = NodeId::random().expect("randomness");
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
    }

    #[test]
    fn a_run_never_has_the_id_that_stands_for_none() {
        assert_eq!(StreamId(7).next(), StreamId(8));
        assert_eq!(StreamId(u64::MAX).next(), StreamId(1));
    }
}
