//! The directory of a quickstart, and the file in it that says what was made and where.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::cli::exit::{Exit, Failure};
use crate::security::certs::{self, Plan};

/// The name of the profile, of the cluster, and of the last part of the directory.
pub const NAME: &str = "quickstart";
/// The name of the node. That of the host may be unusable in a certificate.
pub const NODE: &str = "n1";
/// The client that the policy of the package allows everything.
pub const USER: &str = "root";

/// The directory for the service of the package.
const OF_SERVICE: &str = "/etc/seriatim/quickstart";
/// Written first, and removed last.
const MADE: &str = "quickstart.toml";
/// Everything that is ever written to the directory.
const ENTRIES: [&str; 6] = ["certs", "data", "seriatim.toml", "policy.csv", "node.log", MADE];

/// What a quickstart has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The address for clients.
    pub rpc_addr: SocketAddr,
    /// The address for peers.
    pub bind_addr: SocketAddr,
    /// The address for monitoring.
    pub http_addr: SocketAddr,
    /// The name of the profile.
    pub profile: String,
    /// True if the node is the service of the package.
    pub is_service: bool,
    /// The background process that was started, if it is none.
    pub pid: Option<u32>,
}

/// The directory of a quickstart.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
    is_default: bool,
}

impl Place {
    /// The directory for the service.
    pub fn of_service() -> Place {
        Place { dir: PathBuf::from(OF_SERVICE), is_default: true }
    }

    /// The given directory, or the default one of this user.
    ///
    /// # Errors
    /// If neither XDG_DATA_HOME nor HOME is set.
    pub fn of_user(dir: Option<&Path>) -> Result<Place, Failure> {
        let default = || {
            let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
            let data = given("XDG_DATA_HOME").or_else(|| Some(given("HOME")?.join(".local/share")))?;
            Some(data.join("seriatim").join(NAME))
        };
        let is_default = dir.is_none();
        let dir = dir.map(Path::to_owned).or_else(default).ok_or_else(|| {
            let message = "there is no place for the files: neither XDG_DATA_HOME nor HOME is set to an absolute path";
            Failure::new(Exit::BadConfig, message, "set one of them, or name a directory with --dir")
        })?;
        // The configuration, and the profile, are used in any directory.
        let dir = std::path::absolute(&dir).map_err(|error| failed(&dir, &error))?;
        if dir.to_str().is_none() {
            let message = format!("{} is not valid UTF-8, as a configuration file must be", dir.display());
            return Err(Failure::new(Exit::BadConfig, message, "choose another directory with --dir"));
        }
        Ok(Place { dir, is_default })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True if --dir need not be given to find it.
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// The directory with all certificates.
    pub fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// The data directory of the background process.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The configuration of the background process.
    pub fn config(&self) -> PathBuf {
        self.dir.join("seriatim.toml")
    }

    /// The access policy of the background process.
    pub fn policy(&self) -> PathBuf {
        self.dir.join("policy.csv")
    }

    /// What the background process logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// Returns what was made here; `None` if nothing was.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn made(&self) -> Result<Option<Made>, Failure> {
        let file = self.dir.join(MADE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(&file, &error)),
        };
        toml::from_str(&text).map(Some).map_err(|error| {
            let message = format!("{}: {}", file.display(), error.message());
            Failure::new(Exit::BadData, message, format!("stop the node, and remove {}", self.dir.display()))
        })
    }

    /// Returns true if the directory is missing or empty.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn is_blank(&self) -> Result<bool, Failure> {
        match fs::read_dir(&self.dir) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(failed(&self.dir, &error)),
        }
    }

    /// Creates the directory, and the file that says what is made.
    ///
    /// # Errors
    /// If that fails.
    pub fn create(&self, made: &Made) -> Result<(), Failure> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        created.map_err(|error| failed(&self.dir, &error))?;
        self.store(made)
    }

    /// Replaces the file that says what was made.
    ///
    /// # Errors
    /// If that fails.
    pub fn store(&self, made: &Made) -> Result<(), Failure> {
        let text = toml::to_string(made).map_err(|error| Failure::new(Exit::Failed, error.to_string(), ""))?;
        self.write(&self.dir.join(MADE), &format!("# Written by `seriatim quickstart`, for --undo.\n{text}"))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, file: &Path, text: &str) -> Result<(), Failure> {
        fs::write(file, text).map_err(|error| failed(file, &error))
    }

    /// Creates an authority, and the certificates of the node and of a client.
    ///
    /// # Errors
    /// If that fails.
    pub fn make_certificates(&self) -> Result<(), Failure> {
        let hosts = ["localhost", "127.0.0.1", "::1"];
        let plan = hosts.iter().fold(Plan::new(NAME), |plan, host| plan.host(host)).peer(NODE).client(USER);
        let made = certs::make(&self.certs(), &plan);
        made.map(drop).map_err(|error| Failure::new(Exit::Failed, error.to_string(), ""))
    }

    /// Removes everything that a quickstart writes, and the directory if nothing else is in it. Returns false if
    /// something else is.
    ///
    /// # Errors
    /// The first entry that can't be removed.
    pub fn remove(&self) -> Result<bool, Failure> {
        for entry in ENTRIES {
            let path = self.dir.join(entry);
            let removed = match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            removed.or_else(ignore_missing).map_err(|error| failed(&path, &error))?;
        }
        match fs::remove_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            removed => removed.or_else(ignore_missing).map(|()| true).map_err(|error| failed(&self.dir, &error)),
        }
    }
}

/// Fails if a node uses this data directory, for example one that was started again by hand.
///
/// # Errors
/// [`Exit::Precondition`].
pub fn refuse_used(data: &Path) -> Result<(), Failure> {
    let lock = data.join("lock");
    match File::open(&lock) {
        Ok(file) if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() => Err(Failure::new(
            Exit::Precondition,
            format!("a node still uses {}; nothing was removed", data.display()),
            format!("stop it first: `fuser {}` (package psmisc) prints its process", lock.display()),
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A failure to read or write a file.
pub fn failed(path: &Path, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            "choose a directory of yours with --dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or choose a directory on another disk with --dir"
        }
        _ => "",
    };
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()), next)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Accepts that a file is missing.
pub fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
