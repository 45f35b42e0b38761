//! Forwards raft's own log lines from `slog` to the `log` crate.

use std::fmt::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use parking_lot::Mutex;
use slog::{Drain, KV as _, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};

use crate::line_limit::LineLimit;
use crate::types::GroupId;

/// Returns the logger of a group. Lines get the target `raft`. raft's `info` becomes `debug`, because raft logs every
/// election at `info`.
pub fn logger(group: GroupId) -> Logger {
    Logger::root(ToLog { group, limit: AssertUnwindSafe(Mutex::default()) }, slog::o!())
}

struct ToLog {
    group: GroupId,
    /// A limit per line of raft's source code, because a faulty peer can trigger log lines.
    limit: AssertUnwindSafe<Mutex<LineLimit<(&'static str, u32)>>>,
}

impl Drain for ToLog {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            Level::Critical | Level::Error => log::Level::Error,
            Level::Warning => log::Level::Warn,
            Level::Info | Level::Debug => log::Level::Debug,
            Level::Trace => log::Level::Trace,
        };
        if !log::log_enabled!(target: "raft", level) {
            return Ok(());
        }
        let place = (record.file(), record.line());
        let admitted = self.limit.lock().admit(place, Instant::now());
        match admitted {
            Some(0) => log::log!(target: "raft", level, "{}", line(self.group, record, values)),
            Some(hidden) => {
                let line = line(self.group, record, values);
                log::log!(target: "raft", level, "{line} (and {hidden} lines like it before, not shown)");
            }
            None => {}
        }
        Ok(())
    }
}

fn line(group: GroupId, record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Pairs(format!("group {group}: {}", record.msg()));
    // Writing to a string does not fail.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

/// Appends each pair as ` key=value`.
struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::sync::Arc;

    use super::*;

    struct Lines(AssertUnwindSafe<Arc<Mutex<Vec<String>>>>);

    impl Drain for Lines {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
            self.0.lock().push(line(GroupId(1), record, values));
            Ok(())
        }
    }

    #[test]
    fn a_line_of_raft_names_its_group_and_keeps_its_values() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let logger = Logger::root(Lines(AssertUnwindSafe(lines.clone())), slog::o!("raft_id" => 7));
        slog::info!(logger, "became follower at term {}", 3; "term" => 3);
        assert_eq!(lines.lock()[..], ["group 1: became follower at term 3 term=3 raft_id=7"]);
    }
}
