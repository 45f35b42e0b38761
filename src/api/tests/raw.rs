//! Calls with messages that are bytes, possibly bytes that no client would send.

use std::io::Read as _;

use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, GrpcSlice, Marshaller, MessageReader, Method, MethodType, WriteFlags};

use super::node::Node;
use super::*;

fn take_bytes(mut reader: MessageReader) -> grpcio::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|e| grpcio::Error::Codec(Box::new(e)))?;
    Ok(bytes)
}

fn put_bytes(bytes: &Vec<u8>, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = GrpcSlice::from(bytes.as_slice());
    Ok(())
}

/// Sends the messages to a method, `/package.Service/Method`, and closes the sending side. Returns the responses, and the status
/// if it is an error. On the wire, a call with one message is a stream of one.
pub fn exchange(node: &Node, method: &str, requests: &[Vec<u8>]) -> (Vec<Vec<u8>>, Result<(), RpcStatus>) {
    let marshaller = || Marshaller { ser: put_bytes, de: take_bytes };
    let name: &'static str = Box::leak(method.to_owned().into_boxed_str());
    let method = Method { ty: MethodType::Duplex, name, req_mar: marshaller(), resp_mar: marshaller() };
    let client = grpcio::Client::new(node.channel.clone());
    let (mut sender, mut receiver) = client.duplex_streaming(&method, CallOption::default()).expect("started");
    for request in requests {
        // The call may have ended.
        let _ = block_on(sender.send((request.clone(), WriteFlags::default())));
    }
    let _ = block_on(sender.close());
    let (mut responses, mut end) = (Vec::new(), Ok(()));
    while let Some(response) = block_on(receiver.next()) {
        match response {
            Ok(bytes) => responses.push(bytes),
            Err(error) => end = Err(rpc_status(error)),
        }
    }
    (responses, end)
}
