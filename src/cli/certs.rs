//! `seriatim certs`: a development CA and certificates.

use std::path::PathBuf;

use super::exit::{Exit, Failure};
use crate::security::certs::{self, CertsError};

/// Make a development CA and certificates of servers, peers and clients.
///
/// For development and tests: the CA's private key lies beside the certificates. A CA that is there is never overwritten;
/// with --use-ca it issues the certificates anew, and those of more clients.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where they go; private keys are readable by you alone
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Names and addresses of all nodes, separated by commas: all of them stand in the server certificate
    #[arg(long, value_name = "HOST", value_delimiter = ',', default_value = "localhost,127.0.0.1,::1")]
    pub hosts: Vec<String>,
    /// Common names of client certificates, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "root")]
    pub clients: Vec<String>,
    /// The cluster whose peers may use the peer certificate
    #[arg(long, value_name = "NAME", default_value = "seriatim")]
    pub cluster_name: String,
    /// Issue from the CA that is in DIR instead of making one
    #[arg(long)]
    pub use_ca: bool,
}

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let make = if args.use_ca { certs::renew } else { certs::make };
    let files = make(&args.out, &args.hosts, &args.clients, &args.cluster_name).map_err(|error| {
        let next = match &error {
            CertsError::CaExists(_) => "issue from it with --use-ca, or choose another directory",
            CertsError::BadPlan(_) => "`seriatim certs --help` explains every option",
            CertsError::File { .. } | CertsError::OpenSsl(_) => "",
        };
        Failure::new(Exit::Failed, error.to_string(), next)
    })?;
    for file in files {
        println!("{}", file.display());
    }
    Ok(())
}
