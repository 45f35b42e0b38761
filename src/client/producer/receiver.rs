//! A producer's stream: the method, and what receives its answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use grpcio::{
    CallOption, ClientDuplexReceiver, GrpcSlice, Marshaller, Method, MethodType, RpcStatusCode, pb_de, pb_ser,
};

use super::core::Core;
use crate::client::error::{Error, Result};
use crate::client::nodes::Node;
use crate::client::streams::Responses;
use crate::pb::v1::{ProduceRequest, ProduceResponse};
use crate::reason::Outcome;

/// `ProduceStream` with requests that can be sent again without a copy.
const PRODUCE_STREAM: Method<Arc<ProduceRequest>, ProduceResponse> = Method {
    ty: MethodType::Duplex,
    name: "/seriatim.v1.LogService/ProduceStream",
    req_mar: Marshaller { ser: serialize, de: |reader| pb_de(reader).map(Arc::new) },
    resp_mar: Marshaller { ser: pb_ser, de: pb_de },
};

fn serialize(message: &Arc<ProduceRequest>, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    pb_ser(&**message, buffer)
}

/// Opens a stream at a node, and sends on it what is unanswered.
pub(super) fn open(core: &Arc<Core>, node: &Node) -> Result<()> {
    let (sender, receiver) = node.raw.duplex_streaming(&PRODUCE_STREAM, CallOption::default())?;
    let generation = core.begin_stream(sender);
    node.raw.spawn(Receiver { core: core.clone(), responses: Responses::new(receiver), generation });
    Ok(())
}

/// Receives the answers of one stream, on gRPC's thread. It ends with the stream.
struct Receiver {
    core: Arc<Core>,
    responses: Responses<ClientDuplexReceiver<ProduceResponse>, ProduceResponse>,
    generation: u64,
}

impl Receiver {
    fn step(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut answers = Vec::new();
        let end = loop {
            match self.responses.poll_next_unpin(context) {
                Poll::Pending => break None,
                Poll::Ready(Some(Ok(answer))) => answers.push(answer),
                Poll::Ready(Some(Err(error))) => break Some(error.into()),
                Poll::Ready(None) => {
                    let text = "the node ended the stream";
                    break Some(Error::local(RpcStatusCode::UNAVAILABLE, text, Outcome::Unknown));
                }
            }
        };
        let is_over = end.is_some();
        let is_current = self.core.arrived(self.generation, context.waker(), answers, end);
        if is_over || !is_current { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Future for Receiver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // A panic would end gRPC's thread, and every call on it would wait for its deadline.
        catch_unwind(AssertUnwindSafe(|| self.step(context))).unwrap_or_else(|_| {
            let error = Error::local(RpcStatusCode::INTERNAL, "a panic in the client library", Outcome::Unknown);
            self.core.end_stream(self.generation, error);
            Poll::Ready(())
        })
    }
}
