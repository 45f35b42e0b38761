//! The client listener: starts, takes calls, drains and stops.

use std::error::Error;
use std::fmt;
use std::time::Instant;

use grpcio::ServerCredentials;

use super::core::{Core, Me};
use crate::thread::FatalSender;

/// What the client listener is started with.
pub struct ApiOptions {
    /// Where to listen, `host:port`; port 0 takes any.
    pub listen_addr: String,
    /// The listener's credentials.
    pub credentials: ServerCredentials,
    /// No certificates: every caller is `anonymous`.
    pub insecure: bool,
    /// Who this node is.
    pub me: Me,
}

/// The client listener does not start.
#[derive(Debug)]
pub enum StartError {
    /// The address can't be bound.
    Bind {
        /// Which.
        addr: String,
    },
    /// gRPC refuses for another reason.
    Grpc(grpcio::Error),
    /// A thread can't be made.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind { addr } => {
                write!(f, "can't listen for clients on {addr}: in use by another process, or no address of this host")
            }
            StartError::Grpc(e) => write!(f, "can't start the client listener: {e}"),
            StartError::Thread(e) => write!(f, "can't start a thread of the client listener: {e}"),
        }
    }
}

impl Error for StartError {}

/// The running client listener. Dropping it stops it.
pub struct Api {
    port: u16,
}

impl Api {
    /// Binds and takes calls. Until [`Api::serve`] they are answered with JOINING.
    ///
    /// # Errors
    /// [`StartError`] when it can't listen.
    pub fn start(options: ApiOptions, fatal: &FatalSender) -> Result<Api, StartError> {
        let _ = (options, fatal);
        todo!()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The node is a member: from now on calls are served. Once.
    pub fn serve(&self, core: Core) {
        let _ = core;
        todo!()
    }

    /// The policy or the certificates were loaded anew: every open stream checks its right again.
    pub fn recheck(&self) {
        todo!()
    }

    /// Refuses new calls (STOPPING), ends tails with a status and waits until the calls in flight are answered, at most
    /// until `deadline`. True when none is left.
    pub fn drain(&self, deadline: Instant) -> bool {
        let _ = deadline;
        todo!()
    }

    /// Closes the listener, cancels what is left and joins its threads.
    pub fn stop(self) {}
}
