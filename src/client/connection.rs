//! The channel to one node, its generated clients, and their completion-queue thread.

use std::time::Duration;

use futures::executor::block_on;
use grpcio::{Channel, ChannelCredentials};

use crate::grpc::{self, Env};
use crate::pb::admin_grpc::AdminClient;
use crate::pb::log_grpc::LogClient;
use crate::thread::fatal_channel;

/// A connection to one node. Everything that uses it keeps it alive; dropping it stops its thread.
pub(super) struct ClientConnection {
    stubs: Option<Stubs>,
    env: Option<Env>,
    addr: String,
}

/// The generated clients of one channel.
pub(super) struct Stubs {
    channel: Channel,
    pub log: LogClient,
    pub admin: AdminClient,
}

impl ClientConnection {
    /// Starts to connect, and does not wait for it.
    pub fn new(addr: &str, credentials: ChannelCredentials) -> ClientConnection {
        // Nothing receives from this channel: no handler runs on the thread, so nothing of ours can panic there.
        let (fatal, _) = fatal_channel();
        let env = Env::start("grpc-client", 1, &fatal);
        let channel = grpc::client_channel(env.get(), addr, credentials, None);
        let log = LogClient::new(channel.clone());
        let admin = AdminClient::new(channel.clone());
        ClientConnection { stubs: Some(Stubs { channel, log, admin }), env: Some(env), addr: addr.to_owned() }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    pub fn stubs(&self) -> &Stubs {
        // Taken in `drop` alone.
        self.stubs.as_ref().expect("the client is in use")
    }

    pub fn channel(&self) -> &Channel {
        &self.stubs().channel
    }

    /// True once the node is connected, false after the timeout.
    pub fn wait_connected(&self, timeout: Duration) -> bool {
        block_on(self.channel().wait_for_connected(timeout))
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.stubs = None;
        if let Some(env) = self.env.take()
            && env.stop().is_err()
        {
            log::warn!("a request to {} is still open: its thread is left running", self.addr);
        }
    }
}
