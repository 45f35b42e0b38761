//! raft's own log lines, which come through `slog`, as ours.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record};

/// Where raft writes: the target `raft` of the `log` crate, one level quieter, as raft counts elections as news.
pub fn logger() -> Logger {
    Logger::root(ToLog, slog::o!())
}

struct ToLog;

impl Drain for ToLog {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            Level::Critical | Level::Error => log::Level::Error,
            Level::Warning => log::Level::Warn,
            Level::Info | Level::Debug => log::Level::Debug,
            Level::Trace => log::Level::Trace,
        };
        log::log!(target: "raft", level, "{}", record.msg());
        Ok(())
    }
}
