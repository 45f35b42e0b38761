//! Two samples as text: a line about the cluster, then the nodes, the logs and the cursors.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::sample::{Sample, counter, histogram, p99};
use crate::cli::output::{columns, printable};
use crate::cli::status::answer::role;
use crate::cli::status::{Answer, table};
use crate::pb::v1::{GetNodeResponse, GroupStatus, Role};

/// The number of cursors in a frame, those that lag most.
const CURSORS_MAX: usize = 5;
/// The fewest logs in a frame, even if the terminal has fewer lines.
const LOGS_MIN: usize = 3;

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub columns: usize,
    pub lines: usize,
}

impl Size {
    pub const UNLIMITED: Size = Size { columns: usize::MAX, lines: usize::MAX };

    pub fn of_terminal() -> Size {
        let size = terminal_size::terminal_size();
        let (columns, lines) = size.map_or((80, 24), |(width, height)| (width.0, height.0));
        Size { columns: columns.into(), lines: lines.into() }
    }
}

/// What is shown: the last sample, and the one before for the rates.
pub(super) struct Frame<'a> {
    now: &'a Sample,
    before: Option<&'a Sample>,
    filter: &'a str,
}

impl<'a> Frame<'a> {
    pub fn new(now: &'a Sample, before: Option<&'a Sample>, filter: &'a str) -> Frame<'a> {
        Frame { now, before, filter }
    }

    /// Returns the frame. What does not fit is left out: of the logs, those with the lowest rates. `hint` ends the first
    /// line.
    pub fn text(&self, size: Size, hint: &str) -> String {
        let nodes = columns(&self.nodes());
        let cursors = self.cursors();
        let cursors = if cursors.len() > 1 { format!("\n{}", columns(&cursors)) } else { String::new() };
        let mut logs = self.logs();
        let all = logs.len() - 1;
        // The headline, two empty lines, the heading of the logs, and the line about those that are left out.
        let others = 5 + nodes.lines().count() + cursors.lines().count();
        let room = size.lines.saturating_sub(others).max(LOGS_MIN);
        logs.truncate(room.saturating_add(1));
        let mut text = format!("{}\n\n{nodes}\n{}", self.headline(all, hint), columns(&logs));
        if logs.len() <= all {
            // Writing to a string can't fail.
            let _ = writeln!(text, "... and {} more logs", all + 1 - logs.len());
        }
        text += &cursors;
        text.lines().map(|line| cut(line, size.columns) + "\n").collect()
    }

    fn headline(&self, logs: usize, hint: &str) -> String {
        let answers = &self.now.answers;
        let name = answers.iter().find_map(|answer| answer.node.as_ref().ok()).map_or("?", |node| &node.cluster_name);
        let alive = answers.iter().filter(|answer| answer.node.is_ok()).count();
        let hint = if hint.is_empty() { String::new() } else { format!("; {}", printable(hint)) };
        let noun = if logs == 1 { "log" } else { "logs" };
        format!(
            "cluster {name} ({}): {alive} of {} nodes answer, {logs} {noun}{}{hint}",
            self.now.cluster_id,
            answers.len(),
            if self.filter.is_empty() { String::new() } else { format!(" with {:?} in their name", self.filter) },
        )
    }

    /// Returns the increase of a counter of a node per second. A counter that has fallen belongs to a restarted node.
    fn rate(&self, node: &GetNodeResponse, name: &str) -> Option<f64> {
        let before = counter(self.before?.node(&node.node_id)?, name)?;
        let increase = counter(node, name)?.checked_sub(before)?;
        Some(increase as f64 / self.seconds()?)
    }

    fn seconds(&self) -> Option<f64> {
        let seconds = self.now.taken.saturating_duration_since(self.before?.taken).as_secs_f64();
        (seconds > 0.0).then_some(seconds)
    }

    fn nodes(&self) -> Vec<[String; 11]> {
        let heading =
            ["NODE", "CATALOG", "TERM", "LEADS", "LAG", "APPENDED", "BYTES", "READ", "SYNC", "DISK FREE", "NOTE"];
        let mut rows = vec![heading.map(str::to_owned)];
        for Answer { server, node, .. } in &self.now.answers {
            let mut row: [String; 11] = std::array::from_fn(|_| "-".to_owned());
            row[0].clone_from(&server.id);
            row[10] = match node {
                Err(why) => format!("no answer: {}", printable(why)),
                Ok(node) => {
                    let catalog = node.groups.iter().find(|group| group.log.is_empty());
                    if let Some(catalog) = catalog {
                        (row[1], row[2]) = (role(catalog).to_owned(), catalog.term.to_string());
                    }
                    let logs = || node.groups.iter().filter(|group| !group.log.is_empty());
                    let leads = logs().filter(|group| is_leader(group)).count();
                    row[3] = format!("{leads} of {}", logs().count());
                    row[4] = logs().map(lag).fold(0, u64::saturating_add).to_string();
                    row[5] = shown(self.rate(node, "seriatim_appended_records_total"), rate);
                    row[6] = shown(self.rate(node, "seriatim_appended_bytes_total"), byte_rate);
                    row[7] = shown(self.rate(node, "seriatim_read_records_total"), rate);
                    row[8] = shown(self.sync(node), seconds);
                    let disk = node.disk.get_or_default();
                    if disk.total_bytes > 0 {
                        row[9] = format!("{} of {}", bytes(disk.free_bytes), bytes(disk.total_bytes));
                    }
                    let waiting = (!node.waiting_for.is_empty()).then(|| format!("not ready: {}", node.waiting_for));
                    printable(&waiting.unwrap_or_else(|| table::note(node, None)))
                }
            };
            rows.push(row);
        }
        rows
    }

    fn sync(&self, node: &GetNodeResponse) -> Option<f64> {
        const SYNC: &str = "seriatim_sync_seconds";
        p99(histogram(self.before?.node(&node.node_id)?, SYNC)?, histogram(node, SYNC)?)
    }

    fn logs(&self) -> Vec<[String; 8]> {
        let groups = self.now.answers.iter().flat_map(|answer| answer.node.iter().flat_map(|node| &node.groups));
        let names: BTreeSet<&str> = groups.map(|group| group.log.as_str()).filter(|log| !log.is_empty()).collect();
        let mut logs: Vec<(f64, &str)> = Vec::new();
        for log in names.into_iter().filter(|log| log.contains(self.filter)) {
            logs.push((self.log_rate(log).unwrap_or(0.0), log));
        }
        logs.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let heading = ["LOG", "LEADER", "OFFSETS", "RECORDS", "STORED", "REPLICAS", "LAG", "NOTE"];
        let mut rows = vec![heading.map(str::to_owned)];
        rows.extend(logs.into_iter().map(|(_, log)| self.log_row(log)));
        rows
    }

    fn log_rate(&self, log: &str) -> Option<f64> {
        let increase = self.now.next_offset(log)?.checked_sub(self.before?.next_offset(log)?)?;
        Some(increase as f64 / self.seconds()?)
    }

    fn log_row(&self, log: &str) -> [String; 8] {
        let views: Vec<(&Answer, &GroupStatus)> =
            self.now.answers.iter().filter_map(|answer| Some((answer, answer.group(log)?))).collect();
        let newest = views.iter().map(|(_, group)| *group).max_by_key(|g| (g.term, is_leader(g), g.commit_index));
        let Some(newest) = newest else { return std::array::from_fn(|_| "-".to_owned()) };
        let voters = newest.replicas.iter().filter(|replica| replica.is_voter).count();
        let largest_lag = views.iter().map(|(_, group)| newest.commit_index.saturating_sub(group.applied_index)).max();
        let notes = views.iter().filter_map(|(answer, group)| {
            let what = match group {
                group if !group.damage.is_empty() => "is damaged",
                group if !group.damaged_ranges.is_empty() => "is damaged on disk",
                group if !group.stalled.is_empty() => "is stalled",
                _ => return None,
            };
            Some(format!("{} {what}", answer.server.id))
        });
        [
            log.to_owned(),
            if newest.leader.is_empty() { "none".to_owned() } else { newest.leader.clone() },
            format!("{}..{}", newest.first_offset, newest.next_offset),
            shown(self.log_rate(log), rate),
            bytes(newest.stored_bytes),
            format!("{}/{voters}", views.len()),
            largest_lag.unwrap_or(0).to_string(),
            printable(&notes.collect::<Vec<_>>().join("; ")),
        ]
    }

    fn cursors(&self) -> Vec<[String; 3]> {
        let before: Vec<(&str, i64)> = self.before.map(Sample::cursors).unwrap_or_default();
        let mut rows = vec![["CURSOR", "LAG", "CHANGE"].map(str::to_owned)];
        let all = self.now.cursors();
        for (cursor, lag) in all.into_iter().filter(|(cursor, _)| cursor.contains(self.filter)).take(CURSORS_MAX) {
            let old = before.iter().find(|(other, _)| *other == cursor).map(|(_, lag)| *lag);
            // A leader measures the lag every few seconds, so a lag that has not changed says nothing.
            let changed = old.filter(|old| *old != lag).zip(self.seconds());
            let change = changed.map(|(old, seconds)| (lag as f64 - old as f64) / seconds);
            let signed = |change: f64| {
                format!(
                    "{}{}",
                    if change > 0.0 {
                        "+"
                    } else if change < 0.0 {
                        "-"
                    } else {
                        ""
                    },
                    rate(change.abs())
                )
            };
            rows.push([printable(cursor), lag.to_string(), shown(change, signed)]);
        }
        rows
    }
}

fn is_leader(group: &GroupStatus) -> bool {
    group.role.enum_value() == Ok(Role::ROLE_LEADER)
}

fn lag(group: &GroupStatus) -> u64 {
    group.commit_index.saturating_sub(group.applied_index)
}

fn shown(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), format)
}

fn rate(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.1} M/s", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k/s", n / 1e3),
        n if n >= 10.0 || n == 0.0 => format!("{n:.0}/s"),
        n => format!("{n:.1}/s"),
    }
}

fn byte_rate(n: f64) -> String {
    format!("{}/s", bytes(n as u64))
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

fn seconds(s: f64) -> String {
    match s {
        s if !s.is_finite() => "> 26 s".to_owned(),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

#[cfg(test)]
mod tests;
