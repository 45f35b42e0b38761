//! The connection options of subcommands. The value of an option is the first of these that is set: its flag, its
//! environment variable, the key of the profile, its default.

use std::path::PathBuf;
use std::time::Duration;

use super::dialer::Dialer;
use super::environment::{self, INSECURE_OF_SERVE};
use super::exit::{Exit, Failure};
use super::profiles::{self, Profile, Profiles};
use super::units;
use crate::client::ClientFiles;
use crate::config::{CLIENT_PORT, host_port};

const DEFAULT_ADDR: &str = "127.0.0.1:8400";
const DEFAULT_USER: &str = "root";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

fn parse_addr(text: &str) -> Result<String, String> {
    host_port(text.trim(), CLIENT_PORT)
}

/// The options with the addresses of nodes and the client's certificate.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Client address (rpc_addr) of a node, like node-1.example:8400; the port is optional. Of several addresses,
    /// separated by commas, the first that answers is used: the next one is tried after 0.3 s without a connection,
    /// or 3 s without an answer [default: 127.0.0.1:8400]
    #[arg(long, env = "SERIATIM_CLIENT_ADDR", value_name = "HOST[:PORT]", value_delimiter = ',', value_parser = parse_addr)]
    pub addr: Vec<String>,
    /// Directory written by `seriatim certs`; the default of --ca-file, --cert-file and --key-file
    #[arg(long, env = "SERIATIM_CLIENT_CERTS", value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// Name of the client certificate in that directory [default: root]
    #[arg(long, env = "SERIATIM_CLIENT_USER", value_name = "NAME")]
    pub user: Option<String>,
    // SERIATIM_CLIENT_CA_FILE is an option of `serve`: the CA of its clients.
    /// CA that must have issued the node's certificate (PEM)
    #[arg(long, env = "SERIATIM_CLIENT_SERVER_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM); its common name identifies the client
    #[arg(long, env = "SERIATIM_CLIENT_CERT_FILE", value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// Private key of the client certificate (PEM)
    #[arg(long, env = "SERIATIM_CLIENT_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Connect without TLS, to a node that runs with --insecure; the client is `anonymous` in its policy
    #[arg(
        long,
        env = "SERIATIM_CLIENT_INSECURE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = units::switch
    )]
    pub insecure: Option<bool>,
    /// Time to wait for a connection, and for an answer: seconds, or with a unit (500ms, 2m) [default: 10s]
    #[arg(long, env = "SERIATIM_CLIENT_TIMEOUT", value_name = "SECONDS", value_parser = units::timeout)]
    pub timeout: Option<Duration>,
    /// Profile whose options apply where no flag or environment variable is set (see `seriatim profile set`)
    #[arg(long, env = "SERIATIM_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,
}

impl ConnectArgs {
    /// Combines the options with the profile and the defaults.
    ///
    /// # Errors
    /// If the profile can't be read, or the certificates are incomplete.
    pub fn resolve(&self) -> Result<Dialer, Failure> {
        let profile = self.profile()?;
        let files = self.files(&profile)?;
        let of_profile = profile.addrs();
        let addrs = match (self.addr.is_empty(), of_profile.is_empty()) {
            (false, _) => self.addr.clone(),
            (true, false) => of_profile,
            (true, true) => vec![DEFAULT_ADDR.to_owned()],
        };
        // The profile was checked when it was read.
        let timeout = self.timeout.or_else(|| units::timeout(profile.text("timeout")?).ok());
        let log = profile.text("log").map(str::to_owned);
        Ok(Dialer { addrs, files, timeout: timeout.unwrap_or(DEFAULT_TIMEOUT), log })
    }

    fn profile(&self) -> Result<Profile, Failure> {
        let Some(file) = profiles::file() else {
            return match &self.profile {
                None => Ok(Profile::default()),
                Some(name) => Err(Failure::new(
                    Exit::NotFound,
                    format!(
                        "there is no profile {name:?}: neither XDG_CONFIG_HOME nor HOME is set to an absolute path"
                    ),
                    "set one of them",
                )),
            };
        };
        let profiles = Profiles::load(&file)?;
        Ok(profiles.choose(self.profile.as_deref(), &file)?.map(|(_, profile)| profile.clone()).unwrap_or_default())
    }

    /// Returns the certificate files; `None` without TLS.
    fn files(&self, profile: &Profile) -> Result<Option<ClientFiles>, Failure> {
        let given = [&self.certs, &self.ca_file, &self.cert_file, &self.key_file].iter().any(|file| file.is_some());
        if self.insecure == Some(true) && given {
            return Err(Failure::new(
                Exit::BadConfig,
                "plain text (--insecure, SERIATIM_CLIENT_INSECURE) does not go with certificates (--certs, SERIATIM_CLIENT_CERTS, \
                 --ca-file, --cert-file, --key-file)",
                "remove one of them",
            ));
        }
        if self.insecure.unwrap_or(profile.insecure() && !given) {
            return Ok(None);
        }
        // Files that only the profile names must not replace those in a directory that a flag names.
        let of_profile = |key| if self.certs.is_some() { None } else { profile.path(key) };
        let certs = self.certs.clone().or_else(|| of_profile("certs"));
        let user = self.user.as_deref().or(profile.text("user")).unwrap_or(DEFAULT_USER);
        let file = |given: &Option<PathBuf>, key, name: String| {
            given.clone().or_else(|| of_profile(key)).or_else(|| certs.as_ref().map(|dir| dir.join(name)))
        };
        let ca_file = file(&self.ca_file, "ca_file", "ca.pem".to_owned());
        let cert_file = file(&self.cert_file, "cert_file", format!("client-{user}.pem"));
        let key_file = file(&self.key_file, "key_file", format!("client-{user}-key.pem"));
        match (ca_file, cert_file, key_file) {
            (Some(ca_file), Some(cert_file), Some(key_file)) => Ok(Some(ClientFiles { ca_file, cert_file, key_file })),
            // Only here, and not whenever the variable is set: a shell may export it for `serve`.
            _ if environment::value(INSECURE_OF_SERVE).is_some() => Err(Failure::new(
                Exit::BadConfig,
                format!(
                    "no certificate to connect with; {INSECURE_OF_SERVE} is an option of `seriatim serve`, and not of clients"
                ),
                "to connect without TLS, give --insecure or set SERIATIM_CLIENT_INSECURE=true",
            )),
            _ => Err(Failure::new(
                Exit::BadConfig,
                "no certificate to connect with",
                "give --certs DIR (made by `seriatim certs`), or --ca-file, --cert-file and --key-file; or --insecure for a node that \
                 runs without TLS; or a profile that has them (`seriatim profile set`)",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(keys: &[(&str, &str)]) -> Profile {
        let mut profile = Profile::default();
        keys.iter().for_each(|(key, text)| profile.set(key, text).expect(key));
        profile
    }

    fn files(args: &ConnectArgs, profile: &Profile) -> Option<Vec<String>> {
        let files = args.files(profile).expect("complete")?;
        Some([files.ca_file, files.cert_file, files.key_file].map(|file| file.display().to_string()).to_vec())
    }

    /// A flag takes precedence over the profile as a whole: the certificates of a directory that a flag names are not
    /// mixed with files that the profile names.
    #[test]
    fn flags_take_precedence_over_the_profile() {
        let certs = |dir: &str| ConnectArgs { certs: Some(dir.into()), ..ConnectArgs::default() };
        let none = ConnectArgs::default();
        let plain = profile(&[("insecure", "true")]);
        assert_eq!(files(&none, &plain), None);
        assert_eq!(files(&certs("/c"), &plain).expect("files")[0], "/c/ca.pem");
        let of_profile = profile(&[("certs", "/p"), ("ca_file", "/p.pem"), ("user", "alice")]);
        assert_eq!(
            files(&none, &of_profile).expect("files"),
            ["/p.pem", "/p/client-alice.pem", "/p/client-alice-key.pem"]
        );
        assert_eq!(
            files(&certs("/c"), &of_profile).expect("files"),
            ["/c/ca.pem", "/c/client-alice.pem", "/c/client-alice-key.pem"]
        );
        let ca = ConnectArgs { ca_file: Some("/ca".into()), user: Some("bob".into()), ..ConnectArgs::default() };
        assert_eq!(files(&ca, &of_profile).expect("files"), ["/ca", "/p/client-bob.pem", "/p/client-bob-key.pem"]);
        let insecure = |insecure| ConnectArgs { insecure: Some(insecure), ..ConnectArgs::default() };
        assert_eq!(files(&insecure(true), &of_profile), None);
        assert_eq!(insecure(false).files(&plain).expect_err("no certificate").exit, Exit::BadConfig);
        let both = ConnectArgs { insecure: Some(true), ..certs("/c") };
        assert!(
            both.files(&none_given()).expect_err("a contradiction").message.contains("does not go with certificates")
        );
    }

    fn none_given() -> Profile {
        Profile::default()
    }
}
