//! `seriatim serve`: runs a node until a signal, or until a part of it fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never, select, tick};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::command::unknown_variables;
use super::exit::{Exit, Failure};
use super::journal::{self, notify};
use super::output::say;
use crate::agent::{Agent, AgentError, StopStep};
use crate::config::{Config, ServeArgs};
use crate::consensus::HostError;
use crate::grpc;
use crate::security::modes::FileModes;
use crate::thread::{self, Joiner, fatal_channel};

/// A start that takes longer than systemd's patience (recovery of a large log) asks for so much more, three times as often.
const EXTEND: Duration = Duration::from_secs(30);

/// What the log shows, more finely than `--log-level`: env_logger's syntax.
pub(super) const LOG_FILTER: &str = "SERIATIM_LOG_FILTER";

/// How often the threads are looked after.
const WATCH: Duration = Duration::from_secs(1);
/// How often a node that starts is asked whether it takes calls.
const LOOK_FOR_READY: Duration = Duration::from_millis(10);
/// How often certificates and policy are looked at: what has changed is loaded.
const LOOK_AT_FILES: Duration = Duration::from_secs(60);
/// How long a stop takes at most, besides what the disk may: hand-over and calls in flight have less, together.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The options of `serve`.
pub type Args = ServeArgs;

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(args).map_err(|problems| {
        Failure::new(Exit::BadConfig, problems.to_string(), "`seriatim serve --help` explains every option")
    })?;
    journal::init_log(config.log_level, LOG_FILTER);
    grpc::redirect_log();
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in unknown_variables(variables) {
        log::warn!(
            "the environment variable {name} is no option's: it is ignored (`seriatim serve --help` names those that are)"
        );
    }
    let signals = SignalThread::start().map_err(|e| Failure::new(Exit::Failed, format!("no signals: {e}"), ""))?;
    let name = config.node_name.clone();
    let stop_max = STOP_MAX + Duration::from_secs(config.hang_seconds_max);
    let patience = Patience::start();
    let mut modes = FileModes::of_node(&config, args.config.as_deref().map(Path::new));
    warn_of(&mut modes);
    let agent = Agent::start(config).map_err(|e| failure_at_start(&e))?;
    let ready = format!("ready node={name} bind_addr={} rpc_addr={}\n", agent.bind_addr(), agent.rpc_addr());
    let is_ready = || {
        drop(patience);
        // Who started us may have closed our stdout: then nobody waits for the line.
        if let Err(failure) = say(&ready) {
            log::warn!("{failure}");
        }
        notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    };
    let failed = wait(&agent, &mut modes, &signals.received, is_ready);
    notify(&[NotifyState::Stopping]);
    end_within(stop_max, agent.stop_step());
    let stopped = agent.stop();
    match (failed, stopped) {
        (Some(failed), _) => Err(failed),
        (None, Err(error)) => Err(failure(&error)),
        (None, Ok(())) => Ok(()),
    }
}

/// Until a signal to stop (`None`), or a failure. Says once that calls are taken; watches the threads, and the files that can
/// change.
fn wait(agent: &Agent, modes: &mut FileModes, signals: &Receiver<i32>, is_ready: impl FnOnce()) -> Option<Failure> {
    let mut reload = || {
        warn_of(modes);
        agent.reload();
    };
    let (watch, look) = (tick(WATCH), tick(LOOK_AT_FILES));
    let (mut starting, mut is_ready) = (tick(LOOK_FOR_READY), Some(is_ready));
    loop {
        select! {
            recv(starting) -> _ => {
                if let Some(is_ready) = is_ready.take_if(|_| agent.takes_calls()) {
                    is_ready();
                    starting = never();
                }
            }
            recv(watch) -> _ => {
                if let Some(thread) = agent.hanging() {
                    // Nothing could be synced or stopped any more: others must take over, and a new start recover.
                    log::error!("thread {thread} hangs (a disk that does not answer?): aborting");
                    std::process::abort();
                }
                if let Some(refusal) = agent.excluded() {
                    return Some(Failure::new(Exit::BadConfig, refusal.text, refusal.reason.next_step()));
                }
            }
            recv(look) -> _ => reload(),
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => reload(),
                Ok(signal) => {
                    log::info!("signal {signal}: stopping");
                    return None;
                }
                Err(_) => return Some(Failure::new(Exit::Failed, "the signals' thread ended", "")),
            },
            recv(agent.failures()) -> failed => {
                return Some(failed.map_or_else(|_| Failure::new(Exit::Failed, "the node ended", ""), failed_inside));
            }
        }
    }
}

fn warn_of(modes: &mut FileModes) {
    modes.look().iter().for_each(|warning| log::warn!("{warning}"));
}

/// Aborts the process if it still lives after that time: a node that has failed, or was told to stop, must not linger
/// because its disk hangs.
fn end_within(time: Duration, step: StopStep) {
    let (fatal, _) = fatal_channel();
    let watch = move || -> Result<(), String> {
        thread::sleep_running(time);
        log::error!("the stop hangs at {:?} (a disk that does not answer?): aborting", step.get());
        std::process::abort();
    };
    match thread::spawn("stop-watch", &fatal, watch) {
        // Never joined: it ends with the process.
        Ok(watch) => std::mem::forget(watch),
        Err(error) => log::warn!("nobody watches the stop: {error}"),
    }
}

/// A part of the node failed. Damage, and what only a changed configuration mends, keep their exit codes.
fn failed_inside(fatal: thread::Fatal) -> Failure {
    match fatal.error.downcast::<AgentError>() {
        Ok(error) => failure(&error),
        Err(error) => match error.downcast::<HostError>() {
            Ok(error) => failure(&AgentError::Consensus(*error)),
            Err(error) => Failure::new(
                Exit::Failed,
                format!("thread {} failed: {error}", fatal.thread),
                "start it again: it recovers from its disk. If it fails again, the log above says why",
            ),
        },
    }
}

/// At a start, a path that can't be used is a bad configuration, and a disk that can't read is damage. Later both are
/// failures that a new start may mend, or name.
fn failure_at_start(error: &AgentError) -> Failure {
    let failure = failure(error);
    let exit = match (error.is_unreadable(), error.is_unusable_path()) {
        (true, _) => Exit::BadData,
        (false, true) => Exit::BadConfig,
        (false, false) => failure.exit,
    };
    let next = if error.is_unreadable() { "`seriatim log verify` reads all of it and names what is lost" } else { "" };
    Failure { exit, next: next.to_owned(), ..failure }
}

fn failure(error: &AgentError) -> Failure {
    let exit = match (error.is_damage(), error.is_config()) {
        (true, _) => Exit::BadData,
        (false, true) => Exit::BadConfig,
        (false, false) => Exit::Failed,
    };
    Failure::new(exit, error.to_string(), "")
}

/// The thread that waits for signals; ends when dropped.
struct SignalThread {
    received: Receiver<i32>,
    handle: Handle,
    #[expect(dead_code, reason = "joins on drop")]
    thread: Joiner,
}

impl SignalThread {
    fn start() -> std::io::Result<SignalThread> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the second signal finds the flag of the first one, and exits at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))?;
            signal_hook::flag::register(signal, Arc::clone(&stopping))?;
        }
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        // More than four signals that wait say nothing new: dropped.
        let (sender, received) = bounded(4);
        let (fatal, _) = fatal_channel();
        let thread = thread::spawn("signals", &fatal, move || -> Result<(), String> {
            for signal in &mut signals {
                let _ = sender.try_send(signal);
            }
            Ok(())
        })?;
        Ok(SignalThread { received, handle, thread })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Tells systemd, while it lives, that the start goes on.
struct Patience {
    stop: Option<crossbeam_channel::Sender<()>>,
    thread: Option<Joiner>,
}

impl Patience {
    fn start() -> Patience {
        let (stop, stopped) = bounded::<()>(0);
        let (fatal, _) = fatal_channel();
        let thread = thread::spawn("patience", &fatal, move || -> Result<(), String> {
            loop {
                notify(&[NotifyState::ExtendTimeoutUsec(EXTEND.as_micros() as u32), NotifyState::Status("starting")]);
                if stopped.recv_timeout(EXTEND / 3) != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                    return Ok(());
                }
            }
        });
        Patience { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.stop = None;
        self.thread = None;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::io::Errno;

    use super::*;
    use crate::storage::error::StorageError;

    /// While a node ran, a file system that became read-only ended it with 78, so that systemd never started it again. At a
    /// start, a sector that can't be read was 1, where `log verify` says damage (65).
    #[test]
    fn an_io_error_has_another_exit_code_at_a_start_than_later() {
        for (action, errno, at_start, later) in [
            ("write", Errno::ROFS, Exit::Failed, Exit::Failed),
            ("create", Errno::ROFS, Exit::Failed, Exit::Failed),
            ("open", Errno::ACCESS, Exit::BadConfig, Exit::Failed),
            ("list", Errno::NOTDIR, Exit::BadConfig, Exit::Failed),
            ("read", Errno::IO, Exit::BadData, Exit::Failed),
            ("write", Errno::IO, Exit::Failed, Exit::Failed),
            ("sync", Errno::IO, Exit::Failed, Exit::Failed),
        ] {
            let error = || StorageError::Io { action, file: Path::new("a").to_owned(), error: errno.into() };
            assert_eq!(failure_at_start(&AgentError::Storage(error())).exit, at_start, "{action} {errno}");
            let of_consensus = AgentError::Consensus(HostError::Storage(error()));
            assert_eq!(failure_at_start(&of_consensus).exit, at_start, "{action} {errno}");
            let fatal = |error| thread::Fatal { thread: "consensus".to_owned(), error };
            assert_eq!(failed_inside(fatal(Box::new(HostError::Storage(error())))).exit, later, "{action} {errno}");
            assert_eq!(failed_inside(fatal(Box::new(error()))).exit, later, "{action} {errno}");
        }
        let damaged = StorageError::Damaged { file: Path::new("a").to_owned(), position: 0, what: String::new() };
        let inside = thread::Fatal { thread: "x".to_owned(), error: Box::new(AgentError::Storage(damaged)) };
        assert_eq!(failed_inside(inside).exit, Exit::BadData);
    }
}
