//! `seriatim top`: nodes, logs and cursors in a table that refreshes itself.
//!
//! ```text
//!   sample.rs     what all nodes report at one moment
//!   frame.rs      two samples as text
//!   terminal.rs   the screen and the keys
//! ```

mod frame;
mod sample;
mod terminal;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use self::frame::{Frame, Size};
use self::sample::Sample;
use self::terminal::{Key, Terminal};
use super::connect::ConnectArgs;
use super::dialer::Dialer;
use super::exit::{Exit, Failure};
use super::subcommand::{Process, Subcommand};
use super::{interrupt, output, units};

/// Show nodes, logs and rates, and refresh them
///
/// All members are asked at the same time, which requires the action `admin` on `*` in the access policy. Rates are those
/// since the last refresh, of all nodes together for a log. SYNC is the time below which 99 % of the syncs to the disk were.
/// LAG of a node is how many committed entries it has not applied yet, in all logs; that of a cursor is how many records
/// its reader has still to read. Logs with the highest rates come first.
///
/// q or Ctrl-C ends it. With --once, or if standard output is not a terminal, it prints one frame after one interval, in
/// which it measures the rates. The page of a node (http_addr) shows the same with plots.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Seconds between two refreshes
    #[arg(long, short, value_name = "SECONDS", default_value = "2", value_parser = units::timeout)]
    interval: Duration,
    /// Print one frame, and exit
    #[arg(long)]
    once: bool,
    /// Show only logs and cursors whose names contain this text
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "top";
    const EXAMPLES: &'static [&'static str] =
        &["seriatim top --certs certs", "seriatim top --certs certs --once --filter audit"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let dialer = self.connect.resolve()?;
        if self.once || !std::io::stdout().is_terminal() {
            return self.print_once(&dialer);
        }
        self.watch(&dialer)
    }
}

impl Args {
    fn print_once(&self, dialer: &Dialer) -> Result<(), Failure> {
        let first = Sample::take(dialer)?;
        // Rates need two samples.
        std::thread::sleep(self.interval.saturating_sub(first.taken.elapsed()));
        let second = Sample::take(dialer)?;
        let text = Frame::new(&second, Some(&first), &self.filter).text(Size::UNLIMITED, "");
        output::say(&text)
    }

    fn watch(&self, dialer: &Dialer) -> Result<(), Failure> {
        // The first sample reports a wrong certificate or a missing right before the screen is changed.
        let mut last = Sample::take(dialer)?;
        let failed = |error: std::io::Error| Failure::new(Exit::Failed, format!("can't use the terminal: {error}"), "");
        let mut terminal = Terminal::open().map_err(failed)?;
        let restore = terminal.restorer();
        interrupt::on_end(move || restore.restore());
        let mut before: Option<Sample> = None;
        let mut trouble = String::new();
        loop {
            let hint = if trouble.is_empty() { "q ends" } else { &trouble };
            let frame = Frame::new(&last, before.as_ref(), &self.filter);
            terminal.draw(&frame.text(terminal.size(), hint)).map_err(failed)?;
            let until = last.taken + self.interval;
            while let Some(key) = terminal.key(until.saturating_duration_since(Instant::now())).map_err(failed)? {
                match key {
                    Key::Quit => return Ok(()),
                    // The size may have changed; the frame is drawn again.
                    Key::Resize => terminal.draw(&frame.text(terminal.size(), hint)).map_err(failed)?,
                    Key::Other => {}
                }
            }
            match Sample::take(dialer) {
                Ok(sample) => {
                    before = Some(std::mem::replace(&mut last, sample));
                    trouble.clear();
                }
                Err(failure) => {
                    trouble = failure.message.lines().collect::<Vec<_>>().join("; ");
                    last.taken = Instant::now();
                }
            }
        }
    }
}
