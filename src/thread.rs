//! Creates all threads. Each has a name, and its failure stops the process.
//!
//! A thread that returns an error or panics sends a [`Fatal`] to the main thread, which stops the process: a node
//! never runs with a part missing. A [`Joiner`] joins its thread when it is dropped; its owner must tell the thread
//! to stop first.

use std::any::Any;
use std::error::Error;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

/// The failure of a thread.
#[derive(Debug, thiserror::Error)]
#[error("thread {thread} failed: {error}")]
pub struct Fatal {
    /// The name of the thread.
    pub thread: String,
    /// The error that it returned, or the message of its panic.
    pub error: Box<dyn Error + Send + Sync>,
}

/// The sending side of the channel for failures. It holds 16; further failures are only logged.
#[derive(Clone, Debug)]
pub struct FatalSender(Sender<Fatal>);

/// Creates the channel for the failures of threads.
pub fn fatal_channel() -> (FatalSender, Receiver<Fatal>) {
    let (tx, rx) = bounded(16);
    (FatalSender(tx), rx)
}

impl FatalSender {
    /// Reports a failure; never blocks.
    pub fn report(&self, thread: &str, error: Box<dyn Error + Send + Sync>) {
        log::error!("thread {thread} failed: {error}");
        let _ = self.0.try_send(Fatal { thread: thread.to_owned(), error });
    }
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

/// Joins its thread when it is dropped. The thread must have been told to stop.
#[derive(Debug)]
pub struct Joiner(Option<JoinHandle<()>>);

impl Joiner {
    /// Waits for the thread to end.
    pub fn join(mut self) {
        self.join_now();
    }

    fn join_now(&mut self) {
        if let Some(handle) = self.0.take() {
            // `spawn` catches and reports panics.
            let _ = handle.join();
        }
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        self.join_now();
    }
}

/// The time at which a thread was last known to be running, for the watchdog. Clones share it.
#[derive(Clone, Debug)]
pub struct Progress {
    start: Instant,
    marked_ms: Arc<AtomicU64>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { start: Instant::now(), marked_ms: Arc::default() }
    }
}

impl Progress {
    /// Records that the thread is alive now.
    pub fn mark(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.marked_ms.store(ms, Ordering::Relaxed);
    }

    /// The time of the last [`Progress::mark`], in milliseconds since the start.
    pub fn last(&self) -> u64 {
        self.marked_ms.load(Ordering::Relaxed)
    }
}

/// At most this much of the time between two checks counts. If more has passed, the process was suspended (a paused
/// virtual machine, SIGSTOP), and the watched thread with it.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// Measures how long a value that shows progress has not changed. A watchdog checks it every second.
#[derive(Debug, Default)]
pub struct Silence<T> {
    last: Option<(T, Instant)>,
    lasted: Duration,
}

impl<T: PartialEq> Silence<T> {
    /// Compares the value with the previous one, and returns how long it has not changed.
    pub fn check(&mut self, value: T, now: Instant) -> Duration {
        self.lasted = match &self.last {
            Some((last, checked)) if *last == value => self.lasted + now.duration_since(*checked).min(CHECK_MAX),
            Some(_) | None => Duration::ZERO,
        };
        self.last = Some((value, now));
        self.lasted
    }
}

/// Sleeps until the process has run for `time`. Time in which it was suspended does not count.
pub fn sleep_running(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let begin = Instant::now();
        std::thread::sleep(left.min(CHECK_MAX / 2));
        left = left.saturating_sub(begin.elapsed().min(CHECK_MAX));
    }
}

/// Starts a thread. The kernel shows the first 15 bytes of its name.
///
/// # Errors
/// If the system can't create a thread.
pub fn spawn<F, E>(name: &str, fatal: &FatalSender, body: F) -> std::io::Result<Joiner>
where
    F: FnOnce() -> Result<(), E> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let fatal = fatal.clone();
    let own_name = name.to_owned();
    let handle =
        Builder::new().name(name.to_owned()).spawn(move || match panic::catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => fatal.report(&own_name, error.into()),
            Err(panic) => fatal.report(&own_name, panic_text(panic.as_ref()).into()),
        })?;
    Ok(Joiner(Some(handle)))
}

/// Applies a function to each item, in up to this many threads at once, and returns the results in the order of the
/// items. If the system can't create that many threads, fewer are used. A panic of the function ends this call, too.
pub fn in_parallel<T, R>(threads: usize, items: impl IntoIterator<Item = T>, act: impl Fn(T) -> R + Sync) -> Vec<R>
where
    T: Send,
    R: Send,
{
    let items: Vec<T> = items.into_iter().collect();
    let helpers = threads.min(items.len()).saturating_sub(1);
    let (waiting, done) = (Mutex::new(items.into_iter().enumerate()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let Some((position, item)) = waiting.lock().next() else { return };
            let result = act(item);
            done.lock().push((position, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            let _ = Builder::new().name("parallel".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(position, _)| *position);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_parallel_work_are_in_the_order_of_the_items() {
        for threads in [0, 1, 3, 200] {
            let seen = in_parallel(threads, 0..100, |n| n * 2);
            assert_eq!(seen, (0..100).map(|n| n * 2).collect::<Vec<_>>(), "{threads}");
        }
        assert!(in_parallel(4, Vec::<u8>::new(), |n| n).is_empty());
        // Two items wait for each other, so they are worked on at the same time.
        let both = std::sync::Barrier::new(2);
        in_parallel(2, 0..2, |_| _ = both.wait());
    }

    /// In 5 of 17 runs, a process that was suspended for 32 to 40 s mistook the suspension for a hung disk, and
    /// aborted.
    #[test]
    fn does_not_count_the_time_in_which_the_process_was_suspended() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(silence.check(1, at(0)), Duration::ZERO);
        assert_eq!(silence.check(1, at(1000)), Duration::from_secs(1));
        assert_eq!(silence.check(1, at(41_000)), Duration::from_secs(3), "suspended for 40 s");
        assert_eq!(silence.check(2, at(42_000)), Duration::ZERO, "alive");
        let hangs: Vec<_> = (43..=73).map(|second| silence.check(2, at(second * 1000))).collect();
        assert_eq!(hangs.last(), Some(&Duration::from_secs(31)), "a thread that hangs is seen");
    }

    #[test]
    fn reports_errors_and_panics() {
        let (tx, rx) = fatal_channel();
        spawn("errs", &tx, || Err::<(), _>("no luck")).expect("a thread").join();
        spawn("panics", &tx, || -> Result<(), String> { panic!("ouch") }).expect("a thread").join();
        spawn("ends", &tx, || Ok::<(), String>(())).expect("a thread").join();
        let seen: Vec<String> = rx.try_iter().map(|f| f.to_string()).collect();
        assert_eq!(seen, ["thread errs failed: no luck", "thread panics failed: ouch"]);
    }
}
