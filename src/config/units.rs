//! Parses and formats sizes (`64MiB`) and durations (`30s`, `7d`).

use std::time::Duration;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const TIB: u64 = 1 << 40;

/// The units of sizes, the largest first.
const SIZES: [(&str, u64); 4] = [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];

/// The units of durations in milliseconds, the largest first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes; KiB, MiB, GiB and TiB are accepted.
    Bytes,
    /// Anything else: streams, calls.
    Count,
}

impl Unit {
    /// The placeholder in `--help`.
    pub(super) fn value_name(self) -> &'static str {
        match self {
            Unit::Bytes => "BYTES",
            Unit::Count => "N",
        }
    }

    /// Describes such a number, for an error message.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Unit::Bytes => "number of bytes, like 67108864 or 64MiB",
            Unit::Count => "whole number",
        }
    }

    /// Formats the number as a user would write it.
    pub(super) fn show(self, number: u64) -> String {
        match self {
            Unit::Bytes => with_unit(number, &SIZES).unwrap_or_else(|| number.to_string()),
            Unit::Count => number.to_string(),
        }
    }

    /// Parses a number. Returns `None` if the text is not a number, or too large.
    pub(super) fn parse(self, text: &str) -> Option<u64> {
        let units: &[(&str, u64)] = if self == Unit::Bytes { &SIZES } else { &[] };
        let (digits, factor) = split(text, units).unwrap_or((text, 1));
        digits.parse::<u64>().ok()?.checked_mul(factor)
    }
}

/// Parses a duration with its unit. A number without a unit is refused, because programs differ in which unit they
/// assume.
///
/// # Errors
/// The reason, with the expected form.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration, like 90s, 12h or 7d (units: ms, s, m, h, d)");
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{text} has no unit: {text} seconds are written {text}s (units: ms, s, m, h, d)"));
    }
    // The longest name first: "ms" also ends in "s".
    let (digits, factor) = split(text, &TIMES[4..]).or_else(|| split(text, &TIMES)).ok_or_else(wrong)?;
    let number = digits.parse::<u64>().map_err(|_| wrong())?;
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(wrong)
}

/// Formats a duration as a user would write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    with_unit(ms, &TIMES).unwrap_or_else(|| "0s".to_owned())
}

/// Splits the unit off. Returns the number as text, and the factor of the unit.
fn split<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(&'a str, u64)> {
    units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))
}

/// Formats a number with the largest unit of which it is a multiple.
fn with_unit(number: u64, units: &[(&str, u64)]) -> Option<String> {
    let (unit, factor) = units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor))?;
    Some(format!("{}{unit}", number / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, ms, shown) in [
            ("30s", 30_000, "30s"),
            ("7d", 604_800_000, "7d"),
            ("604800s", 604_800_000, "7d"),
            ("90m", 5_400_000, "90m"),
            ("1500ms", 1500, "1500ms"),
            ("12 h", 43_200_000, "12h"),
            ("0s", 0, "0s"),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(ms)), shown);
        }
        for bad in ["", "s", "1.5h", "-1s", "1w", "1 s 2", "99999999999999999999d", "9999999999999999d"] {
            assert!(parse_duration(bad).expect_err(bad).contains("is not a duration"), "{bad}");
        }
        assert!(parse_duration("30").expect_err("no unit").contains("30 seconds are written 30s"));
    }

    #[test]
    fn only_sizes_have_units() {
        assert_eq!((Unit::Bytes.parse("64MiB"), Unit::Bytes.parse("2 TiB")), (Some(64 << 20), Some(2 << 40)));
        assert_eq!((Unit::Count.parse("64KiB"), Unit::Count.parse("64")), (None, Some(64)));
        assert_eq!((Unit::Bytes.parse("64MB"), Unit::Bytes.parse("99999999TiB")), (None, None));
        assert_eq!(
            (Unit::Bytes.show(1 << 40), Unit::Bytes.show(1025), Unit::Count.show(1024)),
            ("1TiB".to_owned(), "1025".to_owned(), "1024".to_owned())
        );
    }
}
