//! How a command that talks to a node finds it, and as whom: the options that they share.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::exit::{Exit, Failure};
use crate::client::{Client, ClientFiles, ClientOptions};
use crate::config::host_port;
use crate::grpc::redirect_log;

/// Of several addresses the next one has its turn after so long, until one answers.
const TURN: Duration = Duration::from_millis(300);

/// The default port of rpc_addr.
const PORT: u16 = 8400;

fn parse_addr(text: &str) -> Result<String, String> {
    host_port(text.trim(), PORT)
}

/// Where the nodes are, and the certificate to show them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Client address (rpc_addr) of a node, like node-1.example:8400; the port may be left out. Of several, separated by
    /// commas, the first that answers is used
    #[arg(
        long,
        env = "SERIATIM_ADDR",
        value_name = "HOST[:PORT]",
        value_delimiter = ',',
        default_value = "127.0.0.1:8400",
        value_parser = parse_addr
    )]
    pub addr: Vec<String>,
    /// A folder made by `seriatim certs`: stands for the next three options
    #[arg(long, env = "SERIATIM_CERTS", value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// Which client certificate of that folder
    #[arg(long, env = "SERIATIM_USER", value_name = "NAME", default_value = "root")]
    pub user: String,
    /// The CA that the node's certificate must have (PEM)
    #[arg(long, env = "SERIATIM_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Your certificate (PEM): its common name is who you are
    #[arg(long, env = "SERIATIM_CERT_FILE", value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "SERIATIM_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Plain text, to a node that runs with --insecure; its policy calls you `anonymous`
    #[arg(long, env = "SERIATIM_INSECURE", value_parser = clap::builder::FalseyValueParser::new())]
    pub insecure: bool,
    /// Seconds to wait for a connection, and for an answer
    #[arg(long, env = "SERIATIM_TIMEOUT", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout: u32,
}

impl ConnectArgs {
    /// How long to wait.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// Connects to the first node that answers, in the order of the addresses.
    ///
    /// # Errors
    /// Without certificates, or when none answers: then the reasons of all.
    pub fn connect(&self) -> Result<Client, Failure> {
        self.connect_within(self.timeout(), None)
    }

    /// Connects to the first node that answers; the one at `last`, if given, is asked last.
    ///
    /// # Errors
    /// As [`ConnectArgs::connect`].
    pub fn connect_within(&self, timeout: Duration, last: Option<&str>) -> Result<Client, Failure> {
        let (others, at_last): (Vec<&String>, Vec<&String>) = self.addr.iter().partition(|a| Some(a.as_str()) != last);
        let addrs = others.into_iter().chain(at_last);
        let clients = addrs.map(|addr| self.dial(addr)).collect::<Result<Vec<_>, _>>()?;
        let until = Instant::now() + timeout;
        let turn = if clients.len() == 1 { timeout } else { TURN };
        // Each goes on connecting while the others have their turn.
        while !until.saturating_duration_since(Instant::now()).is_zero() {
            for client in &clients {
                if client.wait_connected(turn.min(until.saturating_duration_since(Instant::now()))) {
                    return Ok(client.clone());
                }
            }
        }
        let mut failed: Option<Failure> = None;
        for client in clients {
            // A call that can't wait says why there is no connection.
            let Err(error) = client.get_servers("") else { return Ok(client) };
            let failure = Failure::of_call(client.addr(), &error);
            failed = Some(match failed {
                None => failure,
                Some(others) => Failure { message: format!("{}\n{}", others.message, failure.message), ..failure },
            });
        }
        Err(failed.unwrap_or_else(|| Failure::new(Exit::BadConfig, "no address", "give one with --addr HOST:PORT")))
    }

    /// A client of the node at `addr`; its first call connects.
    ///
    /// # Errors
    /// Without certificates.
    pub fn dial(&self, addr: &str) -> Result<Client, Failure> {
        // What it says of each attempt is in the call's status too; a command has no log, so it goes nowhere.
        redirect_log();
        let options = ClientOptions { addr: addr.to_owned(), files: self.files()?, timeout: self.timeout() };
        Client::new(&options).map_err(|e| Failure::of_call(addr, &e))
    }

    fn files(&self) -> Result<Option<ClientFiles>, Failure> {
        if self.insecure {
            // Not clap's to say: to it SERIATIM_INSECURE=false is --insecure too.
            let files = [&self.certs, &self.ca_file, &self.cert_file, &self.key_file];
            if files.iter().any(|file| file.is_some()) {
                return Err(Failure::new(
                    Exit::BadConfig,
                    "plain text (--insecure, SERIATIM_INSECURE) does not go with certificates (--certs, SERIATIM_CERTS, --ca-file, --cert-file, --key-file)",
                    "leave one out",
                ));
            }
            return Ok(None);
        }
        let in_certs = |name: String| self.certs.as_ref().map(|dir| dir.join(name));
        let ca_file = self.ca_file.clone().or_else(|| in_certs("ca.pem".into()));
        let cert_file = self.cert_file.clone().or_else(|| in_certs(format!("client-{}.pem", self.user)));
        let key_file = self.key_file.clone().or_else(|| in_certs(format!("client-{}-key.pem", self.user)));
        match (ca_file, cert_file, key_file) {
            (Some(ca_file), Some(cert_file), Some(key_file)) => Ok(Some(ClientFiles { ca_file, cert_file, key_file })),
            _ => Err(Failure::new(
                Exit::BadConfig,
                "no certificate to connect with",
                "give --certs DIR (made by `seriatim certs`), or --ca-file, --cert-file and --key-file; or --insecure to a node that runs so",
            )),
        }
    }
}
