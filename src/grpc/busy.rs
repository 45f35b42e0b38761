//! Waits until the process is busy, and sleeps meanwhile.
//!
//! The kernel has timers that count the processor time of a process. Such a timer sends a signal to one thread, which
//! blocks the signal and receives it from a descriptor. So an idle process wakes this thread only once it has used the
//! processor time, which takes seconds, and a busy one wakes it at once.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// The kernel's timer is not trusted for longer: a sandbox may accept it and never let it expire.
const TIMER_MAX: Duration = Duration::from_secs(5);

/// Ends the waits of a [`BusyTimer`].
#[derive(Clone, Debug)]
pub(super) struct Stop(Arc<OwnedFd>);

impl Stop {
    /// # Errors
    /// If the process has no more descriptors.
    pub fn new() -> io::Result<Stop> {
        Ok(Stop(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends the current wait, and all later ones.
    pub fn stop(&self) {
        // It can only fail if it was called before.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Waits for processor time. Must be created by the thread that waits, and stays there.
pub(super) struct BusyTimer {
    stop: Stop,
    /// `None` if the system has no such timers.
    timer: Option<ProcessTimer>,
}

impl BusyTimer {
    pub fn new(stop: Stop) -> BusyTimer {
        let timer = ProcessTimer::new().inspect_err(|e| log::debug!("no timer of processor time: {e}")).ok();
        BusyTimer { stop, timer }
    }

    /// Waits until the process has used this much processor time. Without such a timer, waits for `otherwise`. Returns
    /// false if it was stopped.
    pub fn wait_until_used(&self, time: Duration, otherwise: Duration) -> bool {
        match &self.timer {
            Some(timer) if timer.start(time).is_ok() => self.wait(Some(timer.signals.as_fd()), Some(TIMER_MAX)),
            _ => self.wait_for(otherwise),
        }
    }

    /// Waits for some time. Returns false if it was stopped.
    pub fn wait_for(&self, time: Duration) -> bool {
        self.wait(None, Some(time))
    }

    fn wait(&self, signals: Option<BorrowedFd<'_>>, time: Option<Duration>) -> bool {
        let timeout = time.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = vec![PollFd::new(&self.stop.0, PollFlags::IN)];
        fds.extend(signals.as_ref().map(|signals| PollFd::new(signals, PollFlags::IN)));
        // An interrupted wait is only a wait that ends early.
        let _ = poll(&mut fds, timeout.as_ref());
        fds[0].revents().is_empty()
    }
}

/// The kernel's timer, and the descriptor from which its signal is read.
struct ProcessTimer {
    id: libc::timer_t,
    signals: OwnedFd,
}

impl ProcessTimer {
    fn new() -> io::Result<ProcessTimer> {
        let signal = libc::SIGRTMIN();
        // SAFETY: all-zero bytes are a valid value of these plain structures.
        let (mut set, mut event): (libc::sigset_t, libc::sigevent) = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid. Only this thread blocks the signal, and no other one is sent it.
        let blocked = unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
        };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: `set` is valid, and the new descriptor belongs to nothing else.
        let signals = unsafe {
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: it only returns a number.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut id: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both pointers are valid during the call.
        match unsafe { libc::timer_create(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut event, &raw mut id) } {
            0 => Ok(ProcessTimer { id, signals }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends one signal after this time, instead of an earlier one.
    fn start(&self, time: Duration) -> io::Result<()> {
        let mut taken = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.signals, &mut taken).is_ok() {}
        // SAFETY: all-zero bytes are a valid value: no interval.
        let mut at: libc::itimerspec = unsafe { std::mem::zeroed() };
        at.it_value.tv_sec = time.as_secs().try_into().unwrap_or(libc::time_t::MAX);
        at.it_value.tv_nsec = time.subsec_nanos().into();
        // SAFETY: the timer exists, and `at` is valid.
        match unsafe { libc::timer_settime(self.id, 0, &raw const at, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for ProcessTimer {
    fn drop(&mut self) {
        // SAFETY: the timer exists, and is not used after this.
        unsafe { libc::timer_delete(self.id) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_busy_process_ends_the_wait_and_a_stop_does() {
        let stop = Stop::new().expect("a descriptor");
        let timer = BusyTimer::new(stop.clone());
        assert!(timer.timer.is_some(), "this system has such timers");
        for _ in 0..3 {
            let (begun, ended) = (Instant::now(), std::sync::atomic::AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
                assert!(timer.wait_until_used(Duration::from_millis(30), Duration::ZERO));
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            assert!(begun.elapsed() >= Duration::from_millis(5), "one thread for each core at most");
        }
        std::thread::scope(|scope| {
            scope.spawn(|| stop.stop());
            assert!(!timer.wait_until_used(Duration::from_secs(1 << 20), Duration::from_secs(3600)));
        });
        assert!(!timer.wait_for(Duration::from_secs(3600)), "it stays stopped");
    }
}
