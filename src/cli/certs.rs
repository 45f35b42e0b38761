//! `seriatim certs`: a development CA and certificates.

use std::path::PathBuf;

use super::exit::{Exit, Failure};
use crate::security::certs;

/// Make a development CA and certificates of servers, peers and clients.
///
/// For development and tests: the CA's private key lies beside the certificates. A CA that is there is never overwritten.
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
}

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let files = certs::make(&args.out, &args.hosts, &args.clients, &args.cluster_name)
        .map_err(|e| Failure::new(Exit::Failed, format!("{e:?}"), ""))?;
    for file in files {
        println!("{}", file.display());
    }
    Ok(())
}
