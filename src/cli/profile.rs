//! `seriatim profile list`, `set`, `use` and `show`: named sets of connection options.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use super::profiles::{self, KEYS, Profile, Profiles};
use super::subcommand::{Process, Subcommand};

/// Print the names of all profiles, and which one is in use
///
/// The one in use is marked with `*`: that of SERIATIM_PROFILE, or that of `seriatim profile use`. The profiles are in
/// seriatim/profiles.toml in XDG_CONFIG_HOME, by default ~/.config.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Profile that is marked as in use
    #[arg(long, env = "SERIATIM_PROFILE", value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Create a profile, or change some of its options
///
/// Options that are not given stay as they are. An option of a profile applies to every command that connects, unless
/// a flag or an environment variable sets it. The first profile becomes the current one. Comments in the file are not
/// kept.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    /// Name of the profile
    #[arg(id = "profile", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    /// Client addresses of nodes, separated by commas
    #[arg(long, value_name = "HOST[:PORT]")]
    addr: Option<String>,
    /// Directory written by `seriatim certs`
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Name of the client certificate in that directory
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// CA that must have issued the node's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// Private key of the client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Connect without TLS
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    insecure: Option<bool>,
    /// Time to wait for a connection, and for an answer, like 10s
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// Name of the log that commands use
    #[arg(long, value_name = "NAME")]
    log: Option<String>,
    /// Options to remove from the profile, separated by commas
    #[arg(long, value_name = "OPTION", value_delimiter = ',', value_parser = KEYS)]
    unset: Vec<String>,
}

/// Use a profile in all commands that name none
///
/// `--profile` and SERIATIM_PROFILE name another one. With --none, no profile is used.
#[derive(Clone, Debug, clap::Args)]
pub struct UseArgs {
    /// Name of the profile
    #[arg(id = "profile", value_name = "NAME", required_unless_present = "none", conflicts_with = "none")]
    name: Option<String>,
    /// Use no profile
    #[arg(long)]
    none: bool,
}

/// Print the options of a profile
///
/// Without a name, it prints those of the profile in use: that of SERIATIM_PROFILE, or that of `seriatim profile use`.
/// Flags and environment variables take precedence over them.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// Name of the profile
    #[arg(id = "profile", value_name = "NAME", env = "SERIATIM_PROFILE")]
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Returns the path of the file with the profiles.
///
/// # Errors
/// If neither XDG_CONFIG_HOME nor HOME is set.
pub(super) fn file() -> Result<PathBuf, Failure> {
    profiles::file().ok_or_else(|| {
        let message = "there is no place for profiles: neither XDG_CONFIG_HOME nor HOME is set to an absolute path";
        Failure::new(Exit::BadConfig, message, "set one of them")
    })
}

/// Opens the file, changes it, and stores it.
fn change(change: impl FnOnce(&mut Profiles, &Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let file = file()?;
    let mut profiles = Profiles::load(&file)?;
    change(&mut profiles, &file)?;
    profiles.store(&file)
}

impl Subcommand for ListArgs {
    const NAME: &'static str = "list";
    const EXAMPLES: &'static [&'static str] = &["seriatim profile list", "seriatim profile list -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let profiles = Profiles::load(&file()?)?;
        let used = self.profile.as_deref().or(profiles.current.as_deref());
        let rows = || profiles.all.iter().map(|(name, profile)| (Some(name.as_str()) == used, name, profile));
        let line = |(used, name, profile): (bool, &String, &Profile)| {
            format!("{} {name:16}  {}\n", if used { "*" } else { " " }, profile.addrs().join(","))
        };
        self.output.say(
            || rows().map(line).collect(),
            || {
                let all = rows().map(|(used, name, profile)| {
                    let mut object = profile.to_json();
                    (object["name"], object["in_use"]) = (json!(name), json!(used));
                    object
                });
                json!({ "profiles": all.collect::<Vec<_>>() })
            },
        )
    }
}

impl SetArgs {
    /// Returns the keys that are given, with their values.
    fn given(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        // Profiles are used in any directory.
        let absolute = |path: &Option<PathBuf>| {
            let path = path.as_ref().map(std::path::absolute).transpose();
            path.map(|path| path.map(|path| path.display().to_string()))
                .map_err(|error| Failure::new(Exit::Failed, format!("the current directory: {error}"), ""))
        };
        let values = [
            ("addr", self.addr.clone()),
            ("certs", absolute(&self.certs)?),
            ("user", self.user.clone()),
            ("ca_file", absolute(&self.ca_file)?),
            ("cert_file", absolute(&self.cert_file)?),
            ("key_file", absolute(&self.key_file)?),
            ("insecure", self.insecure.map(|insecure| insecure.to_string())),
            ("timeout", self.timeout.clone()),
            ("log", self.log.clone()),
        ];
        Ok(values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }
}

impl Subcommand for SetArgs {
    const NAME: &'static str = "set";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim profile set prod --addr 10.0.0.1,10.0.0.2,10.0.0.3 --certs certs --user alice",
        "seriatim profile set prod --log audit --unset timeout",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let given = self.given()?;
        let mut is_current = false;
        change(|profiles, _| {
            if profiles.all.is_empty() {
                profiles.current = Some(self.name.clone());
            }
            let profile = profiles.all.entry(self.name.clone()).or_default();
            self.unset.iter().for_each(|key| profile.unset(key));
            given.iter().try_for_each(|(key, text)| profile.set(key, text)).map_err(|why| {
                Failure::new(Exit::BadConfig, format!("{why}; nothing was changed"), "`seriatim profile set --help`")
            })?;
            if profile.insecure()
                && ["certs", "ca_file", "cert_file", "key_file"].iter().any(|key| profile.text(key).is_some())
            {
                let message = "a profile without TLS (insecure) has no use for certificates; nothing was changed";
                return Err(Failure::new(Exit::BadConfig, message, "remove one of them with --unset"));
            }
            is_current = profiles.current.as_ref() == Some(&self.name);
            Ok(())
        })?;
        if !is_current {
            let name = &self.name;
            output::tell(&format!("seriatim: `seriatim profile use {name}` makes {name} the profile of all commands"));
        }
        Ok(())
    }
}

impl Subcommand for UseArgs {
    const NAME: &'static str = "use";
    const EXAMPLES: &'static [&'static str] = &["seriatim profile use prod", "seriatim profile use --none"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        change(|profiles, file| {
            if let Some(name) = &self.name {
                profiles.choose(Some(name), file)?;
            }
            profiles.current.clone_from(&self.name);
            Ok(())
        })
    }
}

impl Subcommand for ShowArgs {
    const NAME: &'static str = "show";
    const EXAMPLES: &'static [&'static str] = &["seriatim profile show", "seriatim profile show prod -o json"];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        let file = file()?;
        let profiles = Profiles::load(&file)?;
        let Some((name, profile)) = profiles.choose(self.name.as_deref(), &file)? else {
            output::tell("seriatim: no profile is in use");
            return self.output.say(String::new, || json!(null));
        };
        self.output.say(
            || format!("# profile {name} in {}\n{}", file.display(), profile.to_toml()),
            || {
                let mut object = profile.to_json();
                object["name"] = json!(name);
                object
            },
        )
    }
}
