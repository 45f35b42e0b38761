//! Times in scripts.

use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

/// A time like `90s`, `5m`, `2h`, `365d`.
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = Box<dyn Error>;

    fn from_str(text: &str) -> Result<Span, Self::Err> {
        let at = text.find(|c: char| c.is_alphabetic()).ok_or("a unit is missing")?;
        let (number, unit) = text.split_at(at);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(format!("{unit} is not a unit").into()),
        };
        Ok(Span(Duration::from_secs(number.parse::<u64>()? * seconds)))
    }
}
