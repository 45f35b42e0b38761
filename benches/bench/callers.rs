//! Many callers that each have one record in flight, of one client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::future::join_all;
use seriatim::client::{Producer, Record};

/// The number of callers that append at the same time.
pub const CALLERS: usize = 256;

/// Makes calls one after the other in each of many threads. Returns calls per second.
pub fn rate(took: Duration, call: &(impl Fn() + Sync)) -> f64 {
    let (done, begin) = (AtomicU64::new(0), Instant::now());
    let end = begin + took;
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut calls = 0;
                while Instant::now() < end {
                    call();
                    calls += 1;
                }
                done.fetch_add(calls, Ordering::Relaxed);
            });
        }
    });
    done.into_inner() as f64 / begin.elapsed().as_secs_f64()
}

/// Appends one record after the other in each of many futures. Returns records per second.
pub fn future_rate(took: Duration, producer: &Producer) -> f64 {
    let begin = Instant::now();
    let end = begin + took;
    let callers = (0..CALLERS).map(|_| async {
        let mut done = 0u64;
        while Instant::now() < end {
            producer.send(Record::new(vec![7; 100])).expect("accepted").await.expect("appended");
            done += 1;
        }
        done
    });
    let done: Vec<u64> = block_on(join_all(callers));
    done.iter().sum::<u64>() as f64 / begin.elapsed().as_secs_f64()
}
