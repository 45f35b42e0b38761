//! Resource usage of a process, and facts about this machine.

use std::time::{Duration, Instant};

use super::harness::memory_bytes;

/// Returns the CPU time of a process's current threads.
pub fn cpu_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let used = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

/// Samples the memory of a process until [`MemoryPeak::get`], which returns the maximum.
pub struct MemoryPeak {
    stop: crossbeam_channel::Sender<()>,
    thread: std::thread::JoinHandle<u64>,
}

impl MemoryPeak {
    pub fn of(pid: u32) -> MemoryPeak {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let thread = std::thread::spawn(move || {
            let mut peak = memory_bytes(pid);
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                peak = peak.max(memory_bytes(pid));
            }
            peak
        });
        MemoryPeak { stop, thread }
    }

    pub fn get(self) -> u64 {
        drop(self.stop);
        self.thread.join().expect("samples")
    }
}

/// Returns the CPU time of a process during `over`, as a fraction of one core.
pub fn cpu_fraction(pid: u32, over: Duration) -> f64 {
    let (begin, used) = (Instant::now(), cpu_time(pid));
    std::thread::park_timeout(over);
    (cpu_time(pid) - used).as_secs_f64() / begin.elapsed().as_secs_f64()
}

/// The CPU time of all processors since the machine started, and the part that was stolen by other virtual machines, in ticks.
#[derive(Clone, Copy)]
pub struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    pub fn now() -> Ticks {
        let stat = std::fs::read_to_string("/proc/stat").expect("counts");
        // user nice system idle iowait irq softirq steal; the later fields are included in the first two.
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).expect("all processors");
        let ticks: Vec<u64> = line.split_whitespace().take(8).map(|n| n.parse().expect("a number")).collect();
        Ticks { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or_default() }
    }

    /// Returns the percentage that was stolen since `then`.
    pub fn stolen_since(self, then: Ticks) -> f64 {
        // Neither is monotonic: the virtual machine may have moved to other hardware.
        let stolen = self.stolen.saturating_sub(then.stolen);
        100.0 * stolen as f64 / self.all.saturating_sub(then.all).max(1) as f64
    }
}

/// The size of the free blocks of memory that a virtual machine reports to its host, as a power of two in pages. Above 10
/// there are none.
const PAGE_REPORTING: &str = "/sys/module/page_reporting/parameters/page_reporting_order";

/// Returns true if the host may take back the free memory of this virtual machine. When it is used again, each page then
/// takes some 20 µs: writes of large records took four times as long.
fn reports_free_memory() -> bool {
    let order = std::fs::read_to_string(PAGE_REPORTING).ok().and_then(|order| order.trim().parse::<i32>().ok());
    order.is_some_and(|order| (0..=10).contains(&order))
}

/// Returns facts about this machine, one per line.
pub fn facts() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    let os = read("/etc/os-release");
    let os = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or_default().trim_matches('"').to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut facts = vec![
        format!("{cores} cores, {}", model.trim_start_matches([' ', '\t', ':'])),
        format!("memory {}", total.trim()),
        format!("Linux {}, {os}", read("/proc/sys/kernel/osrelease").trim()),
    ];
    if reports_free_memory() {
        facts.push(format!("**The host takes free memory back, so new pages are slow**: write 11 to {PAGE_REPORTING}"));
    }
    facts
}
