//! Instructions per record: both servers run under valgrind's callgrind, whose counts do not depend on the machine.
//!
//! The counts cover user space and all threads. They start when the server is warm. The instructions of an idle server (ticks,
//! clock reads) during the same time are subtracted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::calls::{Caller, produce_request};
use super::figures::{Bench, consume_all, matching_raw_request};
use super::harness::{Node, NodeOptions, Site, print_uncaptured};
use super::raw::RawServer;
use super::report::{Row, Target};

const CALLGRIND: &str = "callgrind_control";

/// Returns the command that runs a server under callgrind, which writes its files into `dir`.
fn callgrind(dir: &Path) -> Vec<String> {
    let out = format!("--callgrind-out-file={}/callgrind.%p", dir.display());
    // Without fair scheduling, a running thread starves the threads that it waits for.
    ["valgrind", "--quiet", "--tool=callgrind", "--fair-sched=yes", &out].map(str::to_owned).to_vec()
}

/// A process that runs under callgrind.
struct Counted<'a> {
    process: u32,
    dir: &'a Path,
    idle_per_second: f64,
}

impl<'a> Counted<'a> {
    fn new(process: u32, dir: &'a Path) -> Counted<'a> {
        let mut counted = Counted { process, dir, idle_per_second: 0.0 };
        let idle = Duration::from_secs(3);
        counted.idle_per_second = counted.during(|| {
            std::thread::park_timeout(idle);
            idle.as_secs_f64()
        });
        counted
    }

    /// Returns the instructions per record while `work` runs, without those of an idle server. `work` returns the number of
    /// its records.
    fn during(&self, work: impl FnOnce() -> f64) -> f64 {
        self.control("--zero");
        let begin = Instant::now();
        let records = work();
        let took = begin.elapsed();
        self.control("--dump");
        let prefix = format!("callgrind.{}.", self.process);
        let mut total = 0;
        for entry in std::fs::read_dir(self.dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)) {
                let text = std::fs::read_to_string(&path).expect("a dump");
                let line = text.lines().find_map(|line| line.strip_prefix("totals:")).expect("its total");
                total += line.trim().parse::<u64>().expect("a number");
                std::fs::remove_file(path).expect("removes");
            }
        }
        (total as f64 - self.idle_per_second * took.as_secs_f64()) / records
    }

    fn control(&self, what: &str) {
        let mut command = Command::new(CALLGRIND);
        let status =
            command.arg(what).arg(self.process.to_string()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("callgrind_control starts").success(), "callgrind_control {what}");
    }
}

pub fn run(bench: &mut Bench) {
    const BATCHES: &str = "instructions: produce, stream, 100 × 1 KiB a message";
    const CONSUME: &str = "instructions: consume, catching up, 1 KiB, default batches";
    const SMALL: &str = "instructions: produce, stream, 1 KiB a message";
    const ONE: &str = "instructions: produce, unary, 100 B, one in flight";
    const MANY: &str = "instructions: produce, unary, 100 B, 256 in flight";
    if ![BATCHES, CONSUME, SMALL, ONE, MANY].iter().any(|name| bench.wants(name)) {
        return;
    }
    if Command::new(CALLGRIND).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return print_uncaptured("instructions: SKIPPED, valgrind is not installed");
    }
    let (site, dir) = (Site::new(), tempfile::tempdir().expect("a folder"));
    let (wrapper, files) = (callgrind(dir.path()), site.client_files("root"));
    let options =
        NodeOptions { name: "n1".into(), bootstrap: true, wrapper: wrapper.clone(), ..NodeOptions::default() };
    let node = Node::start(&site, options);
    let raw = RawServer::start_wrapped(&wrapper, &site.certs(), files.clone());
    let callers = [raw.connect(), Caller::connect(&node.rpc_addr, &files)];
    let servers = [raw.pid(), node.pid()].map(|process| Counted::new(process, dir.path()));
    let mut count = |name: &str, load: &dyn Fn(usize) -> f64| {
        if !bench.wants(name) {
            return;
        }
        let mut row = Row::new(name, "a record", Target::None);
        let [ceiling, ours] = [0, 1].map(|server| {
            load(server);
            servers[server].during(|| load(server))
        });
        row.ceiling.push(ceiling);
        row.ours.push(ours);
        row.ratio.push(ours / ceiling);
        bench.add(row);
    };
    let upload = |server: usize, records: usize, window: usize, messages: u64| {
        callers[server].upload(produce_request(records, 1024), window, messages);
        (records as u64 * messages) as f64
    };
    count(BATCHES, &|server| upload(server, 100, 32, 200));
    // Records to consume, also when the other figures are not measured.
    upload(1, 100, 32, 200);
    let request = consume_all(0);
    let log = callers[1].download(request.clone());
    let requests = [matching_raw_request(&log), request];
    count(CONSUME, &|server| {
        callers[server].download(requests[server].clone());
        log.bytes as f64 / 1024.0
    });
    count(SMALL, &|server| upload(server, 1, 128, 5000));
    let (small, turn) = (produce_request(1, 100), Duration::from_secs(3));
    count(ONE, &|server| callers[server].latencies(small.clone(), turn).len() as f64);
    count(MANY, &|server| {
        let begin = Instant::now();
        let rate = callers[server].unary_rate(&small, 256, turn);
        rate * begin.elapsed().as_secs_f64()
    });
}
