//! `grpc.reflection.v1` and `v1alpha`: tools such as grpcurl ask here for the services and their messages.
//!
//! The protocol is in `proto/grpc/reflection`. The messages of the two versions are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::LazyLock;

use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use grpcio::{RpcStatusCode, WriteFlags};
use protobuf::Message as _;
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use super::error::{ApiError, Invalid};
use super::messages::decode_known;
use super::package::{HEALTH, REFLECTION};
use super::prelude::DuplexStream;
use super::service::StreamEnd;
use crate::pb;
use crate::pb::reflection::server_reflection_request::Message_request as Question;
use crate::pb::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};

type Reply = ServerReflectionResponse;

/// The largest request. Names of files and symbols are much shorter.
const REQUEST_BYTES_MAX: usize = 4 << 10;

/// Serves `ServerReflectionInfo`.
pub fn server_reflection_info(stream: DuplexStream<'_, Reply>) -> BoxFuture<'_, Result<(), StreamEnd>> {
    serve(stream).boxed()
}

async fn serve(stream: DuplexStream<'_, Reply>) -> Result<(), StreamEnd> {
    let DuplexStream { service, call, requests, sink } = stream;
    let index = &*INDEX;
    loop {
        let over = select(service.timers.at(call.next_check()), service.stopping());
        let request = match select(requests.next(), pin!(over)).await {
            Either::Left((None, _)) => return Ok(()),
            Either::Left((Some(Err(_)), _)) => return Err(StreamEnd::Gone),
            Either::Left((Some(Ok(request)), _)) => request,
            Either::Right((Either::Right(_), _)) => return Err(ApiError::Stopping.into()),
            Either::Right((Either::Left(_), _)) => {
                call.check_certificate()?;
                continue;
            }
        };
        call.account.add(request.0.len());
        if request.0.len() > REQUEST_BYTES_MAX {
            return Err(Invalid::MessageTooLarge { bytes_max: REQUEST_BYTES_MAX }.into());
        }
        let _bytes = service.limits.bytes(&call.principal(), request.0.len())?;
        let request: ServerReflectionRequest = decode_known(&request)?;
        let response = index.answer(request, &service.services);
        sink.send((response, WriteFlags::default())).await.map_err(|_| StreamEnd::Gone)?;
    }
}

/// The files that declare the services of the client listener, with their imports.
struct Index {
    /// The serialized `FileDescriptorProto` of each file, by its name, with the names of its imports.
    files: BTreeMap<String, (Vec<u8>, Vec<String>)>,
    /// The file that declares each service, method, message, field and enum, by their full names.
    symbols: BTreeMap<String, String>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| Index::new(pb::DESCRIPTORS));

/// The packages of the protocol between nodes and of the catalog, which clients can't call.
const INTERNAL: [&str; 2] = ["seriatim.peer.v1", "seriatim.catalog.v1"];

impl Index {
    fn new(descriptors: &[u8]) -> Index {
        // The bytes are a part of this program; a test parses them.
        let files = FileDescriptorSet::parse_from_bytes(descriptors).unwrap_or_default().file;
        let mut index = Index { files: BTreeMap::new(), symbols: BTreeMap::new() };
        for file in files.into_iter().filter(|file| !INTERNAL.contains(&file.package())) {
            index.add(&file);
        }
        index
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        let package = match file.package() {
            "" => String::new(),
            package => format!("{package}."),
        };
        let mut names = Vec::new();
        for service in &file.service {
            let name = format!("{package}{}", service.name());
            names.extend(service.method.iter().map(|method| format!("{name}.{}", method.name())));
            names.push(name);
        }
        file.message_type.iter().for_each(|message| add_message(&package, message, &mut names));
        file.enum_type.iter().for_each(|values| add_enum(&package, values, &mut names));
        self.symbols.extend(names.into_iter().map(|name| (name, file.name().to_owned())));
        let bytes = file.write_to_bytes().unwrap_or_default();
        self.files.insert(file.name().to_owned(), (bytes, file.dependency.clone()));
    }

    fn answer(&self, request: ServerReflectionRequest, services: &[&str]) -> Reply {
        let mut reply = Reply::new();
        reply.valid_host.clone_from(&request.host);
        let not_found = |what: &str| format!("{what:?} is not declared by the services of this node");
        match &request.message_request {
            Some(Question::FileByFilename(name)) => match self.with_imports(name) {
                Some(files) => reply.set_file_descriptor_response(files),
                None => reply.set_error_response(error(RpcStatusCode::NOT_FOUND, not_found(name))),
            },
            Some(Question::FileContainingSymbol(symbol)) => {
                match self.symbols.get(symbol.as_str()).and_then(|file| self.with_imports(file)) {
                    Some(files) => reply.set_file_descriptor_response(files),
                    None => reply.set_error_response(error(RpcStatusCode::NOT_FOUND, not_found(symbol))),
                }
            }
            // proto3 has no extensions.
            Some(Question::FileContainingExtension(wanted)) => {
                reply.set_error_response(error(RpcStatusCode::NOT_FOUND, not_found(&wanted.containing_type)));
            }
            Some(Question::AllExtensionNumbersOfType(name)) => match self.symbols.contains_key(name) {
                true => {
                    let mut numbers = ExtensionNumberResponse::new();
                    numbers.base_type_name.clone_from(name);
                    reply.set_all_extension_numbers_response(numbers);
                }
                false => reply.set_error_response(error(RpcStatusCode::NOT_FOUND, not_found(name))),
            },
            Some(Question::ListServices(_)) => {
                let mut list = ListServiceResponse::new();
                list.service = self.services(services);
                reply.set_list_services_response(list);
            }
            None => {
                let text = "the request is empty: set one of its fields".to_owned();
                reply.set_error_response(error(RpcStatusCode::INVALID_ARGUMENT, text));
            }
        }
        reply.original_request = Some(request).into();
        reply
    }

    /// Returns the services that have a file here. The health checks' name for the process is not a service.
    fn services(&self, services: &[&str]) -> Vec<ServiceResponse> {
        let served = services.iter().copied().chain([HEALTH]).chain(REFLECTION);
        let named: BTreeSet<&str> = served.filter(|name| self.symbols.contains_key(*name)).collect();
        let response = |name: &str| ServiceResponse { name: name.to_owned(), ..ServiceResponse::default() };
        named.into_iter().map(response).collect()
    }

    /// Returns a file and everything that it imports, the file itself first.
    fn with_imports(&self, name: &str) -> Option<FileDescriptorResponse> {
        let mut response = FileDescriptorResponse::new();
        let (mut wanted, mut seen) = (vec![name], BTreeSet::new());
        self.files.get(name)?;
        while let Some(name) = wanted.pop() {
            if let Some((bytes, imports)) = self.files.get(name)
                && seen.insert(name)
            {
                response.file_descriptor_proto.push(bytes.clone().into());
                wanted.extend(imports.iter().map(String::as_str));
            }
        }
        Some(response)
    }
}

fn add_message(prefix: &str, message: &DescriptorProto, names: &mut Vec<String>) {
    let name = format!("{prefix}{}", message.name());
    names.extend(message.field.iter().map(|field| format!("{name}.{}", field.name())));
    names.extend(message.oneof_decl.iter().map(|oneof| format!("{name}.{}", oneof.name())));
    let inner = format!("{name}.");
    message.nested_type.iter().for_each(|message| add_message(&inner, message, names));
    message.enum_type.iter().for_each(|values| add_enum(&inner, values, names));
    names.push(name);
}

/// The values of an enum are siblings of its name, as in C++.
fn add_enum(prefix: &str, values: &EnumDescriptorProto, names: &mut Vec<String>) {
    names.push(format!("{prefix}{}", values.name()));
    names.extend(values.value.iter().map(|value| format!("{prefix}{}", value.name())));
}

fn error(code: RpcStatusCode, message: String) -> ErrorResponse {
    ErrorResponse { error_code: code.into(), error_message: message, ..ErrorResponse::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: [&str; 4] = ["", "seriatim.v1.LogService", "seriatim.v1.ClusterService", "log.v1.Log"];

    fn ask(question: Question) -> Reply {
        let request = ServerReflectionRequest { message_request: Some(question), ..ServerReflectionRequest::default() };
        INDEX.answer(request, &SERVICES)
    }

    fn names(reply: &Reply) -> Vec<String> {
        let files = &reply.file_descriptor_response().file_descriptor_proto;
        let name =
            |bytes: &bytes::Bytes| FileDescriptorProto::parse_from_bytes(bytes).expect("a file").name().to_owned();
        files.iter().map(name).collect()
    }

    #[test]
    fn lists_the_services_that_clients_can_call() {
        let reply = ask(Question::ListServices(String::new()));
        let services: Vec<&str> = reply.list_services_response().service.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            services,
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "log.v1.Log",
                "seriatim.v1.ClusterService",
                "seriatim.v1.LogService",
            ]
        );
    }

    #[test]
    fn returns_a_file_with_everything_that_it_imports() {
        let all = [
            "seriatim/v1/log_service.proto",
            "google/protobuf/timestamp.proto",
            "google/protobuf/field_mask.proto",
            "google/protobuf/duration.proto",
        ];
        for symbol in ["seriatim.v1.LogService", "seriatim.v1.LogService.Produce", "seriatim.v1.Record.append_time_us"]
        {
            assert_eq!(names(&ask(Question::FileContainingSymbol(symbol.to_owned()))), all, "{symbol}");
        }
        assert_eq!(names(&ask(Question::FileByFilename("seriatim/v1/log_service.proto".to_owned()))), all);
        for symbol in ["seriatim.v1.START_LATEST", "seriatim.v1.Metric.LabelsEntry", "google.protobuf.Timestamp"] {
            assert!(!names(&ask(Question::FileContainingSymbol(symbol.to_owned()))).is_empty(), "{symbol}");
        }
    }

    #[test]
    fn says_what_is_not_found() {
        for question in [
            Question::FileContainingSymbol("seriatim.peer.v1.Peer".to_owned()),
            Question::FileByFilename("absent.proto".to_owned()),
            Question::AllExtensionNumbersOfType("a.B".to_owned()),
        ] {
            assert_eq!(ask(question).error_response().error_code, i32::from(RpcStatusCode::NOT_FOUND));
        }
        let empty = INDEX.answer(ServerReflectionRequest::new(), &SERVICES);
        assert_eq!(empty.error_response().error_code, i32::from(RpcStatusCode::INVALID_ARGUMENT));
    }
}
