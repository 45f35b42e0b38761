//! [`Client`], with one method per RPC.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use grpcio::{CallOption, Channel, ChannelCredentials};

use super::connection::ClientConnection;
use super::status::ClientError;
use super::streams::{ConsumeStream, ProduceStream};
use crate::pb::v1::{
    AcquireCursorRequest, BalanceClusterRequest, Cluster, CommitCursorRequest, ConsumeRequest, ConsumeResponse,
    CreateLogRequest, Cursor, DeleteCursorRequest, DeleteLogRequest, DrainNodeRequest, FinishRestoreRequest,
    GetClusterRequest, GetCursorRequest, GetLogRequest, GetNodeRequest, GetNodeResponse, GetServersRequest,
    GetServersResponse, InitProducerRequest, ListCursorsRequest, ListLogsRequest, ListLogsResponse, ListNodesRequest,
    ListNodesResponse, ListProducersRequest, LogInfo, Node, ProduceRequest, ProduceResponse, Producer,
    RaiseFeatureLevelRequest, RaiseFeatureLevelResponse, ReadChainRequest, ReadChainResponse, Record,
    RemoveNodeRequest, ReplaceNodeRequest, TransferLeadershipRequest, TrimLogRequest, TrimLogResponse,
    UndeleteLogRequest, UndrainNodeRequest, UpdateClusterRequest, UpdateLogRequest, WhoAmIRequest, WhoAmIResponse,
};
use crate::security::tls;

/// The files that a client needs for mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate of the CA that must have issued the server's certificate.
    pub ca_file: PathBuf,
    /// The client's certificate; its common name is the principal.
    pub cert_file: PathBuf,
    /// The key of the certificate.
    pub key_file: PathBuf,
}

impl ClientFiles {
    /// The files of a user in a directory that `seriatim certs` has written.
    pub fn in_dir(dir: impl AsRef<Path>, user: &str) -> ClientFiles {
        let file = |name: String| dir.as_ref().join(name);
        ClientFiles {
            ca_file: file("ca.pem".to_owned()),
            cert_file: file(format!("client-{user}.pem")),
            key_file: file(format!("client-{user}-key.pem")),
        }
    }
}

/// How to connect to a node.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The node's client address, `host:port`.
    pub addr: String,
    /// `None`: without TLS, for a node that runs with `--insecure`.
    pub files: Option<ClientFiles>,
    /// The deadline of every unary request.
    pub timeout: Duration,
}

/// A connection to one node. Clones share it.
#[derive(Clone)]
pub struct Client {
    connection: Arc<ClientConnection>,
    timeout: Duration,
}

impl Client {
    /// Reads the certificate files and starts to connect, without waiting for the connection.
    ///
    /// # Errors
    /// [`ClientError::Files`] if the certificate files can't be used.
    pub fn new(options: &ClientOptions) -> Result<Client, ClientError> {
        let credentials = match &options.files {
            Some(f) => tls::client_credentials(&f.ca_file, &f.cert_file, &f.key_file)
                .map_err(|e| ClientError::Files(e.to_string()))?,
            None => ChannelCredentials::insecure(),
        };
        Ok(Client::with_credentials(&options.addr, credentials, options.timeout))
    }

    /// Starts to connect with the given credentials, without waiting for the connection.
    pub fn with_credentials(addr: &str, credentials: ChannelCredentials, timeout: Duration) -> Client {
        Client { connection: Arc::new(ClientConnection::new(addr, credentials)), timeout }
    }

    /// Returns a client that uses the same connection with another deadline for its requests.
    pub fn within(&self, timeout: Duration) -> Client {
        Client { timeout, ..self.clone() }
    }

    /// Returns the address that the client was created with.
    pub fn addr(&self) -> &str {
        self.connection.addr()
    }

    /// Returns the channel, for RPCs without a method here.
    pub fn channel(&self) -> &Channel {
        self.connection.channel()
    }

    /// Waits until the node is connected. Returns false after the timeout.
    pub fn wait_connected(&self, timeout: Duration) -> bool {
        self.connection.wait_connected(timeout)
    }

    /// Appends records, all or nothing, with contiguous offsets.
    ///
    /// # Errors
    /// [`ClientError::outcome`] says whether they were appended.
    pub fn produce(&self, log: &str, records: Vec<Record>) -> Result<ProduceResponse, ClientError> {
        let request = ProduceRequest { log: log.to_owned(), records, ..ProduceRequest::default() };
        self.produce_request(&request)
    }

    /// Sends the given produce request.
    ///
    /// # Errors
    /// [`ClientError::outcome`] says whether it was appended.
    pub fn produce_request(&self, request: &ProduceRequest) -> Result<ProduceResponse, ClientError> {
        Ok(self.connection.stubs().log.produce_opt(request, self.deadline())?)
    }

    /// Reads records with one request.
    ///
    /// # Errors
    /// The server's status.
    pub fn consume(&self, request: &ConsumeRequest) -> Result<ConsumeResponse, ClientError> {
        Ok(self.connection.stubs().log.consume_opt(request, self.deadline())?)
    }

    /// Reads the record at an offset.
    ///
    /// # Errors
    /// The server's status; [`ClientError::NoRecord`] at the next offset of the log.
    pub fn consume_at(&self, log: &str, offset: u64) -> Result<Record, ClientError> {
        let request = ConsumeRequest { log: log.to_owned(), offset, max_records: 1, ..ConsumeRequest::default() };
        self.consume(&request)?.records.into_iter().next().ok_or(ClientError::NoRecord(offset))
    }

    /// Reads the stored records, and then new ones as they are appended. After `deadline`, if there is one, the
    /// stream ends with DEADLINE_EXCEEDED.
    ///
    /// # Errors
    /// If the request can't be started. The server's status is returned by the stream.
    pub fn consume_stream(
        &self,
        request: &ConsumeRequest,
        deadline: Option<Duration>,
    ) -> Result<ConsumeStream, ClientError> {
        let option = deadline.map_or_else(CallOption::default, |d| CallOption::default().timeout(d));
        let receiver = self.connection.stubs().log.consume_stream_opt(request, option)?;
        Ok(ConsumeStream::new(receiver, self.connection.clone()))
    }

    /// Opens a stream of produce requests, which are sent without waiting for responses.
    ///
    /// # Errors
    /// If the stream can't be started. The server's status is returned by [`ProduceStream::answer`].
    pub fn produce_stream(&self) -> Result<ProduceStream, ClientError> {
        let (sender, receiver) = self.connection.stubs().log.produce_stream()?;
        Ok(ProduceStream::new(sender, receiver, self.connection.clone()))
    }

    /// Returns every member of the cluster.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_servers(&self, log: &str) -> Result<GetServersResponse, ClientError> {
        let request = GetServersRequest { log: log.to_owned(), ..GetServersRequest::default() };
        Ok(self.connection.stubs().log.get_servers_opt(&request, self.deadline())?)
    }

    /// Creates a log, and returns it.
    ///
    /// # Errors
    /// The server's status.
    pub fn create_log(&self, request: &CreateLogRequest) -> Result<LogInfo, ClientError> {
        Ok(self.connection.stubs().log.create_log_opt(request, self.deadline())?.log.unwrap_or_default())
    }

    /// Returns a log, its settings and its bounds.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_log(&self, log: &str) -> Result<LogInfo, ClientError> {
        let request = GetLogRequest { log: log.to_owned(), ..GetLogRequest::default() };
        Ok(self.connection.stubs().log.get_log_opt(&request, self.deadline())?.log.unwrap_or_default())
    }

    /// Opens a log whose records were restored from a backup, and returns it.
    ///
    /// # Errors
    /// The server's status.
    pub fn finish_restore(&self, log: &str, log_id: &str) -> Result<LogInfo, ClientError> {
        let request =
            FinishRestoreRequest { log: log.to_owned(), log_id: log_id.to_owned(), ..FinishRestoreRequest::default() };
        Ok(self.connection.stubs().log.finish_restore_opt(&request, self.deadline())?.log.unwrap_or_default())
    }

    /// Returns a page of the list of logs.
    ///
    /// # Errors
    /// The server's status.
    pub fn list_logs(&self, request: &ListLogsRequest) -> Result<ListLogsResponse, ClientError> {
        Ok(self.connection.stubs().log.list_logs_opt(request, self.deadline())?)
    }

    /// Deletes a log, and returns it.
    ///
    /// # Errors
    /// The server's status.
    pub fn delete_log(&self, request: &DeleteLogRequest) -> Result<LogInfo, ClientError> {
        Ok(self.connection.stubs().log.delete_log_opt(request, self.deadline())?.log.unwrap_or_default())
    }

    /// Reverts the deletion of a log, and returns the log.
    ///
    /// # Errors
    /// The server's status.
    pub fn undelete_log(&self, log: &str, log_id: &str) -> Result<LogInfo, ClientError> {
        let request =
            UndeleteLogRequest { log: log.to_owned(), log_id: log_id.to_owned(), ..UndeleteLogRequest::default() };
        Ok(self.connection.stubs().log.undelete_log_opt(&request, self.deadline())?.log.unwrap_or_default())
    }

    /// Changes the settings of the cluster, and returns the cluster.
    ///
    /// # Errors
    /// The server's status.
    pub fn update_cluster(&self, request: &UpdateClusterRequest) -> Result<Cluster, ClientError> {
        let response = self.connection.stubs().cluster.update_cluster_opt(request, self.deadline())?;
        Ok(response.cluster.unwrap_or_default())
    }

    /// Returns the cluster.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_cluster(&self) -> Result<Cluster, ClientError> {
        let response = self.connection.stubs().cluster.get_cluster_opt(&GetClusterRequest::new(), self.deadline())?;
        Ok(response.cluster.unwrap_or_default())
    }

    /// Returns the caller's name, and what the access policy allows to it.
    ///
    /// # Errors
    /// The server's status.
    pub fn who_am_i(&self) -> Result<WhoAmIResponse, ClientError> {
        Ok(self.connection.stubs().cluster.who_am_i_opt(&WhoAmIRequest::new(), self.deadline())?)
    }

    /// Returns the state of the node and its replicas.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_node(&self) -> Result<GetNodeResponse, ClientError> {
        Ok(self.connection.stubs().cluster.get_node_opt(&GetNodeRequest::default(), self.deadline())?)
    }

    /// Sends [`Client::get_node`] before it returns a future for the response, so that several nodes can be asked at
    /// once.
    pub fn begin_get_node(&self) -> impl Future<Output = Result<GetNodeResponse, ClientError>> + use<> {
        let call = self.connection.stubs().cluster.get_node_async_opt(&GetNodeRequest::default(), self.deadline());
        async move { Ok(call?.await?) }
    }

    /// Registers a producer, or takes a named one over.
    ///
    /// # Errors
    /// The server's status. The same request again has no further effect.
    pub fn init_producer(&self, request: &InitProducerRequest) -> Result<Producer, ClientError> {
        Ok(self.connection.stubs().log.init_producer_opt(request, self.deadline())?.producer.unwrap_or_default())
    }

    /// Returns all producers of a log.
    ///
    /// # Errors
    /// The server's status.
    pub fn list_producers(&self, log: &str) -> Result<Vec<Producer>, ClientError> {
        let request = ListProducersRequest { log: log.to_owned(), ..ListProducersRequest::default() };
        Ok(self.connection.stubs().log.list_producers_opt(&request, self.deadline())?.producers)
    }

    /// Returns a part of the hash chain of a log.
    ///
    /// # Errors
    /// The server's status.
    pub fn read_chain(&self, request: &ReadChainRequest) -> Result<ReadChainResponse, ClientError> {
        Ok(self.connection.stubs().log.read_chain_opt(request, self.deadline())?)
    }

    /// Takes a cursor over, and creates it if it does not exist.
    ///
    /// # Errors
    /// The server's status. The same request again has no further effect.
    pub fn acquire_cursor(&self, request: &AcquireCursorRequest) -> Result<Cursor, ClientError> {
        Ok(self.connection.stubs().log.acquire_cursor_opt(request, self.deadline())?.cursor.unwrap_or_default())
    }

    /// Stores the position of a reader.
    ///
    /// # Errors
    /// The server's status. The same request again has no further effect.
    pub fn commit_cursor(&self, request: &CommitCursorRequest) -> Result<Cursor, ClientError> {
        Ok(self.connection.stubs().log.commit_cursor_opt(request, self.deadline())?.cursor.unwrap_or_default())
    }

    /// Returns a cursor.
    ///
    /// # Errors
    /// The server's status.
    pub fn get_cursor(&self, log: &str, cursor: &str) -> Result<Cursor, ClientError> {
        let request =
            GetCursorRequest { log: log.to_owned(), cursor: cursor.to_owned(), ..GetCursorRequest::default() };
        Ok(self.connection.stubs().log.get_cursor_opt(&request, self.deadline())?.cursor.unwrap_or_default())
    }

    /// Returns all cursors of a log.
    ///
    /// # Errors
    /// The server's status.
    pub fn list_cursors(&self, log: &str) -> Result<Vec<Cursor>, ClientError> {
        let request = ListCursorsRequest { log: log.to_owned(), ..ListCursorsRequest::default() };
        Ok(self.connection.stubs().log.list_cursors_opt(&request, self.deadline())?.cursors)
    }

    /// Deletes a cursor.
    ///
    /// # Errors
    /// The server's status. The same request again has no further effect.
    pub fn delete_cursor(&self, request: &DeleteCursorRequest) -> Result<(), ClientError> {
        Ok(self.connection.stubs().log.delete_cursor_opt(request, self.deadline()).map(drop)?)
    }

    /// Makes the records below an offset unreadable.
    ///
    /// # Errors
    /// The server's status.
    pub fn trim(&self, log: &str, first_offset: u64) -> Result<TrimLogResponse, ClientError> {
        let request = TrimLogRequest { log: log.to_owned(), first_offset, ..TrimLogRequest::default() };
        Ok(self.connection.stubs().log.trim_log_opt(&request, self.deadline())?)
    }

    /// Changes the settings of a log, and returns the log.
    ///
    /// # Errors
    /// The server's status.
    pub fn update_log(&self, request: &UpdateLogRequest) -> Result<LogInfo, ClientError> {
        Ok(self.connection.stubs().log.update_log_opt(request, self.deadline())?.log.unwrap_or_default())
    }

    /// Raises the cluster's feature level.
    ///
    /// # Errors
    /// The server's status.
    pub fn raise_feature_level(&self, level: u32) -> Result<RaiseFeatureLevelResponse, ClientError> {
        let request = RaiseFeatureLevelRequest { level, ..RaiseFeatureLevelRequest::default() };
        Ok(self.connection.stubs().cluster.raise_feature_level_opt(&request, self.deadline())?)
    }

    /// Returns the nodes of the cluster.
    ///
    /// # Errors
    /// The server's status.
    pub fn list_nodes(&self) -> Result<ListNodesResponse, ClientError> {
        Ok(self.connection.stubs().cluster.list_nodes_opt(&ListNodesRequest::new(), self.deadline())?)
    }

    /// Makes a node hand over the logs that it leads, or ends that and its removal. Returns the node; `None` if it is
    /// removed already.
    ///
    /// # Errors
    /// The server's status.
    pub fn drain_node(&self, node_id: &str, drained: bool) -> Result<Option<Node>, ClientError> {
        let (stub, node_id) = (&self.connection.stubs().cluster, node_id.to_owned());
        let node = match drained {
            true => {
                let request = DrainNodeRequest { node_id, ..DrainNodeRequest::default() };
                stub.drain_node_opt(&request, self.deadline())?.node
            }
            false => {
                let request = UndrainNodeRequest { node_id, ..UndrainNodeRequest::default() };
                stub.undrain_node_opt(&request, self.deadline())?.node
            }
        };
        Ok(node.into_option())
    }

    /// Removes a node, after its replicas have moved. Returns the node; `None` if it is removed already.
    ///
    /// # Errors
    /// The server's status.
    pub fn remove_node(&self, node_id: &str) -> Result<Option<Node>, ClientError> {
        let request = RemoveNodeRequest { node_id: node_id.to_owned(), ..RemoveNodeRequest::default() };
        Ok(self.connection.stubs().cluster.remove_node_opt(&request, self.deadline())?.node.into_option())
    }

    /// Replaces a node by another one, or by the next one without data that has its name (`by_node_id` is empty).
    /// Returns the node; `None` if it is removed already.
    ///
    /// # Errors
    /// The server's status.
    pub fn replace_node(&self, node_id: &str, by_node_id: &str) -> Result<Option<Node>, ClientError> {
        let (node_id, by_node_id) = (node_id.to_owned(), by_node_id.to_owned());
        let request = ReplaceNodeRequest { node_id, by_node_id, ..ReplaceNodeRequest::default() };
        Ok(self.connection.stubs().cluster.replace_node_opt(&request, self.deadline())?.node.into_option())
    }

    /// Starts or stops moving replicas until every node has about the same number. Returns whether replicas move.
    ///
    /// # Errors
    /// The server's status.
    pub fn balance_cluster(&self, stop: bool) -> Result<bool, ClientError> {
        let request = BalanceClusterRequest { stop, ..BalanceClusterRequest::default() };
        Ok(self.connection.stubs().cluster.balance_cluster_opt(&request, self.deadline())?.balancing)
    }

    /// Hands over the leadership of a log, or of the catalog if the name is empty, from this node to another one. Returns
    /// the id of the node that leads now.
    ///
    /// # Errors
    /// The server's status.
    pub fn transfer_leadership(&self, log: &str, to_node_id: &str) -> Result<String, ClientError> {
        let (log, to_node_id) = (log.to_owned(), to_node_id.to_owned());
        let request = TransferLeadershipRequest { log, to_node_id, ..TransferLeadershipRequest::default() };
        let stub = &self.connection.stubs().cluster;
        Ok(stub.transfer_leadership_opt(&request, self.deadline())?.leader_node_id)
    }

    fn deadline(&self) -> CallOption {
        CallOption::default().timeout(self.timeout)
    }
}
