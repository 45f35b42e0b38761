//! Parses and formats sizes, durations, times and ids: `10GiB`, `30d`, `2026-01-31T12:00:00Z`, `a6ef0a4634ebf498`.

use std::time::Duration;

use protobuf::MessageField;
use protobuf::well_known_types::duration::Duration as PbDuration;
use protobuf::well_known_types::timestamp::Timestamp;

use crate::calendar::days_since_1970;
pub use crate::calendar::rfc3339 as show_moment;
use crate::types::{LogId, LogName};

/// Parses a number of bytes, which may end in KiB, MiB, GiB or TiB.
///
/// # Errors
/// The expected form.
pub fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)];
    number(text, &units.map(|(unit, shift)| (unit, 1 << shift)))
        .ok_or_else(|| "expected bytes, like 500000 or 10GiB".to_owned())
}

/// Parses a duration that ends in ms, s, m, h or d, as milliseconds.
///
/// # Errors
/// The expected form.
pub fn milliseconds(text: &str) -> Result<u64, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    number(text, &units).ok_or_else(|| "expected a duration, like 90s, 12h or 30d".to_owned())
}

/// Parses a timeout: a number of seconds, or a duration with a unit.
///
/// # Errors
/// The expected form.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let time = seconds.or_else(|| milliseconds(text).ok().map(Duration::from_millis));
    time.filter(|time| !time.is_zero())
        .ok_or_else(|| "expected seconds above 0, or a duration like 500ms or 2m".to_owned())
}

/// Parses `none` as 0, and any other text with `read`.
///
/// # Errors
/// The expected form.
pub fn or_none(text: &str, read: fn(&str) -> Result<u64, String>) -> Result<u64, String> {
    match text {
        "none" => Ok(0),
        _ => match read(text) {
            Ok(0) => Err("expected more than 0; `none` keeps everything".to_owned()),
            Ok(number) => Ok(number),
            Err(error) => Err(format!("{error}, or `none`")),
        },
    }
}

fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Parses a switch. 1 and 0 are usual values of environment variables.
///
/// # Errors
/// The expected form.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Parses a switch on the command line.
///
/// # Errors
/// The expected form.
pub fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}

/// Parses the name of a log. An empty name is that of the default log.
///
/// # Errors
/// The expected form.
pub fn log_name(text: &str) -> Result<String, String> {
    LogName::new(text).map(|name| name.to_string()).map_err(|e| e.to_string())
}

/// Parses the id of a log, as `seriatim log info` prints it.
///
/// # Errors
/// The expected form.
pub fn log_id(text: &str) -> Result<LogId, String> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let wrong = "expected 16 hexadecimal digits, as `seriatim log info` prints them";
    text.parse().ok().filter(|_| digits).ok_or_else(|| wrong.to_owned())
}

/// Parses a time with its offset from UTC (RFC 3339), as Unix microseconds.
///
/// # Errors
/// The expected form.
pub fn moment(text: &str) -> Result<u64, String> {
    let wrong = || "a time like 2026-01-31T12:00:00Z".to_owned();
    let parsed: toml::value::Datetime = text.parse().map_err(|_| wrong())?;
    let (Some(date), Some(time), Some(offset)) = (parsed.date, parsed.time, parsed.offset) else {
        return Err(wrong());
    };
    let minutes_east = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(date.year.into(), date.month.into(), date.day.into());
    let minutes = (days * 24 + i64::from(time.hour)) * 60 + i64::from(time.minute) - minutes_east;
    let seconds = minutes * 60 + i64::from(time.second.unwrap_or(0));
    let us = seconds * 1_000_000 + i64::from(time.nanosecond.unwrap_or(0) / 1000);
    u64::try_from(us).map_err(|_| "expected a time since 1970".to_owned())
}

/// Converts protobuf's type to milliseconds. A negative duration counts as 0.
pub fn ms_of_duration(duration: &PbDuration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(duration.nanos).unwrap_or(0) / 1_000_000)
}

/// Converts protobuf's type to Unix microseconds; `None` if it is absent.
pub fn us_of_timestamp(time: &MessageField<Timestamp>) -> Option<u64> {
    let time = time.as_ref()?;
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    Some(seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.nanos).unwrap_or(0) / 1000))
}

/// Formats a rounded duration.
pub fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=300 => format!("{seconds} s"),
        seconds @ 301..=18_000 => format!("{} min", seconds / 60),
        seconds @ 18_001..=432_000 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A range of feature levels, in words.
pub fn feature_levels(min: u32, max: u32) -> String {
    match (min, max) {
        // A version from before feature levels does not send them.
        (_, 0) => "feature level 1".to_owned(),
        (min, max) if min == max => format!("feature level {max}"),
        (min, max) => format!("feature levels {min} to {max}"),
    }
}

/// Formats bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes_and_durations() {
        assert_eq!((bytes("7"), bytes("10GiB"), bytes("1 KiB")), (Ok(7), Ok(10 << 30), Ok(1024)));
        assert_eq!((milliseconds("30d"), milliseconds("1500ms")), (Ok(2_592_000_000), Ok(1500)));
        for bad in ["", "x", "10GB", "-1", "99999999999TiB", "1.5GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((timeout("7"), timeout("500ms")), (Ok(Duration::from_secs(7)), Ok(Duration::from_millis(500))));
        assert!(timeout("0").is_err() && timeout("0s").is_err() && timeout("x").is_err());
        assert!(milliseconds("30").is_err() && milliseconds("d").is_err());
        assert_eq!((or_none("none", bytes), or_none("2", bytes)), (Ok(0), Ok(2)));
        assert!(or_none("0", bytes).is_err(), "0 could be mistaken for `keep nothing`");
    }

    /// Any other word, like `maybe`, counted as true, and turned TLS off.
    #[test]
    fn a_switch_is_true_or_false() {
        assert_eq!(["true", "1", "false", "0"].map(switch), [Ok(true), Ok(true), Ok(false), Ok(false)]);
        assert!(["maybe", "no", "yes", ""].iter().all(|text| switch(text).is_err()));
    }

    #[test]
    fn parses_names_and_ids_of_logs() {
        assert_eq!((log_name(""), log_name("a-1")), (Ok("default".to_owned()), Ok("a-1".to_owned())));
        assert!(log_name("a b").is_err());
        assert_eq!(log_id("00000000000000ff"), Ok(LogId(255)));
        for bad in ["", "ff", "+0000000000000ff", "12028844426381751448"] {
            assert!(log_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parses_and_prints_times() {
        assert_eq!(moment("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(moment("2000-02-29T12:30:15.25Z"), Ok(951_827_415_250_000));
        assert_eq!(moment("2026-01-31T12:00:00+01:00"), moment("2026-01-31T11:00:00Z"));
        for bad in
            ["", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"]
        {
            assert!(moment(bad).is_err(), "{bad}");
        }
        for us in [0, 951_827_415_250_000, 951_782_400_000_000, 4_102_444_799_999_999, 1_763_880_000_000_001] {
            assert_eq!(moment(&show_moment(us)), Ok(us), "{}", show_moment(us));
        }
        assert_eq!(show_moment(951_827_415_250_000), "2000-02-29T12:30:15.250000Z");
    }
}
