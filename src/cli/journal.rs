//! Support for systemd in `serve`: state notifications, and log lines with priorities.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

use env_logger::fmt::Formatter;
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;
use rustix::fs::fstat;
use sd_notify::NotifyState;

/// systemd sets this variable to `device:inode` of the stream if stderr or stdout is connected to the journal.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// The variable with log filters in the syntax of env_logger, which are more specific than `--log-level`.
pub const LOG_FILTER: &str = "SERIATIM_LOG_FILTER";

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The process's logger. A reload replaces it, because an `env_logger` does not change its level.
struct CurrentLogger(RwLock<env_logger::Logger>);

static LOGGER: OnceLock<CurrentLogger> = OnceLock::new();

impl Log for CurrentLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.read().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.read().log(record);
    }

    fn flush(&self) {
        self.0.read().flush();
    }
}

/// Initializes the process's logger, which writes to stderr.
pub fn init_log(level: LevelFilter) {
    let logger = LOGGER.get_or_init(|| CurrentLogger(RwLock::new(logger(level))));
    // Fails only if there is a logger already.
    let _ = log::set_logger(logger);
    log::set_max_level(logger.0.read().filter());
}

/// Changes the least severe level that is logged. [`LOG_FILTER`] takes precedence, as at the start.
pub fn set_log_level(level: LevelFilter) {
    let Some(current) = LOGGER.get() else { return };
    let new = logger(level);
    let max = new.filter();
    *current.0.write() = new;
    log::set_max_level(max);
}

fn logger(level: LevelFilter) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).parse_env(LOG_FILTER);
    if stderr_is_the_journal() {
        // The journal adds its own timestamps.
        builder.format(journal_line);
    }
    builder.build()
}

/// Formats a failure for stderr.
pub fn failure_text(text: &str) -> String {
    if stderr_is_the_journal() { with_priority(Level::Error, text) } else { text.to_owned() }
}

fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var(JOURNAL_STREAM) else { return false };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn journal_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let text = format!("{}: {}", record.target(), record.args());
    writeln!(out, "{}", with_priority(record.level(), &text))
}

/// Adds the priority to the start of each line, because the journal makes an entry of each line (see `sd-daemon(3)`).
fn with_priority(level: Level, text: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    text.lines().map(|line| format!("<{priority}>{line}")).collect::<Vec<_>>().join("\n")
}

/// Notifies systemd, if it manages this process.
pub fn notify(states: &[NotifyState<'_>]) {
    let sent = match std::env::var_os(NOTIFY_SOCKET) {
        Some(socket) if socket.as_bytes().starts_with(b"@") => notify_abstract(&socket, states),
        Some(_) | None => sd_notify::notify(states),
    };
    if let Err(error) = sent {
        log::warn!("can't notify systemd: {error}");
    }
}

/// Sends notifications to an abstract socket. Containers use these, but the crate sd-notify does not support them.
fn notify_abstract(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let addr = SocketAddr::from_abstract_name(&socket.as_bytes()[1..])?;
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &addr).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_the_priority_before_each_line() {
        assert_eq!(with_priority(Level::Warn, "a\nb"), "<4>a\n<4>b");
        assert_eq!(with_priority(Level::Info, "a"), "<6>a");
    }

    #[test]
    fn notifies_an_abstract_socket() {
        let name = format!("@seriatim-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).expect("an address");
        let systemd = UnixDatagram::bind_addr(&addr).expect("a socket");
        notify_abstract(OsStr::new(&name), &[NotifyState::Ready, NotifyState::Status("serving")]).expect("sent");
        let mut buffer = [0; 100];
        let bytes = systemd.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..bytes], b"READY=1\nSTATUS=serving\n");
    }
}
