use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;

use super::*;
use crate::thread::fatal_channel;
use crate::timers::Timers;

fn mark(applied: u64, next: u64) -> Visible {
    Visible { applied: LogIndex(applied), next_offset: Offset(next), ..Visible::default() }
}

/// One of many waiters.
struct One {
    wait: Option<Wait>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl One {
    fn new(wait: Wait) -> One {
        let mut one = One { wait: Some(wait), woken: Arc::default() };
        assert!(one.poll().is_pending());
        one
    }

    fn poll(&mut self) -> Poll<Result<Visible, Closed>> {
        let waker = Waker::from(self.woken.clone());
        Pin::new(self.wait.as_mut().expect("it waits")).poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst) > 0
    }
}

fn tails(watermark: &HighWatermark, timers: &TimersHandle, count: usize) -> Vec<One> {
    (0..count).map(|_| One::new(watermark.wait(Until::Visible(Offset(0)), timers))).collect()
}

fn woken(waits: &[One]) -> Vec<usize> {
    (0..waits.len()).filter(|i| waits[*i].is_woken()).collect()
}

#[test]
fn waits_for_its_own_condition() {
    let (w, timers) = (HighWatermark::new(mark(1, 0)), TimersHandle::stopped());
    let waiting = w.wait(Until::Visible(Offset(1)), &timers);
    let t = std::thread::spawn(move || block_on(waiting));
    w.advance(mark(2, 1));
    w.advance(mark(3, 2));
    assert_eq!(t.join().expect("no panic"), Ok(mark(3, 2)));
    assert_eq!(block_on(w.wait(Until::Applied(LogIndex(3)), &timers)), Ok(mark(3, 2)));
    assert_eq!(w.waiters(), 0);
}

#[test]
fn a_dropped_wait_leaves_no_waiter() {
    let w = HighWatermark::default();
    let mut one = One::new(w.wait(Until::Visible(Offset(0)), &TimersHandle::stopped()));
    assert!(one.poll().is_pending());
    assert_eq!(w.waiters(), 1);
    drop(one);
    assert_eq!(w.waiters(), 0);
}

/// Closing also ends waits whose condition holds and that have not been woken yet.
#[test]
fn closing_ends_every_wait() {
    let (w, timers) = (HighWatermark::default(), TimersHandle::stopped());
    let mut waits = tails(&w, &timers, 100);
    w.advance(mark(1, 1));
    let late = w.wait(Until::Visible(Offset(1)), &timers);
    let t = std::thread::spawn(move || block_on(late));
    w.close();
    assert_eq!(t.join().expect("no panic"), Err(Closed));
    assert_eq!(woken(&waits).len(), 100);
    assert!(waits.iter_mut().all(|one| one.poll() == Poll::Ready(Ok(mark(1, 1)))));
}

#[test]
fn the_next_round_begins_when_all_of_one_have_run_and_its_timer_has_fired() {
    let (w, timers) = (HighWatermark::default(), TimersHandle::stopped());
    let mut waits = tails(&w, &timers, 100);
    // This waiter arrives last and is woken first, because it is a call.
    waits.push(One::new(w.wait(Until::Applied(LogIndex(1)), &timers)));
    w.advance(mark(1, 1));
    assert_eq!(woken(&waits), [0, 1, 2, 3, 4, 5, 6, 100]);

    // Waiters that are polled for another reason, or dropped, belong to no round.
    assert_eq!(waits[50].poll(), Poll::Ready(Ok(mark(1, 1))));
    waits[51].wait = None;
    let next_time = || Waker::from(w.0.clone()).wake();
    for i in [0, 1, 2, 3, 4, 5, 100] {
        assert_eq!(waits[i].poll(), Poll::Ready(Ok(mark(1, 1))));
    }
    w.advance(mark(2, 2));
    assert_eq!(woken(&waits).len(), 8, "one of the round has not run");
    waits[6].wait = None;
    assert_eq!(woken(&waits).len(), 8, "the timer has not fired");
    w.advance(mark(3, 3));
    assert_eq!(woken(&waits).len(), 8, "an advance does not start a round");

    for round in [7..23, 23..39] {
        next_time();
        assert_eq!(woken(&waits), [(0..round.end).collect(), vec![100]].concat());
        for one in &mut waits[round] {
            assert_eq!(one.poll(), Poll::Ready(Ok(mark(3, 3))));
        }
    }
    next_time();
    assert_eq!(woken(&waits), [(0..50).collect(), (52..57).collect(), vec![100]].concat());
}

#[test]
fn all_are_woken_although_some_are_dropped() {
    let time = Timers::start(&fatal_channel().0).expect("a thread");
    let (w, timers) = (HighWatermark::default(), time.handle());
    let mut waits = tails(&w, &timers, 1000);
    w.advance(mark(1, 1));
    let until = Instant::now() + Duration::from_secs(60);
    for i in 0.. {
        // Only waiters that were woken run, and each third of those is dropped instead.
        let Some(at) = (0..waits.len()).find(|at| waits[*at].is_woken()) else {
            assert!(!waits.is_empty() && Instant::now() < until, "{} were not woken", waits.len());
            std::thread::yield_now();
            continue;
        };
        let mut one = waits.swap_remove(at);
        if i % 3 > 0 {
            assert_eq!(one.poll(), Poll::Ready(Ok(mark(1, 1))));
        }
        drop(one);
        if waits.is_empty() {
            break;
        }
    }
    assert_eq!(w.waiters(), 0);
}

/// Without a reserved part, a tail would never run while more calls wait than a round holds.
#[test]
fn tails_get_a_part_of_each_round_under_a_steady_stream_of_calls() {
    let (w, timers) = (HighWatermark::default(), TimersHandle::stopped());
    let call = |index| One::new(w.wait(Until::Applied(LogIndex(index)), &timers));
    let mut tails = tails(&w, &timers, 10);
    let mut calls: Vec<One> = (0..100).map(|_| call(1)).collect();
    w.advance(mark(1, 1));
    for index in 2..12 {
        for tail in tails.iter_mut().filter(|tail| tail.is_woken()) {
            assert!(tail.poll().is_ready());
        }
        // Each answered call is repeated at once.
        for one in calls.iter_mut().filter(|one| one.is_woken()) {
            assert!(one.poll().is_ready());
            *one = call(index);
        }
        w.advance(mark(index, 1));
        Waker::from(w.0.clone()).wake();
    }
    assert_eq!(woken(&tails).len(), 10);
}
