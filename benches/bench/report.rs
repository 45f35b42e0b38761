//! The results: rows on the terminal as they are measured, and a table and a plot as files.

use std::fmt::Write as _;
use std::path::Path;

/// The target of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least this ratio to the ceiling.
    AtLeast(f64),
    /// At most this ratio to the ceiling, which for times is a lower bound.
    AtMost(f64),
    /// At most this much, in the figure's own unit.
    Under(f64),
    /// No target.
    None,
}

/// The values of several rounds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<f64>);

impl Values {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn spread(&self) -> String {
        match (self.0.first(), self.0.last()) {
            (Some(low), Some(high)) if self.0.len() > 1 => format!("{}–{}", number(*low), number(*high)),
            _ => String::new(),
        }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    /// Measured in the same run, alternately with `ours`; empty without a ceiling.
    pub ceiling: Values,
    pub ours: Values,
    /// `ours` ÷ `ceiling` of each turn.
    pub ratio: Values,
    pub target: Target,
    pub note: String,
}

impl Row {
    fn reached(&self) -> Option<bool> {
        match self.target {
            Target::AtLeast(ratio) => Some(self.ratio.median() >= ratio),
            Target::AtMost(ratio) => Some(self.ratio.median() <= ratio),
            Target::Under(value) => Some(self.ours.median() <= value),
            Target::None => None,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::AtLeast(ratio) => format!("≥ {ratio}"),
            Target::AtMost(ratio) => format!("≤ {ratio}"),
            Target::Under(value) => format!("≤ {} {}", number(value), self.unit),
            Target::None => String::new(),
        }
    }

    fn cells(&self) -> [String; 6] {
        let values = |values: &Values| match values.is_empty() {
            true => String::new(),
            false => format!("{} {} ({})", number(values.median()), self.unit, values.spread()).replace(" ()", ""),
        };
        let ratio = if self.ratio.is_empty() {
            String::new()
        } else {
            format!("{:.2} ({})", self.ratio.median(), self.ratio.spread()).replace(" ()", "")
        };
        let verdict = match self.reached() {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "",
        };
        [
            self.name.clone(),
            values(&self.ours),
            values(&self.ceiling),
            ratio,
            self.target_text(),
            [verdict, self.note.as_str()].join(" ").trim().to_owned(),
        ]
    }

    /// Prints the figure to the terminal.
    pub fn print(&self) {
        let [name, ours, ceiling, ratio, target, verdict] = self.cells();
        println!("{name}\n    ours {ours}   ceiling {ceiling}   ratio {ratio}   target {target}   {verdict}");
    }
}

/// Formats a number with three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Writes `results.md` and `results.svg`.
pub fn write(dir: &Path, facts: &[String], rows: &[Row]) {
    std::fs::create_dir_all(dir).expect("a folder");
    std::fs::write(dir.join("results.md"), table(facts, rows)).expect("a table");
    std::fs::write(dir.join("results.svg"), plot(rows)).expect("a plot");
}

fn table(facts: &[String], rows: &[Row]) -> String {
    let mut text = String::from("# Results\n\nWritten by `make bench`; [README](README.md) describes each figure.\n\n");
    for fact in facts {
        let _ = writeln!(text, "- {fact}");
    }
    text.push_str(
        "\nMedians of the rounds, with the lowest and the highest. Client, node and disk share the machine.\n\n",
    );
    text.push_str("| figure | Seriatim | ceiling of the same run | ratio | target | |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let _ = writeln!(text, "| {} |", row.cells().join(" | "));
    }
    text.push_str("\n![ratios to the ceilings](results.svg)\n");
    text
}

const ROW: f64 = 30.0;
const LEFT: f64 = 330.0;
const SCALE: f64 = 260.0;

/// Draws the ratios as bars, each with its target.
fn plot(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| !row.ratio.is_empty()).collect();
    let height = ROW * (rows.len() as f64 + 1.5);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"780\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-weight=\"bold\">Seriatim ÷ the raw ceiling of the same run (line: target)</text>\n"
    );
    for (i, row) in rows.iter().enumerate() {
        let y = ROW * (i as f64 + 1.0);
        let ratio = row.ratio.median().min(1.6);
        let fill = if row.reached() == Some(false) { "#c05050" } else { "#4a7fb0" };
        let name = row.name.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 8.0, y + 18.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"18\" fill=\"{fill}\"/>",
            y + 5.0,
            ratio * SCALE
        );
        let at = LEFT + ratio * SCALE + 6.0;
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\">{:.2}</text>", y + 18.0, row.ratio.median());
        if let Target::AtLeast(target) | Target::AtMost(target) = row.target {
            let x = LEFT + target * SCALE;
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"black\" stroke-width=\"2\"/>",
                y + 1.0,
                y + 27.0
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
