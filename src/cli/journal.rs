//! What `serve` tells systemd: its state, and log lines with priorities.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use env_logger::fmt::Formatter;
use log::{Level, LevelFilter, Record};
use rustix::fs::fstat;
use sd_notify::NotifyState;

/// The variable in which systemd says what stderr is, if that is the journal: `device:inode`.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Starts the process's log on stderr. `filter` names the variable with finer levels.
pub fn init_log(level: LevelFilter, filter: &str) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).parse_env(filter);
    if stderr_is_the_journal() {
        // The journal has its own timestamps.
        builder.format(journal_line);
    }
    builder.init();
}

/// The text of a failure as it goes to stderr.
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

/// The priority in front of each line, as `sd-daemon(3)` has it: the journal makes an entry of each.
fn with_priority(level: Level, text: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    text.lines().map(|line| format!("<{priority}>{line}")).collect::<Vec<_>>().join("\n")
}

/// Tells systemd, if it started this process.
pub fn notify(states: &[NotifyState<'_>]) {
    let told = match std::env::var_os(NOTIFY_SOCKET) {
        Some(socket) if socket.as_bytes().starts_with(b"@") => notify_abstract(&socket, states),
        Some(_) | None => sd_notify::notify(states),
    };
    if let Err(error) = told {
        log::warn!("systemd can't be told: {error}");
    }
}

/// A socket without a file, which sd-notify does not know: containers have them.
fn notify_abstract(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let addr = SocketAddr::from_abstract_name(&socket.as_bytes()[1..])?;
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &addr).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_priority() {
        assert_eq!(with_priority(Level::Warn, "a\nb"), "<4>a\n<4>b");
        assert_eq!(with_priority(Level::Info, "a"), "<6>a");
    }

    #[test]
    fn an_abstract_socket_is_told() {
        let name = format!("@seriatim-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).expect("an address");
        let systemd = UnixDatagram::bind_addr(&addr).expect("a socket");
        notify_abstract(OsStr::new(&name), &[NotifyState::Ready, NotifyState::Status("serving")]).expect("told");
        let mut buffer = [0; 100];
        let bytes = systemd.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..bytes], b"READY=1\nSTATUS=serving\n");
    }
}
