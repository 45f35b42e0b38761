//! Failures: a history that fails is run again with fewer and shorter steps while it still fails.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Once;

use super::events::History;
use super::run;

/// The number of times that a history is run again to shrink it.
const RUNS_MAX: usize = 300;
/// The last lines of a trace that are printed.
const LINES: usize = 80;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a function whose panics on this thread are results: nothing is printed.
pub fn quietly<T>(act: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
                PLACE.set(place.unwrap_or_default());
            } else {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = act();
    QUIET.set(before);
    result
}

/// The message and the place of a panic.
pub fn message(panic: &(dyn Any + Send)) -> String {
    format!("{} ({})", crate::thread::panic_text(panic), PLACE.take())
}

/// A part of a history: the numbers of its steps, and the rounds after each.
type Part = Vec<(usize, u8)>;

fn part_of(history: &History, part: &Part) -> History {
    let mut chosen = history.only(&part.iter().map(|(at, _)| *at).collect::<Vec<_>>());
    chosen.steps.iter_mut().zip(part).for_each(|(step, (_, rounds))| step.rounds = *rounds);
    chosen
}

/// Returns the part of a history that `events` names, as [`Failure::line`] prints it: "3:12,7:1", or "all".
pub fn selected(history: &History, events: &str) -> History {
    if events == "all" {
        return history.clone();
    }
    if events.is_empty() {
        return history.only(&[]);
    }
    let step = |step: &str| {
        let (at, rounds) = step.split_once(':')?;
        Some((at.trim().parse().ok()?, rounds.trim().parse().ok()?))
    };
    let part: Option<Part> = events.split(',').map(step).collect();
    part_of(history, &part.unwrap_or_else(|| panic!("EVENTS is \"all\" or like 3:12,7:1, not {events:?}")))
}

/// A history that fails, and the smallest part of it that was found to fail.
pub struct Failure {
    history: History,
    part: Part,
    what: String,
    lines: Vec<String>,
}

impl Failure {
    /// Shrinks a history that fails.
    pub fn of(history: &History) -> Failure {
        let mut part: Part = history.steps.iter().enumerate().map(|(at, step)| (at, step.rounds)).collect();
        let mut runs = 0;
        let mut fails = |part: &Part| {
            runs += 1;
            runs <= RUNS_MAX && run(&part_of(history, part), false).failure.is_some()
        };
        // Leaves out ever smaller blocks of steps.
        let mut block = part.len();
        while block > 0 {
            let mut at = 0;
            while at < part.len() {
                let mut fewer = part.clone();
                fewer.drain(at..(at + block).min(part.len()));
                if fails(&fewer) { part = fewer } else { at += block }
            }
            block /= 2;
        }
        for at in 0..part.len() {
            while part[at].1 > 0 {
                let mut shorter = part.clone();
                shorter[at].1 /= 2;
                if !fails(&shorter) {
                    break;
                }
                part = shorter;
            }
        }
        let outcome = run(&part_of(history, &part), true);
        let what = outcome.failure.unwrap_or_else(|| "it did not fail again".to_owned());
        Failure { history: history.clone(), part, what, lines: outcome.lines }
    }

    /// The number of steps that are left.
    pub fn steps(&self) -> usize {
        self.part.len()
    }

    /// The command that runs it again.
    pub fn line(&self) -> String {
        let steps: Vec<String> = self.part.iter().map(|(at, rounds)| format!("{at}:{rounds}")).collect();
        let events = if steps.is_empty() { String::new() } else { steps.join(",") };
        format!("make sim SEED={} EVENTS={events}", self.history.seed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, all) = (self.part.len(), self.history.steps.len());
        writeln!(f, "{} nodes, {left} of {all} events are left:", self.history.nodes)?;
        for step in part_of(&self.history, &self.part).steps {
            writeln!(f, "  {step}")?;
        }
        writeln!(f, "the end of the trace:")?;
        for line in &self.lines[self.lines.len().saturating_sub(LINES)..] {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{}\nrun it again: {}", self.what, self.line())
    }
}
