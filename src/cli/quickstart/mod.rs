//! `seriatim quickstart`: one node, its certificates, a profile and a first record, and the way to undo all of this.
//!
//! ```text
//!   place.rs       the directory: the file that says what was made, certificates, removal
//!   background.rs  the node as a process of the user, in a directory of its own
//!   service.rs     the node as the service of the package, for root on a host with systemd
//!   undo.rs        stops the node, and removes everything
//! ```
//!
//! An installation that exists is never touched: everything that would be written is checked first. If a step fails, the
//! steps before are undone.

mod background;
mod place;
mod service;
mod undo;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::dialer::Dialer;
use super::exit::{Exit, Failure};
use super::output::OutputArgs;
use super::profile;
use super::profiles::{Profile, Profiles};
use super::subcommand::{Process, Subcommand};
use crate::client::ClientFiles;
use crate::pb::v1::Record;
use crate::types::LogName;
use place::{Made, NAME, Place, USER};

/// How long to wait for an answer of the node.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const FIRST_RECORD: &str = "hello from seriatim quickstart";

/// Start one node with certificates, and append a first record
///
/// Everything is in one directory: certificates, configuration, records and the node's log. The node listens on
/// 127.0.0.1 only, and runs in the background until it is stopped or the host restarts. A profile is made, so that other
/// commands need no options.
///
/// If root runs it on a host with systemd and the package of seriatim, the node is the service `seriatim`, which starts
/// again with the host. With --dir, it is a background process there, too.
///
/// An installation that exists is not touched. The output lists what was made; --undo removes all of it, also the records.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory for everything, which must not exist or be empty [default: seriatim/quickstart in XDG_DATA_HOME, by
    /// default ~/.local/share; for the service: /etc/seriatim/quickstart]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port for clients; peers use the next one, and monitoring the one after that. 0 chooses free ports
    #[arg(long, value_name = "PORT", default_value_t = crate::config::CLIENT_PORT, value_parser = clap::value_parser!(u16).range(..=65533))]
    port: u16,
    /// Stop the node, and remove everything that quickstart has made, also the records
    #[arg(long, conflicts_with = "port")]
    undo: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = NAME;
    const EXAMPLES: &'static [&'static str] =
        &["seriatim quickstart", "seriatim quickstart --dir demo --port 9400", "seriatim quickstart --undo"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        match (self.undo, &self.dir) {
            (true, dir) => undo::run(&undo::place(dir.as_deref())?, self.output),
            (false, None) if service::is_offered() => start(self, &Place::of_service(), true),
            (false, dir) => start(self, &Place::of_user(dir.as_deref())?, false),
        }
    }
}

/// What was done, for the report.
struct Report<'a> {
    place: &'a Place,
    made: &'a Made,
    /// True if other commands use the profile without naming it.
    is_current: bool,
    profiles: &'a Path,
    offset: u64,
    took: Duration,
}

fn start(args: &Args, place: &Place, as_service: bool) -> Result<(), Failure> {
    let begin = Instant::now();
    let profiles = profile::file()?;
    refuse_existing(place, &profiles, as_service)?;
    let [rpc_addr, bind_addr, http_addr] = free_addrs(args.port)?;
    let mut made = Made { rpc_addr, bind_addr, http_addr, profile: NAME.to_owned(), is_service: as_service, pid: None };
    let done = place.create(&made).and_then(|()| {
        place.make_certificates()?;
        if as_service {
            service::start(place, &made)?
        } else {
            background::start(place, &mut made)?
        }
        let offset = first_record(place, &made)?;
        let is_current = store_profile(place, &made, &profiles)?;
        Ok((offset, is_current))
    });
    let (offset, is_current) = done.map_err(|failure| undo::after_failure(place, &made, failure))?;
    let report = Report { place, made: &made, is_current, profiles: &profiles, offset, took: begin.elapsed() };
    args.output.confirm(|| report.text(), || report.json());
    Ok(())
}

/// Fails if anything that would be written exists already.
fn refuse_existing(place: &Place, profiles: &Path, as_service: bool) -> Result<(), Failure> {
    let refused =
        |what: String, next: &str| Err(Failure::new(Exit::Precondition, format!("{what}; nothing was changed"), next));
    if let Some(made) = place.made()? {
        let what = format!("{} exists already, from an earlier quickstart", place.dir().display());
        let start = if made.is_service { "systemctl start seriatim".to_owned() } else { serve_command(place) };
        let undo = undo_command(place);
        let next = format!(
            "`{start}` starts its node again, if it is stopped; `{undo}` stops the node and removes everything, also the \
             records"
        );
        return refused(what, &next);
    }
    let dir = place.dir();
    if !place.is_blank()? {
        return refused(format!("{} is not empty", dir.display()), "choose another directory with --dir");
    }
    if as_service && let Some(found) = service::installation()? {
        let next = "`seriatim quickstart --dir DIR` starts another node in a directory of its own";
        return refused(format!("this host has a node already: {found}"), next);
    }
    if Profiles::load(profiles)?.all.contains_key(NAME) {
        let what = format!("{}: a profile {NAME:?} exists already", profiles.display());
        let next = "if it is that of another quickstart, `seriatim quickstart --undo` removes both (with --dir, if it was \
                    given); otherwise remove its table from the file (`seriatim profile show quickstart` prints it)";
        return refused(what, next);
    }
    Ok(())
}

/// Returns addresses on which nothing listens: for clients, for peers, and for monitoring.
fn free_addrs(port: u16) -> Result<[SocketAddr; 3], Failure> {
    let listen = |port: u16| {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(addr).map_err(|error| {
            let next = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("choose another port with --port, or 0 for a free one; `ss -ltnp 'sport = {port}'` names the process")
                }
                _ => "choose another port with --port, or 0 for a free one".to_owned(),
            };
            let why = match error.kind() {
                io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
                _ => error.to_string(),
            };
            Failure::new(Exit::Failed, format!("{addr} can't be used: {why}; nothing was changed"), next)
        })
    };
    let next = |by: u16| if port == 0 { 0 } else { port.saturating_add(by) };
    let listeners = [listen(next(0))?, listen(next(1))?, listen(next(2))?];
    let addr = |listener: &TcpListener| {
        listener.local_addr().map_err(|error| Failure::new(Exit::Failed, format!("no address: {error}"), ""))
    };
    let [clients, peers, monitoring] = &listeners;
    Ok([addr(clients)?, addr(peers)?, addr(monitoring)?])
}

/// Appends the first record, and reads it back. Returns its offset.
fn first_record(place: &Place, made: &Made) -> Result<u64, Failure> {
    let addr = made.rpc_addr.to_string();
    let files = ClientFiles::in_dir(place.certs(), USER);
    let dialer = Dialer { addrs: vec![addr.clone()], files: Some(files), timeout: ANSWER_MAX, log: None };
    let client = dialer.connect()?;
    let record = Record { value: FIRST_RECORD.into(), ..Record::default() };
    let failed = |error| Failure::of_call(&addr, &error);
    let offset = client.produce(LogName::DEFAULT, vec![record]).map_err(failed)?.offset;
    let read = client.consume_at(LogName::DEFAULT, offset).map_err(failed)?;
    if read.value != FIRST_RECORD.as_bytes() {
        let message = format!("record {offset} was read back as {:?}", String::from_utf8_lossy(&read.value));
        return Err(Failure::new(Exit::BadData, message, "please report this"));
    }
    Ok(offset)
}

/// Stores the profile. Returns true if commands use it without naming it.
fn store_profile(place: &Place, made: &Made, file: &Path) -> Result<bool, Failure> {
    let mut profiles = Profiles::load(file)?;
    let mut profile = Profile::default();
    let certs = place.certs().display().to_string();
    for (key, value) in [("addr", made.rpc_addr.to_string()), ("certs", certs), ("user", USER.to_owned())] {
        profile.set(key, &value).map_err(|why| Failure::new(Exit::Failed, why, ""))?;
    }
    profiles.all.insert(made.profile.clone(), profile);
    let is_current = profiles.current.get_or_insert_with(|| made.profile.clone()) == &made.profile;
    profiles.store(file)?;
    Ok(is_current)
}

/// The command that starts the background process again.
fn serve_command(place: &Place) -> String {
    format!("seriatim serve --config {}", shell_word(&place.config()))
}

/// The command that removes everything.
fn undo_command(place: &Place) -> String {
    match place.is_default() {
        true => "seriatim quickstart --undo".to_owned(),
        false => format!("seriatim quickstart --undo --dir {}", shell_word(place.dir())),
    }
}

/// Returns a path as one word of a shell: quoted, if it contains a blank, for example.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

impl Report<'_> {
    fn text(&self) -> String {
        let Report { place, made, offset, .. } = self;
        let undo = undo_command(place);
        let profile = if self.is_current { String::new() } else { format!(" --profile {}", made.profile) };
        let current = if self.is_current { ", which is the current one" } else { "" };
        let (node, stop, again) = match made.pid {
            Some(pid) => (
                format!("process {pid}, in the background"),
                format!("kill {pid}"),
                format!("{} &", serve_command(place)),
            ),
            None => (
                "service seriatim".to_owned(),
                "systemctl stop seriatim".to_owned(),
                "systemctl start seriatim".to_owned(),
            ),
        };
        format!(
            "A node runs: {node}. Clients connect to {rpc_addr}, peers to {bind_addr}.\n\
             It has appended a first record at offset {offset} of log {log}, which was read back. ({took:.1} s)\n\n\
             Look at it in a browser on this host: http://{http_addr}/\n\n\
             Made:\n  \
               {made_files}\n  \
               profile {name} in {profiles}{current}\n\n\
             Next:\n  \
               echo hello | seriatim produce{profile}\n  \
               seriatim consume{profile} --from earliest\n  \
               seriatim status{profile}\n\n\
             Stop the node, and start it again:\n  \
               {stop}\n  \
               {again}\n\n\
             Stop it and remove all of this, also the records:\n  \
               {undo}\n",
            rpc_addr = made.rpc_addr,
            bind_addr = made.bind_addr,
            http_addr = made.http_addr,
            log = LogName::DEFAULT,
            took = self.took.as_secs_f64(),
            made_files = self.files().join("\n  "),
            name = made.profile,
            profiles = self.profiles.display(),
        )
    }

    fn files(&self) -> Vec<String> {
        let dir = self.place.dir().display();
        match self.made.is_service {
            false => vec![format!("{dir}: certificates, configuration, records (data) and the node's log (node.log)")],
            true => service::files(self.place),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "dir": self.place.dir(),
            "rpc_addr": self.made.rpc_addr,
            "bind_addr": self.made.bind_addr,
            "http_addr": self.made.http_addr,
            "pid": self.made.pid,
            "service": self.made.is_service,
            "profile": self.made.profile,
            "profile_is_current": self.is_current,
            "offset": self.offset,
        })
    }
}
