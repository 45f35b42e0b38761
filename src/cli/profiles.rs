//! The file with the profiles of the command line: named sets of connection options.
//!
//! ```toml
//! current = "prod"             # used if neither --profile nor SERIATIM_PROFILE names one
//!
//! [profiles.prod]
//! addr = ["10.0.0.1:8400", "10.0.0.2:8400"]
//! certs = "/home/alice/certs"
//! user = "alice"
//! ```
//!
//! The file is `seriatim/profiles.toml` in `$XDG_CONFIG_HOME`, by default `~/.config`. It contains paths of keys, but
//! no secrets. It is replaced atomically, and only its owner may read it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use toml::{Table, Value};

use super::exit::{Exit, Failure};
use super::units;
use crate::config::{CLIENT_PORT, host_port};

/// The keys of a profile, in the order of the file.
pub const KEYS: [&str; 9] = ["addr", "certs", "user", "ca_file", "cert_file", "key_file", "insecure", "timeout", "log"];

/// One profile. A key that is `None` has the default of its option.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile(BTreeMap<&'static str, Value>);

/// The contents of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiles {
    /// The profile that is used if none is named.
    pub current: Option<String>,
    /// All profiles by name.
    pub all: BTreeMap<String, Profile>,
}

impl Profile {
    /// Sets a key from text, as an option of the command line has it.
    ///
    /// # Errors
    /// The key, and why the value is refused.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        let value = match key {
            "addr" => Value::Array(text.split(',').map(|addr| Value::String(addr.trim().to_owned())).collect()),
            "insecure" => Value::Boolean(text.parse().map_err(|_| format!("{key}: expected true or false"))?),
            _ => Value::String(text.to_owned()),
        };
        self.insert(key, value)
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) {
        self.0.remove(key);
    }

    fn insert(&mut self, key: &str, value: Value) -> Result<(), String> {
        let known = KEYS.iter().find(|known| **known == key);
        let known = known.ok_or_else(|| format!("{key}: unknown key; the keys are {}", KEYS.join(", ")))?;
        let value = checked(known, value).map_err(|why| format!("{key}: {why}"))?;
        self.0.insert(known, value);
        Ok(())
    }

    /// Returns the text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Returns the path in a key.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// Returns the addresses.
    pub fn addrs(&self) -> Vec<String> {
        let addrs = self.0.get("addr").and_then(Value::as_array).into_iter().flatten();
        addrs.filter_map(|addr| Some(addr.as_str()?.to_owned())).collect()
    }

    /// Returns whether the profile connects without TLS.
    pub fn insecure(&self) -> bool {
        self.0.get("insecure").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Formats the keys as in the file.
    pub fn to_toml(&self) -> String {
        self.lines().collect()
    }

    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        KEYS.iter().filter_map(|key| Some(format!("{key} = {}\n", self.0.get(key)?)))
    }

    /// Returns the keys as a JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let keys = self.0.iter().map(|(key, value)| ((*key).to_owned(), json!(value)));
        serde_json::Value::Object(keys.collect())
    }
}

/// Checks the value of a key, and brings it into the form of the file.
fn checked(key: &str, value: Value) -> Result<Value, String> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let expected = |what: &str| format!("expected {what}, found {value}");
    match key {
        "addr" => {
            let one = |value: &Value| host_port(&text(value).ok_or("an address is not a text")?, CLIENT_PORT);
            let addrs = match &value {
                Value::Array(addrs) if !addrs.is_empty() => addrs.iter().map(one).collect::<Result<Vec<_>, _>>()?,
                Value::String(addrs) => {
                    addrs.split(',').map(|addr| host_port(addr.trim(), CLIENT_PORT)).collect::<Result<_, _>>()?
                }
                _ => return Err(expected("a list of addresses")),
            };
            Ok(Value::Array(addrs.into_iter().map(Value::String).collect()))
        }
        "insecure" => value.as_bool().map(Value::Boolean).ok_or_else(|| expected("true or false")),
        "certs" | "ca_file" | "cert_file" | "key_file" => {
            let path = text(&value).ok_or_else(|| expected("a path"))?;
            match Path::new(&path).is_absolute() {
                true => Ok(Value::String(path)),
                false => Err(format!("{path:?} is not an absolute path, and a profile is used in any directory")),
            }
        }
        "timeout" => {
            let given = value.as_integer().map(|seconds| seconds.to_string()).or_else(|| text(&value));
            let given = given.ok_or_else(|| expected("a duration like \"10s\""))?;
            units::timeout(&given).map(|_| Value::String(given))
        }
        "log" => units::log_name(&text(&value).ok_or_else(|| expected("the name of a log"))?).map(Value::String),
        _ => text(&value).map(Value::String).ok_or_else(|| expected("a text")),
    }
}

/// Returns the path of the file; `None` if neither XDG_CONFIG_HOME nor HOME is set.
pub fn file() -> Option<PathBuf> {
    let dir = |name: &str| std::env::var_os(name).filter(|dir| Path::new(dir).is_absolute()).map(PathBuf::from);
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")))?;
    Some(config.join("seriatim").join("profiles.toml"))
}

fn invalid(file: &Path, what: &str) -> Failure {
    Failure::new(Exit::BadConfig, format!("{}: {what}", file.display()), "correct the file, or remove it")
}

impl Profiles {
    /// Reads the file. A file that is missing has none.
    ///
    /// # Errors
    /// The file, the profile and the key that can't be read.
    pub fn load(file: &Path) -> Result<Profiles, Failure> {
        match fs::read_to_string(file) {
            Ok(text) => Profiles::parse(&text).map_err(|what| invalid(file, &what)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Profiles::default()),
            Err(error) => Err(invalid(file, &error.to_string())),
        }
    }

    fn parse(text: &str) -> Result<Profiles, String> {
        let mut table: Table =
            text.parse().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())?;
        let current = match table.remove("current") {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(other) => return Err(format!("current: expected the name of a profile, found {other}")),
        };
        let mut profiles = Profiles { current, ..Profiles::default() };
        match table.remove("profiles") {
            None => {}
            Some(Value::Table(all)) => {
                for (name, keys) in all {
                    let Value::Table(keys) = keys else {
                        return Err(format!("profiles.{name}: expected a table"));
                    };
                    let profile = profiles.all.entry(name.clone()).or_default();
                    for (key, value) in keys {
                        profile.insert(&key, value).map_err(|why| format!("profile {name:?}: {why}"))?;
                    }
                }
            }
            Some(other) => return Err(format!("profiles: expected tables [profiles.NAME], found {other}")),
        }
        if let Some(key) = table.keys().next() {
            return Err(format!("{key}: unknown key; expected current, and tables [profiles.NAME]"));
        }
        match &profiles.current {
            Some(current) if !profiles.all.contains_key(current) => {
                Err(format!("current: there is no profile {current:?}"))
            }
            Some(_) | None => Ok(profiles),
        }
    }

    /// Returns a profile: the named one, or the current one, if any.
    ///
    /// # Errors
    /// If the file has none of that name.
    pub fn choose(&self, named: Option<&str>, file: &Path) -> Result<Option<(&str, &Profile)>, Failure> {
        let Some(name) = named.or(self.current.as_deref()) else { return Ok(None) };
        if let Some((name, profile)) = self.all.get_key_value(name) {
            return Ok(Some((name, profile)));
        }
        let known: Vec<&str> = self.all.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        Err(Failure::new(
            Exit::NotFound,
            format!("{}: there is no profile {name:?}; {known}", file.display()),
            "make it with `seriatim profile set`, or name another one with --profile or SERIATIM_PROFILE",
        ))
    }

    /// Replaces the file atomically. Comments in it are lost.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn store(&self, file: &Path) -> Result<(), Failure> {
        self.replace(file).map_err(|error| {
            Failure::new(Exit::Failed, format!("{}: {error}; nothing was changed", file.display()), "")
        })
    }

    fn replace(&self, file: &Path) -> io::Result<()> {
        let dir = file.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut name = OsString::from(".profiles.toml.");
        name.push(std::process::id().to_string());
        let temporary = dir.join(name);
        // Left by a process of the same id that was killed.
        let _ = fs::remove_file(&temporary);
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut new| {
                new.write_all(self.to_toml().as_bytes())?;
                new.sync_all()?;
                fs::rename(&temporary, file)?;
                File::open(dir)?.sync_all()
            });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn to_toml(&self) -> String {
        let quoted = |name: &str| Value::String(name.to_owned()).to_string();
        let current = self.current.as_ref().map(|name| format!("current = {}\n", quoted(name)));
        let profiles =
            self.all.iter().map(|(name, profile)| format!("\n[profiles.{}]\n{}", quoted(name), profile.to_toml()));
        current.into_iter().chain(profiles).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn stores_a_file_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a/seriatim/profiles.toml");
        assert_eq!(Profiles::load(&file), Ok(Profiles::default()));
        let mut profiles = Profiles { current: Some("a \"b\".c".to_owned()), ..Profiles::default() };
        let profile = profiles.all.entry("a \"b\".c".to_owned()).or_default();
        for (key, text) in [("addr", "n1, n2:7"), ("certs", "/c"), ("user", "al"), ("timeout", "3s"), ("log", "x")] {
            profile.set(key, text).expect(key);
        }
        profile.set("insecure", "false").expect("a switch");
        assert_eq!((profile.addrs(), profile.insecure()), (vec!["n1:8400".to_owned(), "n2:7".to_owned()], false));
        profiles.store(&file).expect("stored");
        profiles.store(&file).expect("replaced");
        assert_eq!(Profiles::load(&file).expect("valid"), profiles);
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        let names = fs::read_dir(file.parent().expect("a directory")).expect("listed").count();
        assert_eq!(names, 1, "no temporary file is left");
    }

    #[test]
    fn an_error_names_the_profile_and_the_key() {
        for (text, what) in [
            ("[profiles.p]\nadr = \"n1\"\n", "profile \"p\": adr: unknown key; the keys are addr, certs"),
            ("[profiles.p]\naddr = 7\n", "profile \"p\": addr: expected a list of addresses, found 7"),
            ("[profiles.p]\naddr = [\"a b\"]\n", "profile \"p\": addr: "),
            ("[profiles.p]\ncerts = \"certs\"\n", "profile \"p\": certs: \"certs\" is not an absolute path"),
            ("[profiles.p]\ninsecure = \"yes\"\n", "profile \"p\": insecure: expected true or false"),
            ("[profiles.p]\ntimeout = \"0s\"\n", "profile \"p\": timeout: "),
            ("[profiles.p]\nlog = \"a b\"\n", "profile \"p\": log: "),
            ("profiles = 3\n", "profiles: expected tables"),
            ("[profile.p]\n", "profile: unknown key; expected current"),
            ("current = \"p\"\n", "current: there is no profile \"p\""),
            ("current = \n", "current"),
        ] {
            let error = Profiles::parse(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
        }
        let none = Profiles::default().choose(Some("p"), Path::new("/f")).expect_err("missing");
        assert_eq!((none.exit, none.message.as_str()), (Exit::NotFound, "/f: there is no profile \"p\"; it has none"));
    }
}
