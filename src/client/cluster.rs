//! [`Cluster`]: where producers and consumers come from.

use std::sync::Arc;
use std::time::Duration;

use super::consumer::{self, Consumer, ConsumerOptions, CursorState};
use super::error::Result;
use super::nodes::{ClusterOptions, Nodes};
use super::producer::{Producer, ProducerOptions};
use super::route;

/// A cluster, as an application uses it. Clones share the connections, and one for each process is enough.
///
/// It connects when it is first used. Producers and consumers keep what they need of it.
#[derive(Clone)]
pub struct Cluster {
    nodes: Arc<Nodes>,
}

impl Cluster {
    /// Reads the certificate files. Connects to nothing yet.
    ///
    /// # Errors
    /// With the kind `invalid`, if the addresses are missing, or a file can't be used.
    pub fn new(options: ClusterOptions) -> Result<Cluster> {
        Ok(Cluster { nodes: Arc::new(Nodes::new(options)?) })
    }

    /// Waits until a node answers.
    ///
    /// # Errors
    /// The last error, after the timeout.
    pub fn ready(&self, timeout: Duration) -> Result<()> {
        route::ready(&self.nodes, timeout)
    }

    /// Registers a producer, or takes over the one with that name.
    ///
    /// # Errors
    /// The error of a node, or the last one after the operation timeout.
    pub fn producer(&self, options: &ProducerOptions) -> Result<Producer> {
        Producer::open(&self.nodes, options)
    }

    /// Begins to read a log. With a cursor, takes it over first.
    ///
    /// # Errors
    /// If the options contradict each other, or the cursor can't be acquired. Later errors are returned by the
    /// consumer.
    pub fn consumer(&self, options: &ConsumerOptions) -> Result<Consumer> {
        Consumer::open(&self.nodes, options)
    }

    /// Returns the position of a cursor.
    ///
    /// # Errors
    /// With the kind `not_found`, if it does not exist.
    pub fn cursor(&self, log: &str, cursor: &str) -> Result<CursorState> {
        consumer::get_cursor(&self.nodes, log, cursor)
    }
}
