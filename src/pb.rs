//! The messages and services generated from `proto/`.

#![allow(missing_docs, clippy::all, clippy::unwrap_used, unknown_lints, renamed_and_removed_lints)]

pub mod unary;

mod generated {
    include!(concat!(env!("OUT_DIR"), "/pb/mod.rs"));
}

pub use generated::{
    backup, catalog, cluster_service_grpc, error_details, errors, health, health_grpc, log, log_grpc, log_service_grpc,
    log_state as logstate, peer, peer_grpc, reflection, status,
};

/// The messages of the package `seriatim.v1`.
pub mod v1 {
    pub use super::generated::cluster_service::{
        BalanceClusterRequest, BalanceClusterResponse, Bucket, CatchUp, Cluster, ClusterSettings, DamagedRange,
        DeletedLog, DiskState, DiskStatus, DrainNodeRequest, DrainNodeResponse, GetClusterRequest, GetClusterResponse,
        GetNodeRequest, GetNodeResponse, GroupStatus, Histogram, ListNodesRequest, ListNodesResponse, Metric, Node,
        NodeState, Permission, RaiseFeatureLevelRequest, RaiseFeatureLevelResponse, RemoveNodeRequest,
        RemoveNodeResponse, ReplaceNodeRequest, ReplaceNodeResponse, Replica, Role, TransferLeadershipRequest,
        TransferLeadershipResponse, UndrainNodeRequest, UndrainNodeResponse, UpdateClusterRequest,
        UpdateClusterResponse, WhoAmIRequest, WhoAmIResponse, metric,
    };
    pub use super::generated::errors::Reason;
    pub use super::generated::log_service::{
        AcquireCursorRequest, AcquireCursorResponse, ChainLink, CommitCursorRequest, CommitCursorResponse,
        ConsumeRequest, ConsumeResponse, CreateLogRequest, CreateLogResponse, Cursor, DeleteCursorRequest,
        DeleteCursorResponse, DeleteLogRequest, DeleteLogResponse, FinishRestoreRequest, FinishRestoreResponse,
        GetCursorRequest, GetCursorResponse, GetLogRequest, GetLogResponse, GetProducerRequest, GetProducerResponse,
        GetServersRequest, GetServersResponse, Header, InitProducerRequest, InitProducerResponse, ListCursorsRequest,
        ListCursorsResponse, ListLogsRequest, ListLogsResponse, ListProducersRequest, ListProducersResponse, LogConfig,
        LogInfo, LogPosition, LogState, ProduceRequest, ProduceResponse, Producer, ReadChainRequest, ReadChainResponse,
        Receipt, ReceiptStatement, Record, Restore, Server, Start, TrimLogRequest, TrimLogResponse, UndeleteLogRequest,
        UndeleteLogResponse, UpdateLogRequest, UpdateLogResponse, get_producer_request,
    };
}

/// The file that declares `seriatim.v1.LogService`.
#[cfg(test)]
pub fn v1_log_service_file() -> &'static protobuf::reflect::FileDescriptor {
    generated::log_service::file_descriptor()
}

/// The serialized `google.protobuf.FileDescriptorSet` of all files in `proto/`, with their imports.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pb/descriptors.bin"));

/// Parses a message. The bytes may come from an untrusted host.
///
/// # Errors
/// If the bytes are not a valid message.
pub fn parse<M: protobuf::Message>(bytes: &[u8]) -> protobuf::Result<M> {
    let mut input = protobuf::CodedInputStream::from_bytes(bytes);
    // Without a limit, rust-protobuf allocates up to ten million bytes for the length that a field claims, before it
    // has read any of them. For fields of type `bytes` it does so in spite of the limit.
    input.push_limit(bytes.len() as u64)?;
    let mut message = M::new();
    message.merge_from(&mut input)?;
    message.check_initialized()?;
    Ok(message)
}
