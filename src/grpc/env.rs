//! Starts, watches and joins gRPC's completion-queue threads, and runs handlers on them.
//!
//! grpcio detaches these threads. If one panics, grpcio does not report it, and the requests of its queue never
//! complete. So each thread has a thread-local value whose destructor reports how the thread ended, and every handler
//! runs in [`guarded`] or [`spawn_guarded`].

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use grpcio::{EnvBuilder, Environment, RpcContext};
use parking_lot::{Condvar, Mutex};

use crate::thread::{FatalSender, panic_text};

/// How long [`Env::stop`] waits until requests, channels and servers have released the threads.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// How long it then waits until the system has ended the threads, which takes microseconds.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// The completion-queue threads of one listener, or of channels. [`Env::stop`] or dropping this joins them.
///
/// The caller first drops every server, channel and client that uses them, and waits for every request to end. Each
/// of these keeps the threads alive.
#[derive(Debug)]
pub struct Env {
    // Fields are dropped in this order: releasing the environment ends the threads, which `threads` then joins.
    env: OwnEnvironment,
    threads: JoinOnDrop,
}

/// The error of [`Env::stop`] if a channel, a server or a request still uses the threads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{threads} of the threads {name}-* did not end: a request, a channel or a server is still open")]
pub struct StillInUse {
    /// The name prefix of the threads.
    pub name: String,
    /// The number of threads that did not end.
    pub threads: usize,
}

impl Env {
    /// Starts `threads` threads `<name>-0`, `<name>-1`, ... A panic on one of them is reported to `fatal`.
    ///
    /// # Panics
    /// If the system can't create a thread: grpcio panics.
    pub fn start(name: &str, threads: usize, fatal: &FatalSender) -> Env {
        let all = Arc::new(Threads {
            name: name.to_owned(),
            alive: Mutex::default(),
            ended: Condvar::new(),
            fatal: fatal.clone(),
        });
        let starting = all.clone();
        let env = EnvBuilder::new()
            .name_prefix(name)
            .cq_count(threads.max(1))
            .after_start(move || ThreadExit::install(&starting))
            .before_stop(ThreadExit::mark_clean)
            .build();
        Env { env: OwnEnvironment(Arc::new(env)), threads: JoinOnDrop(Some(all)) }
    }

    /// Returns the number of threads that serve both listeners and the channels to peers. More threads were not
    /// faster on the machines that were measured.
    pub fn threads_for_this_machine() -> usize {
        thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
    }

    /// Returns the environment, for servers and channels on these threads.
    pub fn get(&self) -> Arc<Environment> {
        self.env.0.clone()
    }

    /// Ends and joins the threads.
    ///
    /// # Errors
    /// [`StillInUse`], if they have not ended after five seconds.
    pub fn stop(self) -> Result<(), StillInUse> {
        let Env { env, mut threads } = self;
        drop(env);
        threads.join()
    }
}

struct OwnEnvironment(Arc<Environment>);

impl fmt::Debug for OwnEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

#[derive(Debug)]
struct JoinOnDrop(Option<Arc<Threads>>);

impl JoinOnDrop {
    fn join(&mut self) -> Result<(), StillInUse> {
        self.0.take().map_or(Ok(()), |threads| threads.join())
    }
}

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Err(e) = self.join() {
            log::warn!("{e}");
        }
    }
}

#[derive(Debug)]
struct Threads {
    name: String,
    alive: Mutex<Alive>,
    ended: Condvar,
    fatal: FatalSender,
}

#[derive(Debug, Default)]
struct Alive {
    count: usize,
    /// The `/proc` directory of every thread that was started.
    paths: Vec<String>,
}

impl Threads {
    fn join(&self) -> Result<(), StillInUse> {
        let mut alive = self.alive.lock();
        self.ended.wait_while_for(&mut alive, |alive| alive.count > 0, STOP_WAIT);
        if alive.count > 0 {
            return Err(StillInUse { name: self.name.clone(), threads: alive.count });
        }
        // Their code has ended, but the threads may still exist in the kernel. Without a handle to join, only `/proc`
        // shows when they are gone.
        let until = Instant::now() + EXIT_WAIT;
        for path in &alive.paths {
            while rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok() && Instant::now() < until {
                thread::yield_now();
            }
        }
        Ok(())
    }
}

thread_local! {
    static EXIT: RefCell<Option<ThreadExit>> = const { RefCell::new(None) };
}

/// A thread-local value, dropped when its thread ends. It then reports a panic, unless `clean` is set, and wakes the
/// caller that joins the threads.
struct ThreadExit {
    threads: Arc<Threads>,
    clean: bool,
}

impl ThreadExit {
    fn install(threads: &Arc<Threads>) {
        // "<process>/task/<thread>"
        let own = rustix::fs::readlink("/proc/thread-self", Vec::new()).ok().and_then(|p| p.into_string().ok());
        let mut alive = threads.alive.lock();
        alive.count += 1;
        alive.paths.extend(own.map(|path| format!("/proc/{path}")));
        drop(alive);
        EXIT.set(Some(ThreadExit { threads: threads.clone(), clean: false }));
    }

    fn mark_clean() {
        EXIT.with_borrow_mut(|exit| {
            if let Some(exit) = exit {
                exit.clean = true;
            }
        });
    }
}

impl Drop for ThreadExit {
    fn drop(&mut self) {
        if !self.clean {
            self.threads.fatal.report(&self.threads.name, "a completion-queue thread panicked".into());
        }
        self.threads.alive.lock().count -= 1;
        self.threads.ended.notify_all();
    }
}

/// Runs a handler's future on its completion-queue thread. A panic in it is fatal for the process, instead of
/// silently ending that thread.
pub fn spawn_guarded<F>(ctx: &RpcContext<'_>, fatal: &FatalSender, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let fatal = fatal.clone();
    ctx.spawn(async move {
        if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
            fatal.report("grpc handler", panic_text(panic.as_ref()).into());
        }
    });
}

/// Runs the part of a handler before its future, or a `ServerChecker`. A panic in it is fatal for the process; then
/// returns `None`.
pub fn guarded<T>(fatal: &FatalSender, body: impl FnOnce() -> T) -> Option<T> {
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(panic) => {
            fatal.report("grpc handler", panic_text(panic.as_ref()).into());
            None
        }
    }
}
