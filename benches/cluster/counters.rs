//! What the kernel counts: events of the whole machine with `perf stat`, and context switches of a process.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const EVENTS: &str = "sched:sched_wakeup,context-switches,raw_syscalls:sys_enter";

/// The names of the counters, in the order of [`Counts`].
pub const NAMES: [&str; 3] = ["wake-ups", "context switches", "system calls"];

/// Events of the whole machine.
pub type Counts = [f64; NAMES.len()];

/// Returns why events can't be counted.
pub fn problem() -> Option<String> {
    let probe = Command::new("perf").args(["stat", "-a", "-x,", "-e", EVENTS, "true"]).stdin(Stdio::null()).output();
    match probe {
        Err(error) => Some(format!("perf: {error}")),
        Ok(output) if !output.status.success() || String::from_utf8_lossy(&output.stderr).contains("<not ") => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Some(format!("perf stat -a needs root and the kernel's tracepoints: {line}"))
        }
        Ok(_) => None,
    }
}

/// A `perf stat` that counts nothing yet. Killed when dropped.
struct Perf {
    child: Child,
    control: File,
    acknowledgements: File,
    dir: tempfile::TempDir,
}

impl Drop for Perf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Perf {
    fn start() -> Perf {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        let pipe = |name: &str| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path(name), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
            // For reading too: opening a pipe with one end waits for the other one.
            File::options().read(true).write(true).open(path(name)).expect("a pipe")
        };
        let (control, acknowledgements) = (pipe("control"), pipe("acknowledgements"));
        let pipes = format!("fifo:{},{}", path("control").display(), path("acknowledgements").display());
        let child = Command::new("perf")
            .args(["stat", "-a", "-x,", "-D", "-1", "-e", EVENTS, "--control", &pipes, "-o"])
            .arg(path("counts"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("perf starts");
        Perf { child, control, acknowledgements, dir }
    }

    /// Sends a command, and waits until perf has obeyed.
    fn command(&mut self, command: &str) {
        self.control.write_all(command.as_bytes()).expect("perf reads");
        let mut acknowledgement = [0; 5];
        self.acknowledgements.read_exact(&mut acknowledgement).expect("perf responds");
    }

    fn end(mut self) -> Counts {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("a signal");
        self.child.wait().expect("perf exits");
        parse(&self.dir.path().join("counts"))
    }
}

fn parse(file: &Path) -> Counts {
    let text = fs::read_to_string(file).expect("counts");
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    [(); NAMES.len()].map(|()| {
        let line = lines.next().unwrap_or_default();
        let count = line.split(',').next().and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("perf printed no count: {text}"))
    })
}

/// Counts the events of the whole machine while something is done. Returns the time that it took, too.
pub fn count(act: impl FnOnce()) -> (Counts, Duration) {
    let mut perf = Perf::start();
    perf.command("enable\n");
    let begin = Instant::now();
    act();
    let took = begin.elapsed();
    perf.command("disable\n");
    (perf.end(), took)
}

/// Returns the events for each of the repetitions of an act, without those of the idle machine.
pub fn count_each(idle: Duration, act: impl FnOnce() -> u64) -> Counts {
    let (baseline, idle) = count(|| std::thread::park_timeout(idle));
    let mut repetitions = 0;
    let (counts, took) = count(|| repetitions = act());
    let idle_part = took.as_secs_f64() / idle.as_secs_f64();
    let mut each = counts;
    for (each, baseline) in each.iter_mut().zip(baseline) {
        *each = (*each - baseline * idle_part) / repetitions as f64;
    }
    each
}

/// Returns how often the threads of a process were switched to another thread.
pub fn context_switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let of_thread = |status: String| {
        let fields = status.lines().filter(|line| line.contains("voluntary_ctxt_switches:"));
        fields.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>()
    };
    threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok()).map(of_thread).sum()
}
