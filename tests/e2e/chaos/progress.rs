//! How long appends wait after a fault begins, and after it ends: the figures of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::checker::Time;

/// When requests of one log were sent and acknowledged, in the order of the acknowledgements.
#[derive(Default)]
pub struct Acks {
    times: Vec<(Time, Time)>,
    /// The failed requests since the last acknowledgement.
    failed: Vec<String>,
    /// Those before the last acknowledgement.
    failed_before: Vec<String>,
}

/// More failed requests are not kept.
const FAILED_MAX: usize = 60;

impl Acks {
    pub fn push(&mut self, sent: Time, acknowledged: Time) {
        self.times.push((sent, acknowledged));
        if !self.failed.is_empty() {
            self.failed_before = std::mem::take(&mut self.failed);
        }
    }

    /// A request failed that was sent at this time.
    pub fn failed(&mut self, sent: Time, now: Time, node: &str, error: &str) {
        if self.failed.len() < FAILED_MAX {
            self.failed.push(format!("{:.3} s, for {} ms, {node}: {error}", sent as f64 / 1e6, (now - sent) / 1000));
        }
    }

    /// Returns the failed requests before the last acknowledgement, which may explain why there was none for long.
    pub fn explanation(&self) -> &[String] {
        if self.failed.is_empty() { &self.failed_before } else { &self.failed }
    }

    /// Returns the time from `at` to the first acknowledgement of a request that was sent at that time or later. Requests
    /// that were sent before may have been decided before, too.
    pub fn first_after(&self, at: Time) -> Option<Time> {
        // Threads may swap two acknowledgements, so the search begins a little earlier.
        let begin = self.times.partition_point(|(_, acknowledged)| *acknowledged < at).saturating_sub(16);
        self.times[begin..].iter().find(|(sent, _)| *sent >= at).map(|(_, acknowledged)| acknowledged - at)
    }
}

/// A fault that was injected.
#[derive(Clone, Debug)]
pub struct Injected {
    pub fault: &'static str,
    pub begin: Time,
    pub end: Time,
    /// A majority of each log was healthy from its begin to its end, so that appends were expected meanwhile.
    pub has_majority: bool,
    /// No other fault was there at its end.
    pub ends_last: bool,
}

/// The figures of one kind of fault, in microseconds.
#[derive(Default)]
struct Figures {
    count: usize,
    after_begin: Vec<Time>,
    after_end: Vec<Time>,
}

/// Returns the table: for each fault, the time to the next acknowledgement in every log after it began (if a majority was
/// healthy meanwhile) and after it ended (if no other fault was left).
pub fn table(faults: &[Injected], logs: &[&Acks]) -> String {
    let slowest =
        |at: Time| logs.iter().map(|acks| acks.first_after(at)).collect::<Option<Vec<_>>>()?.into_iter().max();
    let mut all: BTreeMap<&str, Figures> = BTreeMap::new();
    for injected in faults {
        let figures = all.entry(injected.fault).or_default();
        figures.count += 1;
        if injected.has_majority {
            figures.after_begin.extend(slowest(injected.begin));
        }
        if injected.ends_last {
            figures.after_end.extend(slowest(injected.end));
        }
    }
    let mut text = String::from(
        "| fault | count | after its begin: median | worst | after its end: median | worst |\n|---|---|---|---|---|---|\n",
    );
    for (fault, mut figures) in all {
        let [begin, end] = [&mut figures.after_begin, &mut figures.after_end].map(|times| median_and_worst(times));
        let _ = writeln!(text, "| {fault} | {} | {begin} | {end} |", figures.count);
    }
    text
}

fn median_and_worst(times: &mut [Time]) -> String {
    times.sort_unstable();
    match times.last() {
        None => "– | –".to_owned(),
        Some(worst) => format!("{} ms | {} ms", times[times.len() / 2] / 1000, worst / 1000),
    }
}

#[test]
fn measures_only_requests_that_were_sent_afterwards() {
    let mut acks = Acks::default();
    for (sent, acknowledged) in [(0, 5), (8, 12), (11, 30), (9, 31), (31, 40)] {
        acks.push(sent, acknowledged);
    }
    assert_eq!([acks.first_after(10), acks.first_after(12), acks.first_after(32)], [Some(20), Some(28), None]);
    let fault = |begin: Time, end: Time, has_majority, ends_last| Injected {
        fault: "kill",
        begin: begin * 1000,
        end: end * 1000,
        has_majority,
        ends_last,
    };
    let mut acks = Acks::default();
    (0..100).for_each(|n| acks.push(n * 10_000, n * 10_000 + 4000));
    let text = table(&[fault(5, 11, true, false), fault(25, 26, false, true), fault(18, 19, true, true)], &[&acks]);
    assert!(text.contains("| kill | 3 | 9 ms | 9 ms | 8 ms | 8 ms |"), "{text}");
}
