//! Helpers of the tests: a [`Site`] is a directory with certificates and a policy, a [`Node`] is a process, a
//! [`Cluster`] is several nodes.
//!
//! Ports come from binding port 0. No test sleeps to wait for something: [`eventually`] polls a condition until a
//! deadline. Dropping a value cleans up: processes are killed, directories are removed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use rustix::process::{Pid, Signal, kill_process};
use seriatim::agent::Agent;
use seriatim::client::metrics::{full_name, number};
use seriatim::client::{Client, ClientFiles, ClientOptions, ConsumeStream};
use seriatim::config::{Config, TlsFiles};
use seriatim::pb::v1::{ConsumeRequest, ConsumeResponse, GetNodeResponse, LogConfig, Record, Start, UpdateLogRequest};

#[path = "site.rs"]
pub mod site;

pub use site::Site;

/// How long a condition may take on a busy machine. A passing test does not wait that long.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The program under test.
pub const SERIATIM: &str = env!("CARGO_BIN_EXE_seriatim");

/// Prints a line that is shown although the test passes.
pub fn print_uncaptured(text: &str) {
    // The test runner captures the output of `eprintln!`, but not of `stderr()`.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns the anonymous memory that a process uses now, in bytes (`RssAnon`).
pub fn memory_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The exit code, stdout and stderr of a command.
pub type Outcome = (Option<i32>, String, String);

/// Returns the outcome of a command, whose output must be UTF-8.
#[track_caller]
pub fn outcome(output: &Output) -> Outcome {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Returns the value of a node's counter, or 0 if it does not exist.
#[track_caller]
pub fn counter(client: &Client, name: &str) -> u64 {
    counter_of(&client.get_node().expect("a response"), name)
}

/// Returns the value of a node's counter or gauge, or 0 if it does not exist. The name includes the label.
#[track_caller]
pub fn counter_of(node: &GetNodeResponse, name: &str) -> u64 {
    let value = node.metrics.iter().find(|metric| full_name(metric) == name).and_then(number);
    value.map_or(0, |value| u64::try_from(value).expect("not negative"))
}

/// Returns a request that changes the retention of the default log.
pub fn retention(bytes: Option<u64>, ms: Option<u64>) -> UpdateLogRequest {
    let config = LogConfig {
        min_retained_bytes: bytes,
        retention_age: ms.map(|ms| Duration::from_millis(ms).into()).into(),
        ..LogConfig::default()
    };
    UpdateLogRequest { config: Some(config).into(), ..UpdateLogRequest::default() }
}

/// Creates a client with these certificates, or without TLS.
pub fn client_with(addr: impl ToString, files: Option<ClientFiles>) -> Client {
    let options = ClientOptions { addr: addr.to_string(), files, timeout: Duration::from_secs(10) };
    Client::new(&options).expect("a client")
}

/// Polls until `ask` succeeds, and returns its value. Panics with its last error after [`TIMEOUT`].
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + TIMEOUT;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < until, "not within {TIMEOUT:?}: {what}: {error}"),
        }
        // The polling interval.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Waits until each of these nodes lists all replicas of the log and all nodes of the catalog as voters, and one
/// leader. A node becomes a voter of the catalog last.
#[track_caller]
pub fn wait_for_voters(clients: &[Client]) {
    for client in clients {
        eventually("every node is a voter", || {
            let servers = client.get_servers("default").map_err(|e| e.to_string())?.servers;
            let voters = servers.iter().filter(|s| s.is_voter).count();
            let leaders = servers.iter().filter(|s| s.is_leader).count();
            let log = client.get_log("").map_err(|e| e.to_string())?.name;
            let groups = client.get_node().map_err(|e| e.to_string())?.groups;
            let catalog = groups.iter().find(|group| group.log.is_empty());
            let of_catalog = catalog.map_or(0, |catalog| catalog.replicas.iter().filter(|r| r.is_voter).count());
            let all = servers.len() == clients.len() && voters == clients.len().min(3);
            let good = all && of_catalog == clients.len().min(5) && leaders == 1 && log == "default";
            let counts = format!("{} members, {voters} voters, {of_catalog} of the catalog", servers.len());
            good.then_some(()).ok_or(format!("{counts}, {leaders} leaders"))
        });
    }
}

/// Returns the next message that contains records. The first message of each stream contains none.
#[track_caller]
pub fn next_records(stream: &mut ConsumeStream) -> ConsumeResponse {
    let mut messages = stream.map(|message| message.expect("no status"));
    messages.find(|message| !message.records.is_empty()).expect("records")
}

/// Returns a record that has only a value.
pub fn record(value: impl AsRef<[u8]>) -> Record {
    Record { value: value.as_ref().to_vec().into(), ..Record::default() }
}

/// Reads every record that a node has now, from the first one.
#[track_caller]
pub fn read_all(client: &Client) -> Vec<Record> {
    let request = ConsumeRequest {
        start: Start::START_EARLIEST.into(),
        max_records: 10_000,
        stop_at_end: true,
        ..ConsumeRequest::default()
    };
    let answers = client.consume_stream(&request, Some(TIMEOUT)).expect("a stream");
    let answers: Result<Vec<ConsumeResponse>, _> = answers.collect();
    answers.expect("all records").into_iter().flat_map(|answer| answer.records).collect()
}

/// Starts a node in this process.
#[track_caller]
pub fn start_agent(config: Config) -> Agent {
    Agent::start(config).expect("the node starts")
}

/// How a node's process is started.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    pub name: String,
    pub bootstrap: bool,
    pub join: Vec<String>,
    /// Default: a free port of 127.0.0.1.
    pub bind_addr: Option<String>,
    /// Default: a free port of 127.0.0.1.
    pub rpc_addr: Option<String>,
    /// The cluster does not exist yet: wait until the node listens, not until it is ready.
    pub joins_later: bool,
    /// More arguments of `serve`. They replace the harness's own arguments of the same name.
    pub more: Vec<String>,
    /// Pass no arguments but `more`.
    pub only_more: bool,
    /// The command that runs the program, for example `ip netns exec NAME`.
    pub wrapper: Vec<String>,
    /// Additional environment variables.
    pub env: Vec<(String, String)>,
    /// The program, if it is not this version.
    pub program: Option<PathBuf>,
}

/// A node that runs as a process.
pub struct Node {
    options: NodeOptions,
    child: Child,
    log: PathBuf,
    command: Box<dyn Fn(&NodeOptions) -> Command + Send>,
    pub bind_addr: String,
    pub rpc_addr: String,
    /// Changes with each start.
    pub http_addr: String,
}

impl Node {
    /// Starts a node and waits until it serves requests.
    #[track_caller]
    pub fn start(site: &Site, options: NodeOptions) -> Node {
        let tls = (!site.is_insecure()).then(|| site.node_files(&options.name));
        let (policy, data) = (site.policy(), site.path().join(&options.name));
        let cluster = site.cluster().to_owned();
        let log = site.path().join(format!("{}.log", options.name));
        let plain = site.command(&[]);
        let removed: Vec<_> = plain.get_envs().filter(|(_, v)| v.is_none()).map(|(k, _)| k.to_owned()).collect();
        let command = move |options: &NodeOptions| {
            let program = options.program.as_deref().map_or(OsStr::new(SERIATIM), Path::as_os_str);
            let mut words = options.wrapper.iter().map(OsStr::new).chain([program]);
            let mut command = Command::new(words.next().unwrap_or(program));
            command.args(words);
            for name in &removed {
                command.env_remove(name);
            }
            command.args(serve_args(options, &cluster, tls.as_ref(), &policy, &data));
            // Not as a flag, which earlier versions do not know.
            command.env("SERIATIM_HTTP_ADDR", "127.0.0.1:0").envs(options.env.iter().cloned());
            command
        };
        let started = spawn(&mut command(&options), &log, options.joins_later);
        let Started { child, bind_addr, rpc_addr, http_addr } =
            started.unwrap_or_else(|status| panic!("{}", not_ready(status, &log)));
        Node { options, child, log, command: Box::new(command), bind_addr, rpc_addr, http_addr }
    }

    /// Sends SIGKILL, and waits until the process has exited.
    pub fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("waits");
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a signal");
    }

    /// Sends SIGHUP: the node reloads certificates and the policy.
    pub fn reload(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("a signal");
    }

    /// Waits until the process has exited.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the node exits", || self.child.try_wait().expect("waits").ok_or("still running".into()))
    }

    /// Returns the status if the process has exited.
    pub fn has_exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waits")
    }

    /// Sends SIGTERM, and waits until the process has exited.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Starts the node again at the same addresses, and waits until it serves requests.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.try_start_again().unwrap_or_else(|status| panic!("{}", not_ready(status, &self.log)));
    }

    /// Like [`Node::start_again`], but returns the exit status if the process exited before it was ready.
    #[track_caller]
    pub fn try_start_again(&mut self) -> Result<(), ExitStatus> {
        self.options.bind_addr = Some(self.bind_addr.clone());
        self.options.rpc_addr = Some(self.rpc_addr.clone());
        let started = spawn(&mut (self.command)(&self.options), &self.log, false)?;
        (self.child, self.bind_addr, self.rpc_addr) = (started.child, started.bind_addr, started.rpc_addr);
        self.http_addr = started.http_addr;
        Ok(())
    }

    /// Starts the node again at the same addresses, and does not wait until it serves requests.
    #[track_caller]
    pub fn start_later(&mut self) {
        self.options.bind_addr = Some(self.bind_addr.clone());
        self.options.rpc_addr = Some(self.rpc_addr.clone());
        let started = spawn(&mut (self.command)(&self.options), &self.log, true);
        let started = started.unwrap_or_else(|status| panic!("{}", not_ready(status, &self.log)));
        (self.child, self.http_addr) = (started.child, started.http_addr);
    }

    /// Sets the additional arguments for the next start; returns the previous ones.
    pub fn set_more(&mut self, more: Vec<String>) -> Vec<String> {
        std::mem::replace(&mut self.options.more, more)
    }

    /// Sets the environment variables for the next start.
    pub fn set_env(&mut self, env: Vec<(String, String)>) {
        self.options.env = env;
    }

    /// The name of the node, which is also that of its data directory.
    /// Makes the next start use another program; `None`: this version.
    pub fn set_program(&mut self, program: Option<PathBuf>) {
        self.options.program = program;
    }

    pub fn name(&self) -> &str {
        &self.options.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything that the node has logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the last lines of {}'s log", self.options.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn serve_args(options: &NodeOptions, cluster: &str, tls: Option<&TlsFiles>, policy: &Path, data: &Path) -> Vec<String> {
    let free = || "127.0.0.1:0".to_owned();
    let file = |file: &Path| file.display().to_string();
    let mut pairs = vec![
        ("node-name", options.name.clone()),
        ("cluster-name", cluster.to_owned()),
        ("data-dir", data.display().to_string()),
        ("bind-addr", options.bind_addr.clone().unwrap_or_else(free)),
        ("rpc-addr", options.rpc_addr.clone().unwrap_or_else(free)),
        ("acl-policy-file", file(policy)),
    ];
    match tls {
        None => pairs.push(("insecure", "true".to_owned())),
        Some(tls) => pairs.extend([
            ("client-ca-file", file(&tls.client_ca_file)),
            ("peer-ca-file", file(&tls.peer_ca_file)),
            ("server-cert-file", file(&tls.server_cert_file)),
            ("server-key-file", file(&tls.server_key_file)),
            ("peer-cert-file", file(&tls.peer_cert_file)),
            ("peer-key-file", file(&tls.peer_key_file)),
        ]),
    }
    let mut args = vec!["serve".to_owned()];
    let given = |name: &str| options.more.iter().any(|more| more.starts_with(&format!("--{name}")));
    if options.only_more {
        pairs.clear();
    }
    for (name, value) in pairs.into_iter().filter(|(name, _)| !given(name)) {
        args.push(format!("--{name}={value}"));
    }
    args.extend(options.join.iter().map(|addr| format!("--join={addr}")));
    args.extend(options.bootstrap.then(|| "--bootstrap".to_owned()));
    args.extend(options.more.iter().cloned());
    args
}

/// A process that listens.
struct Started {
    child: Child,
    bind_addr: String,
    rpc_addr: String,
    http_addr: String,
}

/// Starts the process and waits for its `ready` line, or until it listens.
#[track_caller]
fn spawn(command: &mut Command, log: &Path, joins_later: bool) -> Result<Started, ExitStatus> {
    let stderr = File::options().create(true).append(true).open(log).expect("a log file");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("the program starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let (sender, receiver) = bounded(1);
    // This thread ends at the latest when the process does.
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = if joins_later {
        eventually("it listens", || {
            let text = fs::read_to_string(log).map_err(|e| e.to_string())?;
            let line = text.lines().rev().find(|line| line.contains("listening bind_addr="));
            line.map(str::to_owned).ok_or(text)
        })
    } else {
        receiver.recv_timeout(TIMEOUT).unwrap_or_default()
    };
    let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    let (Some(bind_addr), Some(rpc_addr)) = (field("bind_addr="), field("rpc_addr=")) else {
        let _ = child.kill();
        return Err(child.wait().expect("waits"));
    };
    Ok(Started { child, bind_addr, rpc_addr, http_addr: field("http_addr=").unwrap_or_default() })
}

fn not_ready(status: ExitStatus, log: &Path) -> String {
    format!("not ready: {status}, {}", fs::read_to_string(log).unwrap_or_default())
}

/// A cluster of nodes, each a process.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub site: Site,
}

impl Cluster {
    /// Starts `n1` with `--bootstrap` and the others with its address, and waits until all are voters.
    #[track_caller]
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, &[])
    }

    /// Like [`Cluster::start`], with more arguments of `serve` for each node.
    #[track_caller]
    pub fn start_with(nodes: usize, more: &[&str]) -> Cluster {
        Cluster::start_at(Site::new(), nodes, more, |_| Vec::new())
    }

    /// Like [`Cluster::start_with`], in an existing site, with environment variables per node.
    #[track_caller]
    pub fn start_at(site: Site, nodes: usize, more: &[&str], env: impl Fn(&str) -> Vec<(String, String)>) -> Cluster {
        let more: Vec<String> = more.iter().map(|m| (*m).to_owned()).collect();
        let options = |number: usize| {
            let name = format!("n{number}");
            NodeOptions { env: env(&name), name, more: more.clone(), ..NodeOptions::default() }
        };
        let first = Node::start(&site, NodeOptions { bootstrap: true, ..options(1) });
        let join = vec![first.bind_addr.clone()];
        let mut all = vec![first];
        for number in 2..=nodes {
            all.push(Node::start(&site, NodeOptions { join: join.clone(), ..options(number) }));
        }
        let cluster = Cluster { nodes: all, site };
        wait_for_voters(&cluster.clients());
        cluster
    }

    /// Returns a client of one node, as `root`. Nodes count from 0.
    pub fn client(&self, node: usize) -> Client {
        self.site.client(&self.nodes[node].rpc_addr, "root")
    }

    /// Returns a client of each node, as `root`.
    pub fn clients(&self) -> Vec<Client> {
        (0..self.nodes.len()).map(|node| self.client(node)).collect()
    }

    /// Returns the node that leads the log `default`.
    #[track_caller]
    pub fn leader(&self) -> usize {
        self.leader_of("default")
    }

    /// Returns the position of the node that leads a log.
    pub fn leader_of(&self, log: &str) -> usize {
        let client = self.client(0);
        eventually("a leader", || {
            let servers = client.get_servers(log).map_err(|e| e.to_string())?.servers;
            let leader = servers.iter().find(|s| s.is_leader).ok_or("none")?;
            self.nodes.iter().position(|n| n.options.name == leader.id).ok_or("an unknown one".into())
        })
    }
}
