//! Eight `seriatim produce`, through all nodes and into two logs, while nodes are killed, stopped one after the other, and the
//! logs are trimmed, and while a command itself is killed and started again: every line is there once, in the order of its
//! producer.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use seriatim::client::Client;
use seriatim::pb::v1::{ConsumeRequest, CreateLogRequest};

use crate::harness::{Cluster, Site, eventually, outcome, print_uncaptured};
use crate::load::Random;

const PRODUCERS: usize = 8;
/// A reader that gets no record for so long fails.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a producer does next.
enum Step {
    /// Sends so many more lines.
    Feed(u64),
    /// Kills the command, and starts it again with the whole input.
    Restart,
}

struct Source {
    number: usize,
    command: Command,
}

impl Source {
    fn line(&self, line: u64) -> String {
        format!("{} {line}\n", self.number)
    }

    fn new(site: &Site, number: usize, addrs: &[String], log: &str) -> Source {
        let name = format!("p{number}");
        let args = ["produce", "--producer", &name, "--log", log, "--timeout", "100"];
        let mut command = site.cli(&addrs.join(","), &args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Source { number, command }
    }

    fn start(&mut self) -> Child {
        self.command.spawn().expect("it starts")
    }

    fn feed(&self, child: &mut Child, lines: std::ops::Range<u64>) {
        let text: String = lines.map(|line| self.line(line)).collect();
        let input = child.stdin.as_mut().expect("stdin");
        if input.write_all(text.as_bytes()).and_then(|()| input.flush()).is_err() {
            let mut error = String::new();
            child.stderr.take().expect("stderr").read_to_string(&mut error).expect("text");
            panic!("producer {} has ended, {}: {error}", self.number, child.wait().expect("it ended"));
        }
    }

    fn run(mut self, steps: &Receiver<Step>) {
        let mut child = self.start();
        let mut fed = 0;
        for step in steps {
            match step {
                Step::Feed(lines) => {
                    self.feed(&mut child, fed..fed + lines);
                    fed += lines;
                }
                Step::Restart => {
                    child.kill().expect("killed");
                    child.wait().expect("it ended");
                    child = self.start();
                    self.feed(&mut child, 0..fed);
                }
            }
        }
        drop(child.stdin.take());
        let (code, _, error) = outcome(&child.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(0), "producer {}: {error}", self.number);
    }
}

/// Reads a log from its beginning until it has so many records, through any node.
fn read(clients: &[Client], log: &str, records: u64, position: &AtomicU64) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = Vec::new();
    let (mut before, mut until) = (0, Instant::now() + SILENCE_MAX);
    for client in clients.iter().cycle() {
        if values.len() > before {
            (before, until) = (values.len(), Instant::now() + SILENCE_MAX);
        }
        assert!(Instant::now() < until, "log {log}: {} of {records} records, and no more come", values.len());
        let request = ConsumeRequest { log: log.into(), offset: values.len() as u64, ..ConsumeRequest::default() };
        let Ok(stream) = client.consume_stream(&request, Some(Duration::from_secs(5))) else { continue };
        for message in stream {
            let Ok(message) = message else { break };
            for record in message.records {
                assert_eq!(record.offset, values.len() as u64, "log {log}: a gap");
                values.push(record.value.to_vec());
            }
            position.store(values.len() as u64, Ordering::Relaxed);
            if values.len() as u64 >= records {
                return values;
            }
        }
    }
    values
}

/// Returns the node that leads a log.
fn leader_of(cluster: &Cluster, clients: &[Client], log: &str) -> usize {
    eventually("a leader", || {
        for client in clients {
            let Ok(response) = client.get_servers(log) else { continue };
            if let Some(leader) = response.servers.iter().find(|server| server.is_leader) {
                return cluster
                    .nodes
                    .iter()
                    .position(|node| node.rpc_addr == leader.rpc_addr)
                    .ok_or("unknown".to_owned());
            }
        }
        Err("none".to_owned())
    })
}

/// One run: each producer appends so many lines, in as many portions, with a disturbance after each.
fn run(cluster: &mut Cluster, round: u64, lines: u64, portions: u64, random: &mut Random) {
    let clients = cluster.clients();
    let logs = [format!("a{round}"), format!("b{round}")];
    for log in &logs {
        eventually("created", || {
            let request = CreateLogRequest { log: log.clone(), ..CreateLogRequest::default() };
            match clients[0].create_log(&request) {
                Err(error) if error.status().is_none_or(|status| status.reason != "LOG_EXISTS") => {
                    Err(error.to_string())
                }
                Ok(_) | Err(_) => Ok(()),
            }
        });
    }
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect();
    let positions: [AtomicU64; 2] = Default::default();
    let per_log = lines * PRODUCERS as u64 / 2;
    let read_back: Vec<Vec<Vec<u8>>> = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|i| {
                let (clients, log, position) = (&clients, &logs[i], &positions[i]);
                scope.spawn(move || read(clients, log, per_log, position))
            })
            .collect();
        let producers: Vec<(Sender<Step>, _)> = (0..PRODUCERS)
            .map(|number| {
                let mut addrs = addrs.clone();
                addrs.rotate_left(number % cluster.nodes.len());
                let source = Source::new(&cluster.site, number, &addrs, &logs[number % 2]);
                let (sender, steps) = unbounded();
                (sender, scope.spawn(move || source.run(&steps)))
            })
            .collect();
        for portion in 0..portions {
            for (sender, _) in &producers {
                sender.send(Step::Feed(lines / portions)).expect("it runs");
            }
            let log = random.below(2) as usize;
            match if portion == portions / 2 { 5 } else { random.below(5) } {
                0..=2 => {
                    let node = leader_of(cluster, &clients, &logs[log]);
                    cluster.nodes[node].kill();
                    cluster.nodes[node].start_again();
                }
                3 => {
                    let node = random.below(cluster.nodes.len() as u64) as usize;
                    cluster.nodes[node].kill();
                    cluster.nodes[node].start_again();
                }
                4 => {
                    let number = random.below(PRODUCERS as u64) as usize;
                    producers[number].0.send(Step::Restart).expect("it runs");
                }
                _ => {
                    for log in 0..2 {
                        let keep = positions[log].load(Ordering::Relaxed).saturating_sub(10);
                        eventually("trimmed", || clients[0].trim(&logs[log], keep).map_err(|error| error.to_string()));
                    }
                    for node in &mut cluster.nodes {
                        assert!(node.stop().success());
                        node.start_again();
                    }
                }
            }
        }
        for (sender, producer) in producers {
            drop(sender);
            producer.join().expect("a producer");
        }
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    for (log, values) in read_back.iter().enumerate() {
        let mut next = [0; PRODUCERS];
        for value in values {
            let text = String::from_utf8_lossy(value);
            let (number, line) = text.split_once(' ').expect("two numbers");
            let (number, line): (usize, u64) = (number.parse().expect("n"), line.parse().expect("n"));
            assert_eq!((line, number % 2), (next[number], log), "producer {number}");
            next[number] += 1;
        }
        assert!(next.iter().enumerate().all(|(number, next)| number % 2 != log || *next == lines), "{next:?}");
        let end = eventually("the log", || clients[0].get_log(&logs[log]).map_err(|error| error.to_string()));
        assert_eq!(end.position.next_offset, per_log, "nothing is there twice");
    }
}

/// `SERIATIM_TEST_ONCE_MINUTES` repeats it for so long, with 100,000 lines of each producer.
#[test]
fn every_line_of_eight_producers_is_there_once() {
    let minutes: u64 =
        std::env::var("SERIATIM_TEST_ONCE_MINUTES").map_or(0, |minutes| minutes.parse().expect("a number"));
    let mut cluster = Cluster::start(3);
    let mut random = Random::from_env("exactly once");
    if minutes == 0 {
        return run(&mut cluster, 0, 2_000, 5, &mut random);
    }
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    for round in 0.. {
        if Instant::now() >= until {
            break;
        }
        run(&mut cluster, round, 100_000, 25, &mut random);
        print_uncaptured(&format!("round {round}: 800,000 lines, each once\n"));
    }
}
