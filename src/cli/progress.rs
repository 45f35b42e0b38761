//! The progress bar of `produce`, for terminals.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use terminal_size::{Width, terminal_size_of};

use super::interrupt;

/// The templates of a bar, each with the minimum width of the terminal. A bar that wraps can't be erased.
const WITH_TOTAL: [(u16, &str); 3] = [
    (100, "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left"),
    (40, "{percent}%  {bytes_per_sec}  {eta} left"),
    (10, "{percent}%"),
];
const WITHOUT_TOTAL: [(u16, &str); 2] = [(50, "{spinner} {bytes}  {bytes_per_sec}  {elapsed}"), (14, "{bytes}")];

/// Creates a progress bar for an input of `bytes` bytes. It is hidden if `quiet` is set, or if standard error is not
/// a terminal or too narrow. It is erased if a signal ends the process.
pub fn bar(bytes: Option<u64>, quiet: bool) -> ProgressBar {
    let columns = if quiet || !io::stderr().is_terminal() { None } else { terminal_size_of(io::stderr()) };
    let Some(template) = columns.and_then(|(Width(columns), _)| template(bytes.is_some(), columns)) else {
        return ProgressBar::hidden();
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.enable_steady_tick(Duration::from_millis(200));
    let at_end = bar.clone();
    interrupt::on_end(move || at_end.finish_and_clear());
    bar
}

fn template(with_total: bool, columns: u16) -> Option<&'static str> {
    let templates = if with_total { &WITH_TOTAL[..] } else { &WITHOUT_TOTAL };
    templates.iter().find(|(least, _)| columns >= *least).map(|(_, template)| *template)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a terminal of 40 columns, the bar wrapped and every redraw left a line.
    #[test]
    fn fits_narrow_terminals() {
        assert_eq!(template(true, 40), Some("{percent}%  {bytes_per_sec}  {eta} left"));
        assert_eq!(template(true, 20), Some("{percent}%"));
        assert_eq!((template(true, 9), template(false, 13)), (None, None));
        // The widest values: 1023.99 GiB, 1023.99 GiB/s, 100%, 59m 59s.
        let widest = |template: &str| {
            let fields = [
                ("{bar:40}", 40),
                ("{bytes}", 11),
                ("{total_bytes}", 11),
                ("{bytes_per_sec}", 13),
                ("{eta}", 4),
                ("{elapsed}", 12),
                ("{percent}", 3),
                ("{spinner}", 1),
            ];
            fields.iter().fold(template.len(), |width, (field, value)| match template.contains(field) {
                true => width - field.len() + value,
                false => width,
            })
        };
        for (least, template) in WITH_TOTAL.iter().chain(&WITHOUT_TOTAL) {
            assert!(widest(template) < usize::from(*least), "{template}: {}", widest(template));
        }
    }
}
