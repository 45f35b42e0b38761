//! `seriatim certs`: creates a development CA and certificates.

use std::path::PathBuf;

use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use super::subcommand::{Process, Subcommand};
use crate::config::host_name;
use crate::security::certs::{self, CertsError, Plan};
use crate::security::modes::{Content, FileModes};

/// Make a development CA and certificates for servers, peers and clients
///
/// The result is for development and tests: the CA's private key is stored next to the certificates. An existing CA is never
/// overwritten. With --use-ca, the existing CA issues only what --hosts (servers), --peers and --clients name. Use it for more
/// nodes, more clients, or a renewal. A running node loads changed certificates by itself, but not under systemd: there,
/// restart it.
///
/// A peer certificate names its node, and no other node can use it: copy DIR/NODE/peer.pem to that node only.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory for the files; private keys are only readable by their owner
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Host names and addresses of all nodes, separated by commas; the server certificate contains all of them
    /// [default: localhost,127.0.0.1,::1; with --use-ca none, and the server certificate is not replaced]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub hosts: Option<Vec<String>>,
    /// Names of nodes (node-name), separated by commas; each gets a certificate. Use NEW+OLD while a node is renamed
    /// [default: the name of this host; with --use-ca none]
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub peers: Option<Vec<String>>,
    /// Common names of client certificates, separated by commas [default: root; with --use-ca none]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub clients: Option<Vec<String>>,
    /// Cluster whose peers may use the peer certificates
    #[arg(long, value_name = "NAME", default_value = "seriatim")]
    pub cluster_name: String,
    /// Issue from the CA in DIR instead of creating one
    #[arg(long)]
    pub use_ca: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Subcommand for Args {
    const NAME: &'static str = "certs";
    const EXAMPLES: &'static [&'static str] = &[
        "seriatim certs --out certs --hosts 10.0.0.1,10.0.0.2,10.0.0.3 --peers n1,n2,n3 --clients root",
        "seriatim certs --out certs --use-ca --clients alice",
    ];

    fn run(&self, _: &Process) -> Result<(), Failure> {
        run(self)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let make = if args.use_ca { certs::renew } else { certs::make };
    let given = |given: &Option<Vec<String>>, default: &dyn Fn() -> Vec<String>| match given {
        Some(given) => given.clone(),
        None if args.use_ca => Vec::new(),
        None => default(),
    };
    let plan = Plan {
        cluster_name: args.cluster_name.clone(),
        hosts: given(&args.hosts, &|| ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()),
        peers: given(&args.peers, &|| vec![host_name()]),
        clients: given(&args.clients, &|| vec!["root".to_owned()]),
    };
    let files = make(&args.out, &plan).map_err(|error| {
        let next = match &error {
            CertsError::CaExists(_) => "issue from it with --use-ca, or choose another directory",
            CertsError::BadPlan(_) => "`seriatim certs --help` explains every option",
            CertsError::File { .. } | CertsError::OpenSsl(_) => "",
        };
        Failure::new(Exit::Failed, error.to_string(), next)
    })?;
    // The CA's key is not among `files` with --use-ca, but its mode is checked too.
    let key = |file: &PathBuf| file.to_string_lossy().ends_with("-key.pem");
    let content = |file: PathBuf| (file.clone(), if key(&file) { Content::Secret } else { Content::Trusted });
    let ca_key = args.out.join("ca-key.pem");
    let checked = files.iter().cloned().chain([ca_key]).map(content).collect();
    FileModes::new(checked).new_warnings().iter().for_each(|warning| output::tell(&format!("seriatim: {warning}")));
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    args.output.confirm(|| names.iter().map(|name| format!("{name}\n")).collect(), || json!({ "files": names }));
    Ok(())
}
