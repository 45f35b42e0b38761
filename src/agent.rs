//! Starts every part of a node bottom-up, and stops them top-down. (The signatures; the parts come with them.)

use std::fmt;
use std::net::SocketAddr;

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::thread::Fatal;

/// A running node.
pub struct Agent {
    failures: Receiver<Fatal>,
}

/// Why a node does not start.
#[derive(Debug)]
pub struct AgentError {
    message: String,
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AgentError {}

impl AgentError {
    /// The disk is damaged: exit code 65.
    pub fn is_damage(&self) -> bool {
        todo!()
    }

    /// The configuration can't work (a busy port, a directory in use or not ours): exit code 78.
    pub fn is_config(&self) -> bool {
        todo!()
    }
}

impl Agent {
    /// Recovers, binds both listeners, starts every thread. Does not wait for a leader.
    ///
    /// # Errors
    /// [`AgentError`]; everything that was started is stopped again.
    pub fn start(config: Config) -> Result<Agent, AgentError> {
        todo!("{config:?}")
    }

    /// Where peers reach it, with the port that it got.
    pub fn bind_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Where clients reach it, with the port that it got.
    pub fn rpc_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Threads that failed come out here: stop the node then.
    pub fn failures(&self) -> &Receiver<Fatal> {
        &self.failures
    }

    /// Reads certificates and policy again.
    pub fn reload(&self) {
        todo!()
    }

    /// The clean shutdown of the design.
    ///
    /// # Errors
    /// The first step that failed; every step is done all the same.
    pub fn stop(self) -> Result<(), AgentError> {
        todo!()
    }
}
