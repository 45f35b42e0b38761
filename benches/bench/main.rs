//! `make bench`: the performance of one node, each figure with its ceiling.
//!
//! A ceiling is the raw disk or a gRPC server without logic. It is measured alternately with the node in the same run, because
//! absolute times on a shared machine are not comparable. Client, node and ceiling run on this machine, all with mutual TLS.
//! `docs/benchmarks/README.md` describes each figure. Environment variables: `SERIATIM_BENCH` (measure only figures whose names
//! contain this text), `SERIATIM_BENCH_ROUNDS`, `SERIATIM_BENCH_SECONDS` (the duration of one turn),
//! `SERIATIM_BENCH_OURS_ALONE` (no ceilings, for a profiler), `SERIATIM_BENCH_OUT` (the directory of the results),
//! `SERIATIM_BENCH_CATCH_UP_MIB` (what a follower lacks before it catches up).

#[path = "../../tests/e2e/harness.rs"]
#[allow(dead_code)]
mod harness;

mod callers;
mod calls;
mod catch_up;
mod figures;
mod instructions;
mod library;
mod process;
mod raw;
mod report;
mod storage;

use std::path::PathBuf;
use std::time::Duration;

use figures::Bench;

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
    let mut bench = Bench {
        only: std::env::var("SERIATIM_BENCH").unwrap_or_default(),
        ours_alone: std::env::var_os("SERIATIM_BENCH_OURS_ALONE").is_some(),
        rounds: number("SERIATIM_BENCH_ROUNDS", 7.0) as usize,
        turn: Duration::from_secs_f64(number("SERIATIM_BENCH_SECONDS", 1.0)),
        rows: Vec::new(),
    };
    let begin = process::Ticks::now();
    figures::run(&mut bench);
    library::run(&mut bench);
    storage::run(&mut bench);
    instructions::run(&mut bench);
    catch_up::run(&mut bench);
    // The Makefile leaves it empty for a part of the benchmarks.
    if let Some(out) = std::env::var_os("SERIATIM_BENCH_OUT").filter(|out| !out.is_empty()) {
        let version = format!("seriatim {}", env!("CARGO_PKG_VERSION"));
        let mut facts = process::facts();
        facts.push(format!("{version}, {} rounds of {:?}", bench.rounds, bench.turn));
        let stolen = process::Ticks::now().stolen_since(begin);
        facts.push(format!("{stolen:.1} % of the CPU time was used by other virtual machines on the same hardware (\"steal\", as the hypervisor reports it)"));
        report::write(&PathBuf::from(out), &facts, &bench.rows);
    }
}
