//! The node as a background process: started without a terminal, stopped by its process id.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, bounded};
use rustix::process::{Pid, Signal, kill_process};
use toml::Value;

use super::place::{Made, NAME, NODE, Place, failed, refuse_used};
use crate::cli::exit::{Exit, Failure};
use crate::config::TlsFiles;
use crate::thread::{self, fatal_channel};

/// A node that founds a cluster is ready much earlier.
const READY_MAX: Duration = Duration::from_secs(30);
/// A node that is told to stop ends within ten seconds and `hang_max`.
const STOP_MAX: Duration = Duration::from_secs(45);
const STOP_CHECK: Duration = Duration::from_millis(20);
/// How much of the node's log a failure shows.
const LOG_LINES: usize = 5;

/// The policy of the package: `root` may do everything.
const POLICY: &str = include_str!("../../../acl/policy.csv");

/// Writes the configuration, starts the node, notes its process id, and waits until it is ready.
///
/// # Errors
/// If the node ends, or is not ready in time. It does not run then.
pub fn start(place: &Place, made: &mut Made) -> Result<(), Failure> {
    place.write(&place.policy(), POLICY)?;
    place.write(&place.config(), &config(place, made))?;
    let log = place.log();
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
    let opened = opened.map_err(|error| failed(&log, &error))?;
    let exe = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Failed, format!("can't find this program: {error}"), ""))?;
    let mut command = Command::new(exe);
    // Only for this start: with the option in the file, a node whose data was removed would found a second cluster.
    command.args(["serve", "--bootstrap", "--config"]).arg(place.config());
    // Options of this shell must not change what the file says.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SERIATIM_")) {
        command.env_remove(name);
    }
    // In a process group of its own, so that Ctrl-C in this terminal does not reach it. The end of the terminal is a
    // SIGHUP at most, at which a node reads its certificates again.
    command.current_dir("/").process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(opened);
    let mut node =
        command.spawn().map_err(|error| Failure::new(Exit::Failed, format!("can't start the node: {error}"), ""))?;
    made.pid = Some(node.id());
    // Before it is ready, so that --undo finds it after Ctrl-C.
    let ended = match place.store(made).and_then(|()| ready(&mut node)) {
        Ok(Ready::Serves) => return Ok(()),
        Ok(Ready::Ended) => node.wait().map_or_else(|error| error.to_string(), |status| format!("it ended: {status}")),
        Ok(Ready::Late) => format!("it was not ready within {} s", READY_MAX.as_secs()),
        Err(failure) => failure.message,
    };
    let _ = node.kill();
    let _ = node.wait();
    Err(Failure::new(Exit::Failed, format!("the node does not start: {ended}. Its log:\n{}", last_lines(&log)), ""))
}

enum Ready {
    Serves,
    Ended,
    Late,
}

/// Waits for the line that a node prints when it accepts requests.
fn ready(node: &mut Child) -> Result<Ready, Failure> {
    let no_thread = |error| Failure::new(Exit::Failed, format!("can't wait for the node: {error}"), "");
    let Some(stdout) = node.stdout.take() else { return Ok(Ready::Ended) };
    let (sender, received) = bounded(1);
    let (fatal, _) = fatal_channel();
    let reader = thread::spawn("ready", &fatal, move || -> Result<(), String> {
        let mut line = String::new();
        // The end of the file without a line is the end of the process.
        let read = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(read.is_ok() && line.starts_with("ready "));
        Ok(())
    });
    // Not joined: it ends with the line, or with the node.
    std::mem::forget(reader.map_err(no_thread)?);
    Ok(match received.recv_timeout(READY_MAX) {
        Ok(true) => Ready::Serves,
        Ok(false) => Ready::Ended,
        Err(_) => Ready::Late,
    })
}

fn config(place: &Place, made: &Made) -> String {
    let quoted = |path: &Path| Value::String(path.display().to_string()).to_string();
    let tls = TlsFiles::in_dir(&place.certs(), NODE);
    format!(
        "# The node of `seriatim quickstart`. `seriatim config show FILE` prints every option.\n\
         config_version = 1\n\n\
         [node]\nname = \"{NODE}\"\ndata_dir = {data}\n\n\
         [cluster]\nname = \"{NAME}\"\n\n\
         [listen.client]\naddr = \"{rpc_addr}\"\nca_file = {ca}\ncert_file = {server}\nkey_file = {server_key}\n\n\
         [listen.peer]\naddr = \"{bind_addr}\"\ncert_file = {peer}\nkey_file = {peer_key}\n\n\
         [listen.http]\naddr = \"{http_addr}\"\n\n\
         [access]\npolicy_file = {policy}\n",
        data = quoted(&place.data()),
        rpc_addr = made.rpc_addr,
        bind_addr = made.bind_addr,
        http_addr = made.http_addr,
        ca = quoted(&tls.client_ca_file),
        server = quoted(&tls.server_cert_file),
        server_key = quoted(&tls.server_key_file),
        peer = quoted(&tls.peer_cert_file),
        peer_key = quoted(&tls.peer_key_file),
        policy = quoted(&place.policy()),
    )
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Stops the node, and waits until it has ended.
///
/// # Errors
/// If it does not end, or another process uses its data.
pub fn stop(place: &Place, pid: Option<u32>) -> Result<(), Failure> {
    if let Some(pid) = pid.filter(|pid| is_node(place, *pid)).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        kill_process(pid, Signal::TERM).map_err(|error| {
            Failure::new(Exit::Failed, format!("can't stop process {}: {error}", pid.as_raw_nonzero()), "")
        })?;
        let begin = Instant::now();
        while is_node(place, pid.as_raw_nonzero().get().unsigned_abs()) && begin.elapsed() < STOP_MAX {
            let _ = after(STOP_CHECK).recv();
        }
    }
    refuse_used(&place.data())
}

/// Returns true if the process is the node of this directory. After its end, another process may have its number.
fn is_node(place: &Place, pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let config = place.config();
    command.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
}
