//! The channel to one node, its generated clients, and their completion-queue thread.

use std::time::Duration;

use futures::executor::block_on;
use grpcio::{Channel, ChannelCredentials};

use crate::grpc::{self, Env};
use crate::pb::cluster_service_grpc::ClusterServiceClient;
use crate::pb::log_service_grpc::LogServiceClient;
use crate::thread::fatal_channel;

/// A connection to one node, shared by the clients and streams that use it. Dropping the last of them stops its thread.
pub(super) struct ClientConnection {
    stubs: Option<Stubs>,
    env: Option<Env>,
    addr: String,
}

/// The generated clients of one channel.
pub(super) struct Stubs {
    channel: Channel,
    pub log: LogServiceClient,
    pub cluster: ClusterServiceClient,
}

impl ClientConnection {
    /// Starts to connect, without waiting for the connection.
    pub fn new(addr: &str, credentials: ChannelCredentials) -> ClientConnection {
        // Nothing reads reports from this channel, because there can be none: the thread runs no handlers of this
        // crate.
        let (fatal, _) = fatal_channel();
        let env = Env::start("grpc-client", 1, &fatal);
        let channel = grpc::client_channel(env.get(), addr, credentials, None);
        let log = LogServiceClient::new(channel.clone());
        let cluster = ClusterServiceClient::new(channel.clone());
        ClientConnection { stubs: Some(Stubs { channel, log, cluster }), env: Some(env), addr: addr.to_owned() }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    pub fn stubs(&self) -> &Stubs {
        // Only `drop` takes it.
        self.stubs.as_ref().expect("the client is in use")
    }

    pub fn channel(&self) -> &Channel {
        &self.stubs().channel
    }

    /// Waits until the node is connected. Returns false after the timeout.
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
