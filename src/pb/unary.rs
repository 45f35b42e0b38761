//! Unary calls that end with an error if the response is missing.
//!
//! `grpcio` expects a response whenever the status of a unary call is OK, and panics if there is none. That happens if
//! the deadline passes while the response is read and the status has already arrived, or if the peer is faulty. In a
//! node, the panic would end the process. `build.rs` makes the generated clients use this module.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::executor::block_on;
use grpcio::{CallOption, Client, ClientUnaryReceiver, Error, Method, Result, RpcStatus, RpcStatusCode};

/// The response that a unary call waits for. It ends with UNAVAILABLE if the response is missing: whether the request
/// took effect is unknown.
#[must_use = "the call is cancelled if this is dropped"]
pub struct Response<T>(ClientUnaryReceiver<T>);

impl<T> Response<T> {
    /// Cancels the call.
    pub fn cancel(&mut self) {
        self.0.cancel();
    }
}

impl<T: Unpin> Future for Response<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        // The panic is the last thing that happens to the call, so no state is left half changed.
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))).unwrap_or_else(|_| {
            let status = RpcStatus::with_message(RpcStatusCode::UNAVAILABLE, "the response is missing".to_owned());
            Poll::Ready(Err(Error::RpcFailure(status)))
        })
    }
}

/// Starts a call.
///
/// # Errors
/// If it can't be started.
pub fn start<Q, R>(client: &Client, method: &Method<Q, R>, request: &Q, option: CallOption) -> Result<Response<R>> {
    client.unary_call_async(method, request, option).map(Response)
}

/// Sends a request, and waits for the response.
///
/// # Errors
/// The status of the call.
pub fn call<Q, R: Unpin>(client: &Client, method: &Method<Q, R>, request: &Q, option: CallOption) -> Result<R> {
    block_on(start(client, method, request, option)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use grpcio::{Marshaller, MethodType, ServerCredentials, ServiceBuilder};

    use super::*;
    use crate::grpc::{Env, client_channel, client_listener};
    use crate::pb::log_service_grpc::LogServiceClient;
    use crate::pb::v1::GetServersRequest;
    use crate::thread::fatal_channel;

    fn bytes() -> Marshaller<Vec<u8>> {
        let ser = |bytes: &Vec<u8>, buffer: &mut grpcio::GrpcSlice| {
            *buffer = bytes.as_slice().into();
            Ok(())
        };
        Marshaller { ser, de: |_| Ok(Vec::new()) }
    }

    /// The server ends the call with OK and sends no response. Once, the client panicked.
    #[test]
    fn a_missing_response_is_an_error() {
        let (fatal, _reports) = fatal_channel();
        let env = Env::start("grpc-unary", 1, &fatal);
        let name = "/seriatim.v1.LogService/GetServers";
        let method = Method { ty: MethodType::ServerStreaming, name, req_mar: bytes(), resp_mar: bytes() };
        let service = ServiceBuilder::new().add_server_streaming_handler(&method, |ctx, _, mut sink| {
            ctx.spawn(async move {
                let _ = futures::SinkExt::close(&mut sink).await;
            });
        });
        let mut server = client_listener(&env, 1 << 20).register_service(service.build()).build().expect("a server");
        let port = server.add_listening_port("127.0.0.1:0", ServerCredentials::insecure()).expect("a port");
        server.start();
        let credentials = grpcio::ChannelCredentials::insecure();
        let client = LogServiceClient::new(client_channel(env.get(), &format!("127.0.0.1:{port}"), credentials, None));
        let option = CallOption::default().timeout(Duration::from_secs(30));
        let answer = client.get_servers_opt(&GetServersRequest::default(), option);
        let Err(Error::RpcFailure(status)) = answer else { panic!("{answer:?}") };
        assert_eq!((status.code(), status.message()), (RpcStatusCode::UNAVAILABLE, "the response is missing"));
        drop((client, server));
        assert_eq!(env.stop(), Ok(()));
    }
}
