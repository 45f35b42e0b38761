//! `make bench-cluster`: three nodes on this machine, beside the raw ceilings and beside peers.
//!
//! Each contestant is three processes on loopback, with their data on one disk. A round starts, checks, measures and
//! stops each of them in turn. `docs/benchmarks/README.md` describes the contestants and the figures. Environment
//! variables: `SERIATIM_BENCH` (measure only figures whose `contestant: figure` contains this text),
//! `SERIATIM_BENCH_ROUNDS`, `SERIATIM_BENCH_SECONDS` (the duration of one turn), `SERIATIM_BENCH_OUT` (the directory of
//! the results).

#[path = "../../tests/e2e/harness.rs"]
#[allow(dead_code)]
mod harness;

#[path = "../../tests/e2e/http2_frames.rs"]
mod http2_frames;

#[path = "../bench/callers.rs"]
mod callers;
#[path = "../bench/calls.rs"]
#[allow(dead_code)]
mod calls;
#[path = "../bench/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../bench/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "../bench/report.rs"]
#[allow(dead_code)]
mod report;

mod contestant;
mod counters;
mod etcd;
mod figures;
mod http2;
mod nats;
mod nats_wire;
mod ours;
mod pages;
mod protobuf_bytes;
mod redis;
mod server;
mod sheet;
mod targets;
mod unary;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use contestant::Kind;
use figures::Round;
use sheet::Sheet;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == raw::SERVE) {
        return raw::serve(&PathBuf::from(args.get(2).expect("the folder of certificates")));
    }
    // `cargo test --benches` runs this program with `--test`: measure nothing.
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    let number = |name: &str, default: f64| std::env::var(name).map_or(default, |n| n.parse().expect("a number"));
    let rounds = number("SERIATIM_BENCH_ROUNDS", 5.0) as usize;
    let turn = Duration::from_secs_f64(number("SERIATIM_BENCH_SECONDS", 1.0));
    let only = std::env::var("SERIATIM_BENCH").unwrap_or_default();
    let begin = process::Ticks::now();

    let mut facts = process::facts();
    facts.push(format!("seriatim {}, {rounds} rounds of {turn:?}", env!("CARGO_PKG_VERSION")));
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.program().is_none_or(server::is_on_path)).collect();
    for kind in Kind::ALL.into_iter().filter(Kind::is_first_of_its_program) {
        let Some(program) = kind.program() else { continue };
        facts.push(server::version(program).unwrap_or(format!("{program} is not on the PATH: left out")));
    }
    if server::is_in_memory(&std::env::temp_dir()) {
        facts.push("**The directory for temporary files is in memory, so nothing is synced**: set TMPDIR".to_owned());
    }
    let perf = counters::problem();
    if let Some(problem) = &perf {
        facts.push(format!("wake-ups, context switches and system calls are left out: {problem}"));
    }
    facts.iter().for_each(|fact| println!("{fact}"));

    let mut sheet = Sheet::new(kinds.iter().map(|kind| kind.title().to_owned()).collect());
    for number in 1..=rounds {
        println!("--- round {number} of {rounds}");
        figures::ceilings(&mut sheet, &only, turn);
        for (column, kind) in kinds.iter().enumerate() {
            let (sheet, counts, idles) = (&mut sheet, perf.is_none(), number == rounds);
            Round { sheet, only: &only, turn, column, counts, idles }.measure(*kind);
        }
    }
    let stolen = process::Ticks::now().stolen_since(begin);
    facts.push(format!("{stolen:.1} % of the CPU time was used by other virtual machines (\"steal\")"));
    let targets = targets::of(&sheet);
    print!("\n{}\n{}", pages::table(&sheet), pages::summary(&targets));
    // The Makefile leaves it empty for a part of the benchmarks.
    if let Some(out) = std::env::var_os("SERIATIM_BENCH_OUT").filter(|out| !out.is_empty()) {
        pages::write(&PathBuf::from(out), &facts, &sheet, &targets);
    }
}
