//! Parses and formats the numbers of options, which may have the suffix KiB, MiB or GiB.

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

const SUFFIXES: [(&str, u64); 3] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes; KiB, MiB and GiB are accepted.
    Bytes,
    /// Whole seconds.
    Seconds,
    /// Anything else: streams, calls.
    Count,
}

impl Unit {
    /// The placeholder in `--help`.
    pub(super) fn value_name(self) -> &'static str {
        match self {
            Unit::Bytes => "BYTES",
            Unit::Seconds => "SECONDS",
            Unit::Count => "N",
        }
    }

    /// Describes such a number, for an error message.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Unit::Bytes => "number of bytes, like 67108864 or 64MiB",
            Unit::Seconds => "whole number of seconds",
            Unit::Count => "whole number",
        }
    }

    /// Formats the number as a user would write it.
    pub(super) fn show(self, number: u64) -> String {
        let suffix = SUFFIXES.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
        match (self, suffix) {
            (Unit::Bytes, Some((suffix, factor))) => format!("{}{suffix}", number / factor),
            (Unit::Bytes | Unit::Seconds | Unit::Count, _) => number.to_string(),
        }
    }
}

/// Parses a number. Returns `None` if the text is not a number, or too large.
pub fn parse(text: &str) -> Option<u64> {
    let suffixed = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (digits, factor) = suffixed.unwrap_or((text, 1));
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}
