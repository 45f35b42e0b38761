//! Where threads are born: each has a name, and its end is seen.
//!
//! A thread that returns an error or panics becomes a [`Fatal`] on the wake channel of `main`, which stops the process:
//! nobody goes on with a part missing. A [`Joiner`] joins on drop; its owner sends the stop first.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// What ended a thread that should have gone on.
#[derive(Debug)]
pub struct Fatal {
    /// The thread's name.
    pub thread: String,
    /// Its error, or the panic's message.
    pub error: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} failed: {}", self.thread, self.error)
    }
}

/// Where threads report that they failed. Holds the first 16; more would say nothing new.
#[derive(Clone, Debug)]
pub struct FatalSender(Sender<Fatal>);

/// Makes the wake channel for failed threads.
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

/// The text of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

/// Joins its thread when dropped. Send the thread its stop before.
#[derive(Debug)]
pub struct Joiner(Option<JoinHandle<()>>);

impl Joiner {
    /// Waits for the thread to end.
    pub fn join(mut self) {
        self.join_now();
    }

    fn join_now(&mut self) {
        if let Some(handle) = self.0.take() {
            // A panic was caught and reported inside.
            let _ = handle.join();
        }
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        self.join_now();
    }
}

/// A thread's sign of life, read by the watchdog; a clone is the same mark.
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
    /// The thread is alive now.
    pub fn mark(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.marked_ms.store(ms, Ordering::Relaxed);
    }

    /// When it was; differs after each mark.
    pub fn last(&self) -> u64 {
        self.marked_ms.load(Ordering::Relaxed)
    }
}

/// Who measures how long another thread takes counts at most this much of the time between two looks: if there was more, it was
/// suspended itself (a paused virtual machine, SIGSTOP), and with it most likely the other thread.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// For how long a sign of life has stayed the same, as seen by a thread that looks every second.
#[derive(Debug, Default)]
pub struct Silence<T> {
    last: Option<(T, Instant)>,
    lasted: Duration,
}

impl<T: PartialEq> Silence<T> {
    /// Looks at the sign; returns for how long it has been the same.
    pub fn look(&mut self, sign: T, now: Instant) -> Duration {
        self.lasted = match &self.last {
            Some((last, looked)) if *last == sign => self.lasted + now.duration_since(*looked).min(LOOK_MAX),
            Some(_) | None => Duration::ZERO,
        };
        self.last = Some((sign, now));
        self.lasted
    }
}

/// Sleeps until this process has run for that long: the time in which it was suspended does not count.
pub fn sleep_running(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let begin = Instant::now();
        std::thread::sleep(left.min(LOOK_MAX / 2));
        left = left.saturating_sub(begin.elapsed().min(LOOK_MAX));
    }
}

/// Starts a thread. Names longer than 15 bytes are cut by the kernel, not by us.
///
/// # Errors
/// When the system can't make another thread.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that was stopped for 32 to 40 s took its own pause for a hanging disk, and aborted, in 5 of 17 pauses.
    #[test]
    fn a_suspended_watchdog_does_not_count_its_own_pause() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(silence.look(1, at(0)), Duration::ZERO);
        assert_eq!(silence.look(1, at(1000)), Duration::from_secs(1));
        assert_eq!(silence.look(1, at(41_000)), Duration::from_secs(3), "suspended for 40 s");
        assert_eq!(silence.look(2, at(42_000)), Duration::ZERO, "alive");
        let hangs: Vec<_> = (43..=73).map(|second| silence.look(2, at(second * 1000))).collect();
        assert_eq!(hangs.last(), Some(&Duration::from_secs(31)), "a thread that hangs is seen");
    }

    #[test]
    fn an_error_and_a_panic_are_fatal() {
        let (tx, rx) = fatal_channel();
        spawn("errs", &tx, || Err::<(), _>("no luck")).expect("a thread").join();
        spawn("panics", &tx, || -> Result<(), String> { panic!("ouch") }).expect("a thread").join();
        spawn("ends", &tx, || Ok::<(), String>(())).expect("a thread").join();
        let seen: Vec<String> = rx.try_iter().map(|f| f.to_string()).collect();
        assert_eq!(seen, ["thread errs failed: no luck", "thread panics failed: ouch"]);
    }
}
