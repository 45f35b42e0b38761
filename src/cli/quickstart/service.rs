//! The node as the service of the package: certificates where the unit reads them, and a drop-in with the options. The
//! files of the package are not changed, so that upgrades do not ask about them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::{Made, NAME, NODE, Place, failed, ignore_missing, refuse_used};
use crate::cli::exit::{Exit, Failure};
use crate::config::TlsFiles;

const UNIT: &str = "seriatim.service";
const UNIT_DIRS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const DROP_IN_DIR: &str = "/etc/systemd/system/seriatim.service.d";
const DROP_IN: &str = "/etc/systemd/system/seriatim.service.d/quickstart.conf";
/// Where the unit reads certificates and keys, and has its data.
const TLS_DIR: &str = "/etc/seriatim/tls";
const DATA_DIR: &str = "/var/lib/seriatim";

/// Returns true if root runs this on a host with systemd and the unit.
pub fn is_offered() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    is_root && has_systemd && UNIT_DIRS.iter().any(|dir| Path::new(dir).join(UNIT).exists())
}

/// Returns what a node on this host has already, if anything.
///
/// # Errors
/// If a directory can't be read.
pub fn installation() -> Result<Option<String>, Failure> {
    let is_filled = |dir: &str| match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) => ignore_missing(error).map(|()| false).map_err(|error| failed(Path::new(dir), &error)),
    };
    for dir in [TLS_DIR, DATA_DIR] {
        if is_filled(dir)? {
            return Ok(Some(format!("{dir} is not empty")));
        }
    }
    if Path::new(DROP_IN).exists() {
        return Ok(Some(format!("{DROP_IN} exists")));
    }
    let is_active = Command::new("systemctl").args(["--quiet", "is-active", UNIT]).status();
    Ok(is_active.is_ok_and(|status| status.success()).then(|| "the service runs".to_owned()))
}

/// The files of the node, from where they are to where the unit reads them.
fn tls_files(place: &Place) -> Vec<(PathBuf, PathBuf)> {
    let files = TlsFiles::in_dir(&place.certs(), NODE);
    let files = [
        files.client_ca_file,
        files.server_cert_file,
        files.server_key_file,
        files.peer_cert_file,
        files.peer_key_file,
    ];
    let to = |from: &PathBuf| Path::new(TLS_DIR).join(from.file_name().unwrap_or_default());
    files.into_iter().map(|from| (from.clone(), to(&from))).collect()
}

/// Installs the certificates and the options, and starts the service.
///
/// # Errors
/// If a step fails.
pub fn start(place: &Place, made: &Made) -> Result<(), Failure> {
    make_dir(TLS_DIR, 0o700)?;
    for (from, to) in tls_files(place) {
        // With its mode: keys are readable by their owner only.
        fs::copy(&from, &to).map_err(|error| failed(&to, &error))?;
    }
    make_dir(DROP_IN_DIR, 0o755)?;
    // The founder is named for this start only: with the line, a service whose data was removed would found a second
    // cluster.
    place.write(Path::new(DROP_IN), &format!("{}Environment=SERIATIM_BOOTSTRAP=true\n", drop_in(made)))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", UNIT])?;
    place.write(Path::new(DROP_IN), &drop_in(made))?;
    systemctl(&["daemon-reload"])
}

fn drop_in(made: &Made) -> String {
    format!(
        "# Written by `seriatim quickstart`, and removed by `seriatim quickstart --undo`. These options take\n\
         # precedence over /etc/seriatim/seriatim.toml.\n\
         [Service]\n\
         Environment=SERIATIM_NODE_NAME={NODE} SERIATIM_CLUSTER_NAME={NAME} SERIATIM_JOIN=\n\
         Environment=SERIATIM_RPC_ADDR={} SERIATIM_BIND_ADDR={} SERIATIM_HTTP_ADDR={}\n",
        made.rpc_addr, made.bind_addr, made.http_addr
    )
}

/// Returns what was written, for the report.
pub fn files(place: &Place) -> Vec<String> {
    vec![
        format!("{}: the authority, and certificates for the node and for root", place.dir().display()),
        format!("{TLS_DIR}: the certificates of the node"),
        format!("{DROP_IN}: its options"),
        format!("{DATA_DIR}: the records"),
    ]
}

/// Stops the service, and removes its certificates, options and records, if it still is the one of the quickstart. Returns
/// what was removed.
///
/// # Errors
/// If a step fails, the data is that of another cluster, or another process uses it.
pub fn stop(place: &Place) -> Result<Vec<String>, Failure> {
    let mut removed = Vec::new();
    let installed = Installed { data: DATA_DIR.into(), drop_in: DROP_IN.into(), tls: tls_files(place) };
    installed.check(place)?;
    if installed.is_ours() {
        systemctl(&["disable", "--now", UNIT])?;
        refuse_used(&installed.data)?;
        installed.remove_data()?;
        removed.push(format!("{DATA_DIR} (the records)"));
    }
    removed.extend(installed.remove_files()?.iter().map(|file| file.display().to_string()));
    // It may have other drop-ins.
    let _ = fs::remove_dir(DROP_IN_DIR);
    systemctl(&["daemon-reload"])?;
    Ok(removed)
}

/// What a quickstart adds to the installation of the package.
struct Installed {
    data: PathBuf,
    drop_in: PathBuf,
    /// The certificates and keys, from where they are to where the unit reads them.
    tls: Vec<(PathBuf, PathBuf)>,
}

impl Installed {
    /// Fails if the data is not that of a quickstart.
    fn check(&self, place: &Place) -> Result<(), Failure> {
        let node_file = self.data.join("node.toml");
        let text = match fs::read_to_string(&node_file) {
            Ok(text) => text,
            Err(error) => return ignore_missing(error).map_err(|error| failed(&node_file, &error)),
        };
        let whose = match cluster_name(&text) {
            Ok(None) => return Ok(()),
            Ok(Some(name)) if name == NAME => return Ok(()),
            Ok(Some(name)) => format!("is that of a node of cluster {name:?}, not of a quickstart"),
            Err(why) => format!("may be that of another node: its node.toml can't be read ({why})"),
        };
        let message = format!("{} {whose}; nothing was changed", self.data.display());
        let next = format!("remove {} by hand if it is not needed", place.dir().display());
        Err(Failure::new(Exit::Precondition, message, next))
    }

    /// Returns whether the service has the options of the quickstart. They are written before its first start, and removed
    /// after its data. Without them, an operator has set the service up in another way.
    fn is_ours(&self) -> bool {
        self.drop_in.exists()
    }

    fn remove_data(&self) -> Result<(), Failure> {
        let removed = fs::remove_dir_all(&self.data).or_else(|error| match error.kind() {
            // A disk of its own is mounted there: it is empty now.
            io::ErrorKind::ResourceBusy => Ok(()),
            _ => ignore_missing(error),
        });
        removed.map_err(|error| failed(&self.data, &error))
    }

    /// Removes certificates and keys, but not those with which an operator has replaced them, and the options. Returns the
    /// files.
    fn remove_files(&self) -> Result<Vec<&PathBuf>, Failure> {
        // After a full disk, a copy may be incomplete.
        let is_ours = |(from, to): &&(PathBuf, PathBuf)| matches!((fs::read(from), fs::read(to)), (Ok(from), Ok(to)) if from.starts_with(&to));
        let ours = self.tls.iter().filter(is_ours).map(|(_, to)| to);
        let files: Vec<&PathBuf> = ours.chain([&self.drop_in]).filter(|file| file.exists()).collect();
        for file in &files {
            fs::remove_file(file).or_else(ignore_missing).map_err(|error| failed(file, &error))?;
        }
        Ok(files)
    }
}

/// Returns the cluster of a data directory; `None` if it is of no cluster yet.
///
/// # Errors
/// Why it can't be read.
fn cluster_name(node_file: &str) -> Result<Option<String>, String> {
    let table: toml::Table = node_file.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    match table.get("cluster_name") {
        None => Ok(None),
        Some(name) => {
            let name = name.as_str().ok_or("cluster_name is not a text")?;
            Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
        }
    }
}

fn make_dir(dir: &str, mode: u32) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.map_err(|error| failed(Path::new(dir), &error))
}

fn systemctl(args: &[&str]) -> Result<(), Failure> {
    let command = format!("systemctl {}", args.join(" "));
    let output = Command::new("systemctl").args(args).output();
    let output = output.map_err(|error| Failure::new(Exit::Failed, format!("{command}: {error}"), ""))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let log = Command::new("journalctl").args(["--unit", UNIT, "--lines=5", "--output=cat", "--no-pager"]).output();
    let log = log.map(|log| String::from_utf8_lossy(&log.stdout).trim().replace('\n', "\n  ")).unwrap_or_default();
    Err(Failure::new(Exit::Failed, format!("{command}: {why}\n  {log}"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_cluster_of_a_data_directory() {
        let node_file = include_str!("../../../tests/golden/node-v2.toml");
        let name = cluster_name;
        assert_eq!(name(node_file), Ok(Some("demo".to_owned())));
        assert_eq!(name(&node_file.replace("\"demo\"", "\"\"")), Ok(None));
        assert_eq!(name("node_id = \"1\"\n"), Ok(None));
        assert!(name("node_id = ").is_err() && name("cluster_name = 1\n").is_err());
    }

    /// Once, --undo stopped a service that an operator had set up since with other options, and removed its keys; and it
    /// removed a data directory whose node.toml is damaged, whatever the cluster.
    #[test]
    fn what_an_operator_has_replaced_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::of_user(Some(&dir.path().join("quickstart"))).expect("a place");
        let [data, own, unit] = ["data", "own", "unit"].map(|name| dir.path().join(name));
        for made in [&data, &own, &unit] {
            fs::create_dir(made).expect("made");
        }
        for (file, text) in [(own.join("ca.pem"), "ours"), (own.join("key.pem"), "ours"), (unit.join("ca.pem"), "ours")]
        {
            fs::write(file, text).expect("written");
        }
        fs::write(unit.join("key.pem"), "of the operator").expect("written");
        let tls = ["ca.pem", "key.pem"].map(|name| (own.join(name), unit.join(name))).to_vec();
        let installed = Installed { data: data.clone(), drop_in: dir.path().join("quickstart.conf"), tls };
        let node_file = data.join("node.toml");
        for (text, is_checked) in [
            ("cluster_name = \"quickstart\"\n", true),
            ("node_id = \"1\"\n", true),
            ("cluster_name = \"prod\"\n", false),
            ("cluster_name = \"prod\"\nnode_id = ", false),
            ("", true),
        ] {
            fs::write(&node_file, text).expect("written");
            assert_eq!(installed.check(&place).is_ok(), is_checked, "{text}");
        }
        assert!(!installed.is_ours(), "the service has other options");
        fs::write(&installed.drop_in, "options").expect("written");
        assert!(installed.is_ours());
        let removed = installed.remove_files().expect("removed");
        assert_eq!(removed, [&unit.join("ca.pem"), &installed.drop_in]);
        assert!(!unit.join("ca.pem").exists() && unit.join("key.pem").exists());
        assert!(!installed.is_ours() && data.exists());
        installed.remove_data().expect("removed");
        installed.remove_data().expect("removed already");
        installed.check(&place).expect("no data");
    }
}
