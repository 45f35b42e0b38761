//! `seriatim certs`: a development CA and certificates.

use std::path::PathBuf;

use super::exit::{Exit, Failure};
use crate::security::certs::{self, CertsError, Plan};

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
    /// Issue from the CA that is there: new certificates for more hosts or clients, written over the old ones
    #[arg(long)]
    pub use_ca: bool,
}

/// Runs the command.
///
/// # Errors
/// What [`Failure`] says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let plan = Plan {
        out: args.out.clone(),
        hosts: args.hosts.clone(),
        clients: args.clients.clone(),
        cluster_name: args.cluster_name.clone(),
        use_ca: args.use_ca,
    };
    for file in certs::make(&plan).map_err(|e| failure(&e))? {
        println!("{}", file.display());
    }
    Ok(())
}

fn failure(error: &CertsError) -> Failure {
    let (exit, next) = match error {
        CertsError::CaExists(_) => (Exit::Failed, "issue from it with --use-ca, or choose another folder with --out"),
        CertsError::BadPlan(_) => (Exit::BadConfig, ""),
        CertsError::File { .. } | CertsError::OpenSsl(_) => (Exit::Failed, ""),
    };
    Failure::new(exit, error.to_string(), next)
}
