//! How a command that talks to a node finds it, and as whom: the options that they share.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::after;

use super::exit::{Exit, Failure};
use crate::client::{Client, ClientError, ClientFiles, ClientOptions, Status};
use crate::config::host_port;
use crate::grpc::redirect_log;

/// Of several addresses the next one has its turn after so long, until one answers.
const TURN: Duration = Duration::from_millis(300);

/// Of several, a node that is connected and does not answer has the next one asked after so long.
pub(super) const ANSWER_TURN: Duration = Duration::from_secs(3);

/// A call gets this long even when the time is over, to say why there is no answer.
const ANSWER_MIN: Duration = Duration::from_millis(500);

/// Once a node has said that it can't serve, the others get this long to answer.
const SETTLE: Duration = Duration::from_secs(1);

/// The default port of rpc_addr.
const PORT: u16 = 8400;

fn parse_addr(text: &str) -> Result<String, String> {
    host_port(text.trim(), PORT)
}

/// Where the nodes are, and the certificate to show them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Client address (rpc_addr) of a node, like node-1.example:8400; the port may be left out. Of several addresses, separated
    /// by commas, the first that answers is used: the next one is asked after 0.3 s without a connection, or 3 s without an
    /// answer
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

/// Why no node answered a question.
pub enum Unanswered {
    /// None was asked: there are no certificates, say.
    NotDialled(Failure),
    /// What each said, or why it did not.
    Refused(Vec<(Client, ClientError)>),
}

impl Unanswered {
    /// What nodes said, and at which address.
    pub fn statuses(&self) -> impl Iterator<Item = (&str, &Status)> {
        let refused = match self {
            Unanswered::NotDialled(_) => &[][..],
            Unanswered::Refused(refused) => refused,
        };
        refused.iter().filter_map(|(client, error)| Some((client.addr(), error.status()?)))
    }
}

impl From<Unanswered> for Failure {
    /// With the reasons of all.
    fn from(unanswered: Unanswered) -> Failure {
        let refused = match unanswered {
            Unanswered::NotDialled(failure) => return failure,
            Unanswered::Refused(refused) => refused,
        };
        let failures = refused.iter().map(|(client, error)| Failure::of_call(client.addr(), error));
        let all =
            failures.reduce(|all, next| Failure { message: format!("{}\n{}", all.message, next.message), ..next });
        all.unwrap_or_else(no_address)
    }
}

fn no_address() -> Failure {
    Failure::new(Exit::BadConfig, "no address", "give one with --addr HOST:PORT")
}

/// The node does nothing that is asked of it for now, and another one may.
fn cannot_serve(error: &ClientError) -> bool {
    error.status().is_some_and(|status| matches!(status.reason.as_str(), "JOINING" | "STOPPING" | "NO_LEADER"))
}

impl ConnectArgs {
    /// How long to wait.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// Connects to the first node that answers, in the order of the addresses. One that can't serve yet, or stops, is taken if no
    /// other answers.
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
        // Every node answers that, whatever the client may do.
        match self.rounds(timeout, last, &|client| client.get_servers("")) {
            Ok((client, _)) => Ok(client),
            Err(Unanswered::Refused(refused)) if refused.iter().any(|(_, error)| error.is_answer()) => {
                // Its answer to the caller's request says more.
                let answered = refused.into_iter().find(|(_, error)| error.is_answer());
                answered.map(|(client, _)| client).ok_or_else(no_address)
            }
            Err(unanswered) => Err(unanswered.into()),
        }
    }

    /// Asks the nodes in the order of their addresses, and returns the first answer. If a node does not answer or can't serve
    /// (JOINING, STOPPING, NO_LEADER), it asks the next one. So several nodes may execute the request: it must be idempotent.
    ///
    /// # Errors
    /// Why none of them answered it.
    pub fn ask<T>(&self, question: impl Fn(&Client) -> Result<T, ClientError>) -> Result<(Client, T), Unanswered> {
        self.rounds(self.timeout(), None, &question)
    }

    fn rounds<T>(
        &self,
        timeout: Duration,
        last: Option<&str>,
        question: &dyn Fn(&Client) -> Result<T, ClientError>,
    ) -> Result<(Client, T), Unanswered> {
        let (others, at_last): (Vec<&String>, Vec<&String>) = self.addr.iter().partition(|a| Some(a.as_str()) != last);
        let addrs = others.into_iter().chain(at_last);
        let clients =
            addrs.map(|addr| self.dial(addr)).collect::<Result<Vec<_>, _>>().map_err(Unanswered::NotDialled)?;
        let begin = Instant::now();
        let left = || timeout.saturating_sub(begin.elapsed());
        let (turn, answer_turn) = if clients.len() == 1 { (timeout, timeout) } else { (TURN, ANSWER_TURN) };
        let mut errors: Vec<Option<ClientError>> = clients.iter().map(|_| None).collect();
        let answered = |error: &Option<ClientError>| error.as_ref().is_some_and(ClientError::is_answer);
        // Each goes on connecting while the others have their turn.
        loop {
            let round = Instant::now();
            for (client, error) in clients.iter().zip(&mut errors) {
                if !client.wait_connected(turn.min(left())) {
                    continue;
                }
                match question(&client.within(answer_turn.min(left()).max(ANSWER_MIN))) {
                    Ok(answer) => return Ok((client.clone(), answer)),
                    Err(failed) if failed.is_answer() && !cannot_serve(&failed) => {
                        return Err(Unanswered::Refused(vec![(client.clone(), failed)]));
                    }
                    Err(failed) => *error = Some(failed),
                }
            }
            let settled = errors.iter().all(answered) || (errors.iter().any(answered) && begin.elapsed() > SETTLE);
            if settled || left().is_zero() {
                break;
            }
            // Who breaks each connection must not be dialled without a pause.
            let _ = after(TURN.saturating_sub(round.elapsed()).min(left())).recv();
        }
        let mut refused = Vec::new();
        for (client, error) in clients.into_iter().zip(errors) {
            // A call that can't wait says why there is no connection.
            let error = match error.map_or_else(|| question(&client.within(ANSWER_MIN)), Err) {
                Ok(answer) => return Ok((client, answer)),
                Err(error) => error,
            };
            refused.push((client, error));
        }
        Err(Unanswered::Refused(refused))
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
