//! Unary gRPC calls of one thread through one or many channels, for Seriatim and etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::future::join_all;
use grpcio::{CallOption, Method};

use super::calls::{Bytes, Caller};

/// Keeps this many calls in flight on each channel. Returns responses per second.
pub fn unary_rate(
    callers: &[Caller],
    method: &'static Method<Bytes, Bytes>,
    in_flight: usize,
    took: Duration,
    request: impl Fn() -> Bytes + Clone + Send + 'static,
) -> f64 {
    let begin = Instant::now();
    let done = Arc::new(AtomicU64::new(0));
    let all = callers.iter().flat_map(|caller| (0..in_flight).map(move |_| caller)).map(|caller| {
        let (client, request, done) = (caller.client().clone(), request.clone(), done.clone());
        let (sender, receiver) = futures::channel::oneshot::channel();
        caller.spawn(async move {
            while begin.elapsed() < took {
                let call = client.unary_call_async(method, &request(), CallOption::default()).expect("a call");
                call.await.expect("a response");
                done.fetch_add(1, Ordering::Relaxed);
            }
            let _ = sender.send(());
        });
        receiver
    });
    let all: Vec<_> = all.collect();
    block_on(join_all(all)).into_iter().for_each(|ended| ended.expect("the load ends"));
    done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

/// Makes one call, and waits for its response.
pub fn call(caller: &Caller, method: &Method<Bytes, Bytes>, request: &Bytes) -> Bytes {
    caller.client().unary_call(method, request, CallOption::default()).expect("a response")
}
