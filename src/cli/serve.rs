//! `seriatim serve`: runs a node until a signal stops it or a part of it fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never, select, tick};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::config_cmd;
use super::config_reload::ReloadedConfig;
use super::exit::{Exit, Failure};
use super::journal::{self, notify};
use super::output::say;
use super::subcommand::{Process, Subcommand};
use crate::agent::{Agent, AgentError, StopStep};
use crate::config::{ConfigProblems, LoadedConfig, ServeArgs};
use crate::consensus::HostError;
use crate::feature_level::FeatureRange;
use crate::grpc;
use crate::security::modes::FileModes;
use crate::thread::{self, Joiner, fatal_channel};

/// A start may take long, for example to recover a large log. Until the node is ready, systemd is asked to extend its
/// start timeout by this time, every third of this time.
const EXTEND: Duration = Duration::from_secs(30);

/// How often the threads are checked for progress.
const CHECK_THREADS: Duration = Duration::from_secs(1);
/// How often it is checked whether a starting node is ready.
const CHECK_READY: Duration = Duration::from_millis(10);
/// How often certificates and policies are checked for changes.
const CHECK_FILES: Duration = Duration::from_secs(60);
/// The time limit of a stop, in addition to `hang_max` for the disk. The transfer of leadership and the drain
/// of requests together take less.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Run a node
///
/// It prints one line on standard output when it accepts requests: `ready node=NAME bind_addr=HOST:PORT
/// rpc_addr=HOST:PORT http_addr=HOST:PORT`. SIGTERM and SIGINT stop it cleanly; a second signal ends it at once.
/// Certificates, the access policy, the list of denied peers and the limits and log level of the file of --config are
/// read again once a minute if the files have changed, and at SIGHUP.
///
/// An option is given by a flag, otherwise by an environment variable, otherwise in the TOML file of --config, whose
/// tables dist/seriatim.toml shows. `seriatim config show` prints the value of every option.
///
/// A node has three addresses: --bind-addr for its peers ([listen.peer] in the file), --rpc-addr for clients
/// ([listen.client]), and --http-addr for monitoring ([listen.http]). Sizes accept KiB, MiB, GiB and TiB; durations
/// need a unit: ms, s, m, h or d.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: ServeArgs,
    /// Check the configuration as `seriatim config check` does, and exit
    #[arg(long)]
    check: bool,
}

impl Subcommand for Args {
    const NAME: &'static str = "serve";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim serve --config /etc/seriatim/seriatim.toml",
        "seriatim serve --config /etc/seriatim/seriatim.toml --bootstrap-expect 3",
        "seriatim serve --insecure --bootstrap --data-dir data --acl-policy-file policy.csv",
    ];
    const HANDLES_SIGNALS: bool = true;

    fn run(&self, process: &Process) -> Result<(), Failure> {
        if self.check {
            return config_cmd::check(&self.options, process);
        }
        run(&self.options, &process.unknown_variables)
    }
}

fn run(args: &ServeArgs, unknown_variables: &[String]) -> Result<(), Failure> {
    let loaded = LoadedConfig::read(args);
    if !loaded.problems.is_empty() {
        return Err(config_cmd::failure(config_cmd::problems(&loaded)));
    }
    let warnings = loaded.warnings.clone();
    let mut reloaded = ReloadedConfig::new(args, &loaded);
    let config = loaded.config().map_err(|ConfigProblems(problems)| config_cmd::failure(problems))?;
    journal::init_log(config.logging.log_level);
    grpc::redirect_log();
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    for name in unknown_variables.iter().filter(|name| *name != FeatureRange::TEST_MAX) {
        log::warn!("ignoring the environment variable {name}: no option has this name (see `seriatim serve --help`)");
    }
    let signals =
        SignalThread::start().map_err(|e| Failure::new(Exit::Failed, format!("can't handle signals: {e}"), ""))?;
    let name = config.node.node_name.clone();
    let stop_max = STOP_MAX + config.storage.hang_max;
    let starting = StartNotifier::start();
    let mut modes = FileModes::of_node(&config, args.config.as_deref().map(Path::new));
    let agent = Agent::start(config).map_err(|e| failure_at_start(&e))?;
    // After the start, so that the advice is only about files that have been used: a key file that contains a
    // certificate must not be made secret, but replaced.
    warn_of(&mut modes);
    let http = agent.http_addr().map_or_else(|| "off".to_owned(), |addr| addr.to_string());
    let ready =
        format!("ready node={name} bind_addr={} rpc_addr={} http_addr={http}\n", agent.bind_addr(), agent.rpc_addr());
    let is_ready = || {
        drop(starting);
        // If standard output is closed, nothing waits for this line.
        if let Err(failure) = say(&ready) {
            log::warn!("{failure}");
        }
        notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    };
    let failed = wait(&agent, &mut modes, &mut reloaded, &signals.received, is_ready);
    notify(&[NotifyState::Stopping]);
    end_within(stop_max, agent.stop_step());
    let stopped = agent.stop();
    match (failed, stopped) {
        (Some(failed), _) => Err(failed),
        (None, Err(error)) => Err(failure(&error)),
        (None, Ok(())) => {
            log::info!("stopped");
            Ok(())
        }
    }
}

/// Runs until a signal requests a stop (`None`) or the node fails. Calls `is_ready` once the node is ready, checks
/// the node's threads, and reloads changed files.
fn wait(
    agent: &Agent,
    modes: &mut FileModes,
    config: &mut ReloadedConfig,
    signals: &Receiver<i32>,
    is_ready: impl FnOnce(),
) -> Option<Failure> {
    let mut reload = || {
        warn_of(modes);
        config.reload(agent);
        agent.reload();
    };
    let (threads_due, files_due) = (tick(CHECK_THREADS), tick(CHECK_FILES));
    let (mut starting, mut is_ready) = (tick(CHECK_READY), Some(is_ready));
    loop {
        select! {
            recv(starting) -> _ => {
                if let Some(is_ready) = is_ready.take_if(|_| agent.takes_calls()) {
                    is_ready();
                    starting = never();
                }
            }
            recv(threads_due) -> _ => {
                if let Some(thread) = agent.hanging() {
                    // The node can neither sync nor stop cleanly. Other nodes must take over, and this one must
                    // recover at its next start.
                    log::error!("aborting: thread {thread} hangs, possibly because the disk does not answer");
                    std::process::abort();
                }
                if let Some(refusal) = agent.excluded() {
                    return Some(Failure::new(Exit::BadConfig, refusal.text, refusal.reason.next_step()));
                }
            }
            recv(files_due) -> _ => reload(),
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => reload(),
                Ok(signal) => {
                    log::info!("signal {signal}: stopping");
                    return None;
                }
                Err(_) => return Some(Failure::new(Exit::Failed, "the thread that handles signals has ended", "")),
            },
            recv(agent.failures()) -> failed => {
                return Some(failed.map_or_else(|_| Failure::new(Exit::Failed, "the node has ended", ""), failed_inside));
            }
        }
    }
}

fn warn_of(modes: &mut FileModes) {
    modes.new_warnings().iter().for_each(|warning| log::warn!("{warning}"));
}

/// Aborts the process if it still runs after `time`, so that a node that failed or is stopping does not hang on its
/// disk.
fn end_within(time: Duration, step: StopStep) {
    let (fatal, _) = fatal_channel();
    let watch = move || -> Result<(), String> {
        thread::sleep_running(time);
        log::error!("aborting: the stop hangs in step {:?}, possibly because the disk does not answer", step.get());
        std::process::abort();
    };
    match thread::spawn("stop-watch", &fatal, watch) {
        // Not joined: the thread ends with the process.
        Ok(watch) => std::mem::forget(watch),
        Err(error) => log::warn!("can't limit the time of the stop: {error}"),
    }
}

/// Converts the failure of a thread. Damage and configuration errors keep their exit codes.
fn failed_inside(fatal: thread::Fatal) -> Failure {
    match fatal.error.downcast::<AgentError>() {
        Ok(error) => failure(&error),
        Err(error) => match error.downcast::<HostError>() {
            Ok(error) => failure(&AgentError::Consensus(*error)),
            Err(error) => Failure::new(
                Exit::Failed,
                format!("thread {} failed: {error}", fatal.thread),
                "start it again: it recovers from its disk. If it fails again, the log above states the reason",
            ),
        },
    }
}

/// Converts an error at the start, when an unusable path is a configuration error, and an unreadable sector is
/// damage. Later, both have the exit code of an ordinary failure, so that systemd restarts the node, which may
/// succeed or report the cause.
fn failure_at_start(error: &AgentError) -> Failure {
    let failure = failure(error);
    let exit = match (error.is_unreadable(), error.is_unusable_path()) {
        (true, _) => Exit::BadData,
        (false, true) => Exit::BadConfig,
        (false, false) => failure.exit,
    };
    let next = if error.is_unreadable() { "`seriatim data verify` reads all files and names what is lost" } else { "" };
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

/// The thread that waits for signals. Dropping this stops it.
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
            // The handlers run in this order: at the first signal the flag is not set yet, at the second one it is,
            // and the process exits at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))?;
            signal_hook::flag::register(signal, Arc::clone(&stopping))?;
        }
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        // Holds four signals. If it is full, further signals are redundant and are dropped.
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

/// Extends systemd's start timeout, until this is dropped.
struct StartNotifier {
    stop: Option<crossbeam_channel::Sender<()>>,
    thread: Option<Joiner>,
}

impl StartNotifier {
    fn start() -> StartNotifier {
        let (stop, stopped) = bounded::<()>(0);
        let (fatal, _) = fatal_channel();
        let thread = thread::spawn("start-notify", &fatal, move || -> Result<(), String> {
            loop {
                notify(&[NotifyState::ExtendTimeoutUsec(EXTEND.as_micros() as u32), NotifyState::Status("starting")]);
                if stopped.recv_timeout(EXTEND / 3) != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                    return Ok(());
                }
            }
        });
        StartNotifier { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for StartNotifier {
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

    /// When a file system became read-only, a running node exited with 78, so that systemd never restarted it. And a
    /// node that could not read a sector at its start exited with 1, while `data verify` reported damage (65).
    #[test]
    fn an_io_error_has_different_exit_codes_at_a_start_and_later() {
        for (action, errno, at_start, later) in [
            ("write", Errno::ROFS, Exit::Failed, Exit::Failed),
            ("create", Errno::ROFS, Exit::Failed, Exit::Failed),
            ("open", Errno::ACCESS, Exit::BadConfig, Exit::Failed),
            ("list", Errno::NOTDIR, Exit::BadConfig, Exit::Failed),
            // In `/proc`, for example.
            ("make the directory", Errno::NOENT, Exit::BadConfig, Exit::Failed),
            ("make the directory", Errno::NAMETOOLONG, Exit::BadConfig, Exit::Failed),
            ("open", Errno::NOENT, Exit::Failed, Exit::Failed),
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
