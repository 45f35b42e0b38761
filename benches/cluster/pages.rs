//! The results as a table, a summary of the targets, and a plot.

use std::fmt::Write as _;
use std::path::Path;

use super::report::{Values, number};
use super::sheet::{Row, Sheet};
use super::targets::{Bound, Target};

/// Writes `cluster.md` and `cluster.svg`.
pub fn write(dir: &Path, facts: &[String], sheet: &Sheet, targets: &[Target]) {
    std::fs::create_dir_all(dir).expect("a folder");
    let mut text =
        String::from("# A cluster beside its peers\n\nWritten by `make bench-cluster`; [README](README.md) describes ");
    text.push_str("the contestants and each figure.\n\n");
    for fact in facts {
        let _ = writeln!(text, "- {fact}");
    }
    text.push_str(
        "\nMedians of the rounds, with the lowest and the highest. Clients, nodes and disk share the machine.\n",
    );
    let _ = write!(text, "\n{}\n![each figure of each contestant](cluster.svg)\n\n{}", table(sheet), summary(targets));
    std::fs::write(dir.join("cluster.md"), text).expect("a table");
    std::fs::write(dir.join("cluster.svg"), plot(sheet)).expect("a plot");
}

/// Returns the tables of all figures and of the ceilings.
pub fn table(sheet: &Sheet) -> String {
    let mut text = format!("| figure | unit | {} |\n|---|---|", sheet.columns.join(" | "));
    text.push_str(&"---|".repeat(sheet.columns.len()));
    text.push('\n');
    sheet.rows.iter().for_each(|row| write_row(&mut text, row));
    if !sheet.ceilings.is_empty() {
        text.push_str("\n| ceiling | unit | raw |\n|---|---|---|\n");
        sheet.ceilings.iter().for_each(|row| write_row(&mut text, row));
    }
    text
}

fn write_row(text: &mut String, row: &Row) {
    let cell = |values: &Values| match values.is_empty() {
        true => "–".to_owned(),
        false => format!("{} ({})", number(values.median()), values.spread()).replace(" ()", ""),
    };
    let cells: Vec<String> = row.cells.iter().map(cell).collect();
    let _ = writeln!(text, "| {} | {} | {} |", row.figure, row.unit, cells.join(" | "));
}

/// Returns a table of the targets.
pub fn summary(targets: &[Target]) -> String {
    let mut text = String::from("| target | bound | measured | |\n|---|---|---|---|\n");
    for target in targets {
        let bound = match target.bound {
            Bound::AtLeast(bound) => format!("≥ {}", number(bound)),
            Bound::AtMost(bound) => format!("≤ {}", number(bound)),
        };
        let verdict = if target.is_reached() { "reached" } else { "**not reached**" };
        let unit = if target.unit.is_empty() { String::new() } else { format!(" {}", target.unit) };
        let measured = number(target.measured);
        let _ = writeln!(text, "| {} | {bound}{unit} | {measured}{unit} | {verdict} |", target.what);
    }
    text
}

const BAR: f64 = 14.0;
const LEFT: f64 = 150.0;
const WIDTH: f64 = 300.0;
const PANEL: f64 = 560.0;
const COLORS: [&str; 6] = ["#1f4e79", "#4a7fb0", "#c05050", "#e0a0a0", "#7a9a50", "#b09040"];

/// What the table has in addition to the plot.
const NOT_DRAWN: [&str; 4] = ["p99", "processor time of all nodes", "context switches", "mean of the others"];

/// Draws a panel of bars for each figure, in two columns.
fn plot(sheet: &Sheet) -> String {
    let is_drawn = |row: &&Row| !NOT_DRAWN.iter().any(|part| row.figure.contains(part));
    let rows: Vec<&Row> = sheet.rows.iter().filter(is_drawn).collect();
    let panel_height = BAR * (sheet.columns.len() as f64 + 2.5);
    let height = panel_height * rows.len().div_ceil(2) as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n",
        width = PANEL * 2.0
    );
    for (i, row) in rows.iter().enumerate() {
        let (x, y) = (PANEL * (i % 2) as f64, panel_height * (i / 2) as f64);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}, {}</text>",
            x + 10.0,
            y + BAR,
            row.figure,
            row.unit
        );
        let median = |values: &Values| if values.is_empty() { 0.0 } else { values.median().max(0.0) };
        let highest = row.cells.iter().map(median).fold(f64::MIN_POSITIVE, f64::max);
        for (column, values) in row.cells.iter().enumerate() {
            let (top, left) = (y + BAR * (column as f64 + 1.3), x + LEFT);
            let title = &sheet.columns[column];
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{title}</text>", left - 6.0, top + 11.0);
            let length = WIDTH * median(values) / highest;
            let color = COLORS[column % COLORS.len()];
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"11\" fill=\"{color}\"/>",
                top + 1.0
            );
            let label = if values.is_empty() { "–".to_owned() } else { number(values.median()) };
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{label}</text>", left + length + 5.0, top + 11.0);
        }
    }
    svg.push_str("</svg>\n");
    svg
}
