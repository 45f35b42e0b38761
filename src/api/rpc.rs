//! The table of RPCs. To add one, add a line here and a handler.

use std::collections::HashMap;
use std::future::Future;

use futures::future::BoxFuture;
use grpcio::{MethodType, ServiceBuilder};

use super::access::Right;
use super::cursors::SEES_CURSORS;
use super::error::ApiError;
use super::limits::Permit;
use super::logs::SEES;
use super::messages::{Request, Response, method};
use super::package::{HEALTH, Package, REFLECTION};
use super::prelude::{AccessChecker, DuplexStream, Prelude, ServerStream};
use super::service::{Call, Service, StreamEnd};
use super::{
    chain, cluster_settings, consume, consume_stream, create, cursors, delete, health, identity, logs, node, nodes,
    produce, produce_stream, producers, reflection, restore, servers, trim, update, upgrade,
};
use crate::grpc::CLIENT_MESSAGE_BYTES_MAX;
use crate::security::acl::Action::{Admin, Commit, Consume, Produce};

/// The maximum size of a request that contains records.
const RECORDS: usize = CLIENT_MESSAGE_BYTES_MAX;
/// The maximum size of every other request.
const SMALL: usize = 64 << 10;

/// One RPC.
struct Rpc {
    /// `/package.Service/Method`.
    method: &'static str,
    right: Right,
    request_bytes_max: usize,
    handler: Handler,
}

/// Registers a handler of one streaming kind.
type Handler = Box<dyn FnOnce(ServiceBuilder, &'static str, Prelude) -> ServiceBuilder>;

/// Returns every RPC of the client listener: the full method name, the permission that it requires, the maximum size of
/// a request, and the streaming kind with the handler. The kind determines which budgets a request uses:
///
/// - [`unary`]: an unanswered request and its bytes
/// - [`long_poll`]: the same, an open stream while it waits, and the bytes of its response
/// - [`server_stream`]: an unanswered request until its message is complete, then an open stream and the bytes of each
///   read
/// - [`duplex`]: an open stream, and the bytes of each request until it is answered
fn table() -> Vec<Rpc> {
    let rpc = |method, right, request_bytes_max, handler| Rpc { method, right, request_bytes_max, handler };
    let (produce, consume, admin) = (Right::Log(&[Produce]), Right::Log(&[Consume]), Right::Log(&[Admin]));
    let commit = Right::Log(&[Commit]);
    let certificate = Right::Certificate;
    vec![
        rpc("/seriatim.v1.LogService/Produce", produce, RECORDS, unary(produce::produce)),
        rpc("/seriatim.v1.LogService/ProduceStream", produce, RECORDS, duplex(produce_stream::produce_stream)),
        rpc("/seriatim.v1.LogService/Consume", consume, SMALL, long_poll(consume::consume)),
        rpc("/seriatim.v1.LogService/ConsumeStream", consume, SMALL, server_stream(consume_stream::consume_stream)),
        rpc("/seriatim.v1.LogService/GetServers", Right::LogIfNamed(SEES), SMALL, unary(servers::get_servers)),
        rpc("/seriatim.v1.LogService/CreateLog", admin, SMALL, unary(create::create_log)),
        rpc("/seriatim.v1.LogService/GetLog", Right::Log(SEES), SMALL, unary(logs::get_log)),
        rpc("/seriatim.v1.LogService/ListLogs", certificate, SMALL, unary(logs::list_logs)),
        rpc("/seriatim.v1.LogService/UpdateLog", admin, SMALL, unary(update::update_log)),
        rpc("/seriatim.v1.LogService/DeleteLog", admin, SMALL, unary(delete::delete_log)),
        rpc("/seriatim.v1.LogService/UndeleteLog", admin, SMALL, unary(delete::undelete_log)),
        rpc("/seriatim.v1.LogService/FinishRestore", admin, SMALL, unary(restore::finish_restore)),
        rpc("/seriatim.v1.LogService/TrimLog", admin, SMALL, unary(trim::trim_log)),
        rpc("/seriatim.v1.LogService/ReadChain", consume, SMALL, unary(chain::read_chain)),
        rpc("/seriatim.v1.LogService/InitProducer", produce, SMALL, unary(producers::init_producer)),
        rpc("/seriatim.v1.LogService/GetProducer", Right::Log(SEES), SMALL, unary(producers::get_producer)),
        rpc("/seriatim.v1.LogService/ListProducers", Right::Log(SEES), SMALL, unary(producers::list_producers)),
        rpc("/seriatim.v1.LogService/AcquireCursor", commit, SMALL, unary(cursors::acquire_cursor)),
        rpc("/seriatim.v1.LogService/CommitCursor", commit, SMALL, unary(cursors::commit_cursor)),
        rpc("/seriatim.v1.LogService/GetCursor", Right::Log(SEES_CURSORS), SMALL, unary(cursors::get_cursor)),
        rpc("/seriatim.v1.LogService/ListCursors", Right::Log(SEES_CURSORS), SMALL, unary(cursors::list_cursors)),
        rpc("/seriatim.v1.LogService/DeleteCursor", commit, SMALL, unary(cursors::delete_cursor)),
        rpc("/seriatim.v1.ClusterService/GetCluster", certificate, SMALL, unary(identity::get_cluster)),
        rpc(
            "/seriatim.v1.ClusterService/UpdateCluster",
            Right::EveryLog(Admin),
            SMALL,
            unary(cluster_settings::update_cluster),
        ),
        rpc(
            "/seriatim.v1.ClusterService/RaiseFeatureLevel",
            Right::EveryLog(Admin),
            SMALL,
            unary(upgrade::raise_feature_level),
        ),
        rpc("/seriatim.v1.ClusterService/WhoAmI", certificate, SMALL, unary(identity::who_am_i)),
        rpc("/seriatim.v1.ClusterService/GetNode", Right::EveryLog(Admin), SMALL, unary(node::get_node)),
        rpc("/seriatim.v1.ClusterService/ListNodes", Right::EveryLog(Admin), SMALL, unary(nodes::list_nodes)),
        rpc("/seriatim.v1.ClusterService/DrainNode", Right::EveryLog(Admin), SMALL, unary(nodes::drain_node)),
        rpc("/seriatim.v1.ClusterService/UndrainNode", Right::EveryLog(Admin), SMALL, unary(nodes::undrain_node)),
        rpc("/seriatim.v1.ClusterService/RemoveNode", Right::EveryLog(Admin), SMALL, unary(nodes::remove_node)),
        rpc("/seriatim.v1.ClusterService/ReplaceNode", Right::EveryLog(Admin), SMALL, unary(nodes::replace_node)),
        rpc("/seriatim.v1.ClusterService/BalanceCluster", Right::EveryLog(Admin), SMALL, unary(nodes::balance_cluster)),
        rpc(
            "/seriatim.v1.ClusterService/TransferLeadership",
            Right::EveryLog(Admin),
            SMALL,
            unary(nodes::transfer_leadership),
        ),
        rpc("/log.v1.Log/Produce", produce, RECORDS, unary(produce::produce)),
        rpc("/log.v1.Log/ProduceStream", produce, RECORDS, duplex(produce_stream::produce_stream)),
        rpc("/log.v1.Log/Consume", consume, SMALL, long_poll(consume::consume)),
        rpc("/log.v1.Log/ConsumeStream", consume, SMALL, server_stream(consume_stream::consume_stream)),
        rpc("/log.v1.Log/GetServers", certificate, SMALL, unary(servers::get_servers_log_v1)),
        rpc("/log.v1.Log/GetLog", Right::Log(SEES), SMALL, unary(logs::get_log_log_v1)),
        rpc("/grpc.health.v1.Health/Check", certificate, SMALL, unary(health::check)),
        rpc("/grpc.health.v1.Health/Watch", certificate, SMALL, server_stream(health::watch)),
        rpc(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            certificate,
            SMALL,
            duplex(reflection::server_reflection_info),
        ),
        rpc(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            certificate,
            SMALL,
            duplex(reflection::server_reflection_info),
        ),
    ]
}

/// Returns the services with every RPC, and the check that runs before a message is received.
pub fn register(service: &Service) -> (grpcio::Service, AccessChecker) {
    let table = table();
    let rights: HashMap<_, _> = table.iter().map(|rpc| (rpc.method, rpc.right)).collect();
    let services = table.into_iter().fold(ServiceBuilder::new(), |builder, rpc| {
        let Rpc { method, right, request_bytes_max, handler } = rpc;
        handler(
            builder,
            method,
            Prelude { service: service.clone(), package: Package::of(method), right, request_bytes_max },
        )
    });
    (services.build(), AccessChecker::new(service, rights))
}

/// Returns the names of the services for health checks. The empty name stands for the process.
pub fn service_names() -> Vec<&'static str> {
    let services = table().into_iter().filter_map(|rpc| rpc.method.strip_prefix('/')?.split('/').next());
    // gRPC's own services have no health status.
    let own = services.filter(|name| *name != HEALTH && !REFLECTION.contains(name));
    let mut names: Vec<&str> = [""].into_iter().chain(own).collect();
    names.dedup();
    names
}

fn unary<T: Response, F>(handle: fn(Service, Call, Request) -> F) -> Handler
where
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    Box::new(move |builder, name, prelude| {
        let method = method::<T>(MethodType::Unary, name);
        builder.add_client_streaming_handler(&method, move |ctx, requests, sink| {
            prelude.unary(&ctx, requests, sink, handle);
        })
    })
}

fn long_poll<T: Response, F>(handle: fn(Service, Call, Request) -> F) -> Handler
where
    F: Future<Output = Result<(T, Option<Permit>), ApiError>> + Send + 'static,
{
    Box::new(move |builder, name, prelude| {
        let method = method::<T>(MethodType::Unary, name);
        builder.add_client_streaming_handler(&method, move |ctx, requests, sink| {
            prelude.long_poll(&ctx, requests, sink, handle);
        })
    })
}

fn server_stream<T: Response>(
    handle: for<'a> fn(ServerStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>,
) -> Handler {
    Box::new(move |builder, name, prelude| {
        let method = method::<T>(MethodType::ServerStreaming, name);
        builder.add_duplex_streaming_handler(&method, move |ctx, requests, sink| {
            prelude.server_stream(&ctx, requests, sink, handle);
        })
    })
}

fn duplex<T: Response>(handle: for<'a> fn(DuplexStream<'a, T>) -> BoxFuture<'a, Result<(), StreamEnd>>) -> Handler {
    Box::new(move |builder, name, prelude| {
        let method = method::<T>(MethodType::Duplex, name);
        builder.add_duplex_streaming_handler(&method, move |ctx, requests, sink| {
            prelude.duplex(&ctx, requests, sink, handle);
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protobuf::Message as _;
    use protobuf::descriptor::FileDescriptorSet;

    use super::*;
    use crate::pb;
    use crate::security::acl::Action;

    #[test]
    fn each_rpc_needs_its_right() {
        let (produce, consume, admin) = (Right::Log(&[Produce]), Right::Log(&[Consume]), Right::Log(&[Admin]));
        let commit = Right::Log(&[Commit]);
        const ANY: &[Action] = &[Consume, Produce, Commit, Admin];
        let expected = [
            ("/seriatim.v1.LogService/Produce", produce),
            ("/seriatim.v1.LogService/ProduceStream", produce),
            ("/seriatim.v1.LogService/Consume", consume),
            ("/seriatim.v1.LogService/ConsumeStream", consume),
            ("/seriatim.v1.LogService/GetServers", Right::LogIfNamed(ANY)),
            ("/seriatim.v1.LogService/CreateLog", admin),
            ("/seriatim.v1.LogService/GetLog", Right::Log(ANY)),
            ("/seriatim.v1.LogService/ListLogs", Right::Certificate),
            ("/seriatim.v1.LogService/UpdateLog", admin),
            ("/seriatim.v1.LogService/DeleteLog", admin),
            ("/seriatim.v1.LogService/UndeleteLog", admin),
            ("/seriatim.v1.LogService/FinishRestore", admin),
            ("/seriatim.v1.LogService/TrimLog", admin),
            ("/seriatim.v1.LogService/ReadChain", consume),
            ("/seriatim.v1.LogService/InitProducer", produce),
            ("/seriatim.v1.LogService/GetProducer", Right::Log(ANY)),
            ("/seriatim.v1.LogService/ListProducers", Right::Log(ANY)),
            ("/seriatim.v1.LogService/AcquireCursor", commit),
            ("/seriatim.v1.LogService/CommitCursor", commit),
            ("/seriatim.v1.LogService/GetCursor", Right::Log(&[Consume, Commit, Admin])),
            ("/seriatim.v1.LogService/ListCursors", Right::Log(&[Consume, Commit, Admin])),
            ("/seriatim.v1.LogService/DeleteCursor", commit),
            ("/seriatim.v1.ClusterService/GetCluster", Right::Certificate),
            ("/seriatim.v1.ClusterService/UpdateCluster", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/RaiseFeatureLevel", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/WhoAmI", Right::Certificate),
            ("/seriatim.v1.ClusterService/GetNode", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/ListNodes", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/DrainNode", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/UndrainNode", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/RemoveNode", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/ReplaceNode", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/BalanceCluster", Right::EveryLog(Admin)),
            ("/seriatim.v1.ClusterService/TransferLeadership", Right::EveryLog(Admin)),
            ("/log.v1.Log/Produce", produce),
            ("/log.v1.Log/ProduceStream", produce),
            ("/log.v1.Log/Consume", consume),
            ("/log.v1.Log/ConsumeStream", consume),
            ("/log.v1.Log/GetServers", Right::Certificate),
            ("/log.v1.Log/GetLog", Right::Log(ANY)),
            ("/grpc.health.v1.Health/Check", Right::Certificate),
            ("/grpc.health.v1.Health/Watch", Right::Certificate),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Right::Certificate),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Right::Certificate),
        ];
        let rights: Vec<_> = table().iter().map(|rpc| (rpc.method, rpc.right)).collect();
        assert_eq!(rights, expected);
    }

    /// A method of a `.proto` without a line in the table would be UNIMPLEMENTED; one without a client is of no use.
    #[test]
    fn every_method_of_the_protos_has_a_line() {
        let files = FileDescriptorSet::parse_from_bytes(pb::DESCRIPTORS).expect("descriptors").file;
        let declared: BTreeSet<String> = files
            .iter()
            .filter(|file| file.package() != "seriatim.peer.v1")
            .flat_map(|file| {
                let services = file.service.iter();
                services.flat_map(|service| {
                    let (package, service_name) = (file.package(), service.name());
                    service.method.iter().map(move |method| format!("/{package}.{service_name}/{}", method.name()))
                })
            })
            .collect();
        let served: BTreeSet<String> = table().iter().map(|rpc| rpc.method.to_owned()).collect();
        assert_eq!(served, declared);
    }

    #[test]
    fn services_are_named_once() {
        assert_eq!(service_names(), ["", "seriatim.v1.LogService", "seriatim.v1.ClusterService", "log.v1.Log"]);
    }
}
