//! Metrics of the process, with the names that Prometheus' client libraries have agreed on.
//!
//! They are read from `/proc/self`, which is in memory: a read waits for no disk.

use std::fs;

use crate::metrics::{Collected, Family, FamilyKind, Registry};

const fn family(name: &'static str, kind: FamilyKind, help: &'static str) -> Family {
    Family { name, kind, labels: &[], help }
}

const FAMILIES: &[Family] = &[
    family("process_cpu_seconds", FamilyKind::Counter, "Time of the processors that the process has used"),
    family("process_resident_memory_bytes", FamilyKind::Gauge, "Memory that the process has in RAM"),
    family("process_virtual_memory_bytes", FamilyKind::Gauge, "Address space of the process"),
    family("process_open_fds", FamilyKind::Gauge, "Descriptors that are open"),
    family("process_max_fds", FamilyKind::Gauge, "The limit of open descriptors"),
    family("process_threads", FamilyKind::Gauge, "Threads of the process"),
    family("process_start_time_seconds", FamilyKind::Gauge, "When the process was started, in Unix seconds"),
];

pub(super) fn register(registry: &Registry) {
    registry.collect(FAMILIES, collect);
}

fn collect(collected: &mut Collected) {
    let mut add = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            collected.add(name, &[], value);
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let page_bytes = rustix::param::page_size() as f64;
    let stat = Stat::read(&stat);
    add("process_cpu_seconds", stat.map(|stat| stat.cpu_ticks / ticks_per_second));
    add("process_resident_memory_bytes", stat.map(|stat| stat.resident_pages * page_bytes));
    add("process_virtual_memory_bytes", stat.map(|stat| stat.virtual_bytes));
    add("process_threads", stat.map(|stat| stat.threads));
    let boot = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_seconds);
    let started = stat.zip(boot).map(|(stat, boot)| boot + stat.started_ticks / ticks_per_second);
    add("process_start_time_seconds", started);
    add("process_open_fds", fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as f64));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    add("process_max_fds", limit.map(|limit| limit as f64));
}

/// Fields of `/proc/self/stat`: see proc(5).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    started_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn read(text: &str) -> Option<Stat> {
        // The name of the process may contain spaces and parentheses.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<f64> = fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
        // The field after the name has number 3.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Reads when the host was started from `/proc/stat`, in Unix seconds.
fn boot_seconds(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextFormat;

    #[test]
    fn reads_the_fields_after_a_name_with_parentheses() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 12 0 4242 1000000 77 18446744073709551615 1";
        let stat = Stat::read(text).expect("fields");
        assert_eq!((stat.cpu_ticks, stat.threads, stat.started_ticks), (200.0, 12.0, 4242.0));
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (1_000_000.0, 77.0));
        assert_eq!(Stat::read("7 (a) S 1"), None);
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1.7e9));
    }

    #[test]
    fn every_metric_of_this_process_has_a_plausible_value() {
        let registry = Registry::default();
        register(&registry);
        let text = registry.encode(TextFormat::Prometheus);
        for family in FAMILIES {
            let total = if family.kind == FamilyKind::Counter { "_total" } else { "" };
            let name = format!("{}{total} ", family.name);
            let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect("a value");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{name}{value}");
        }
        let started = text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds ")).expect("a value");
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
        let age = now - started.parse::<f64>().expect("a number");
        assert!((-5.0..86_400.0).contains(&age), "{age}");
    }
}
