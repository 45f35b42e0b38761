//! Certificates for development and for the tests: creates an authority, and certificates that it issues.
//!
//! - Every certificate contains its usage (extended key usage), so that a client's certificate can't be used by a
//!   server. A server certificate contains the names of all hosts, a peer certificate names its node
//!   ([`super::peer_names`]) and has both usages, a client certificate has a common name.
//! - Only peer certificates contain names in the domain of peers. Name constraints can't enforce this: the same
//!   authority signs servers and peers, and constraints don't distinguish usages.
//! - Keys are P-256. Their files are created with mode 0600.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name};
use thiserror::Error;

use super::identity::Principal;
use super::peer_names::{Dialled, PeerNames, is_peers};
use crate::config::check_cluster_name;
use crate::types::NodeName;

/// The lifetime of an authority: ten years.
const CA_LIFETIME_SECONDS: i64 = 10 * 365 * DAY_SECONDS;
/// The lifetime of the certificates of [`make`]: a year.
const LIFETIME_SECONDS: i64 = 365 * DAY_SECONDS;
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Certificates are valid from two days before their creation, because clocks may differ by a day or more.
const SKEW_SECONDS: i64 = 2 * DAY_SECONDS;
/// The common name of peer certificates, for the access policy.
const PEER_NAME: &str = "peer";

/// The certificates to make.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The cluster of the peers.
    pub cluster_name: String,
    /// All names and addresses at which clients dial the nodes. The server certificate contains all of them.
    pub hosts: Vec<String>,
    /// The names of the nodes. A node that is being renamed needs both names: `NEW+OLD`.
    pub peers: Vec<String>,
    /// The common names of clients.
    pub clients: Vec<String>,
}

impl Plan {
    /// Creates a plan without certificates, for the cluster with this name.
    pub fn new(cluster_name: &str) -> Plan {
        Plan { cluster_name: cluster_name.to_owned(), ..Plan::default() }
    }

    /// Adds a name or an address of a host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Plan {
        self.hosts.push(host.to_owned());
        self
    }

    /// Adds a node.
    #[must_use]
    pub fn peer(mut self, node: &str) -> Plan {
        self.peers.push(node.to_owned());
        self
    }

    /// Adds a client.
    #[must_use]
    pub fn client(mut self, client: &str) -> Plan {
        self.clients.push(client.to_owned());
        self
    }
}

/// Creates a directory in which other users can't replace a key, whatever the umask is.
fn make_dir(dir: &Path) -> Result<(), CertsError> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|e| CertsError::file(dir, &e))
}

/// Creates an authority and the certificates of a cluster in the directory `out`, which is created if it is missing:
/// `ca.pem ca-key.pem server.pem server-key.pem`, `<node>/peer.pem <node>/peer-key.pem` for each node, and
/// `client-<name>.pem client-<name>-key.pem` for each client.
///
/// # Errors
/// [`CertsError`]. An existing authority is never overwritten.
pub fn make(out: &Path, plan: &Plan) -> Result<Vec<PathBuf>, CertsError> {
    let peers = check(plan)?;
    if plan.hosts.is_empty() {
        return Err(CertsError::BadPlan("no host is given; clients check the name that they dial".to_owned()));
    }
    let ca_files = [out.join("ca.pem"), out.join("ca-key.pem")];
    if let Some(there) = ca_files.iter().find(|f| f.exists()) {
        return Err(CertsError::CaExists(there.clone()));
    }
    make_dir(out)?;
    let ca = Ca::create("Seriatim development CA")?;
    ca.save(out)?;
    Ok([ca_files.to_vec(), issue_all(&ca, out, plan, &peers)?].concat())
}

/// Issues certificates with an existing authority, and replaces existing files. Used for renewals, and for additional
/// nodes and clients. Without a host, no server certificate is issued: otherwise the certificate of a running node
/// would be replaced by one with other names.
///
/// # Errors
/// [`CertsError`].
pub fn renew(out: &Path, plan: &Plan) -> Result<Vec<PathBuf>, CertsError> {
    let peers = check(plan)?;
    if plan.hosts.is_empty() && plan.peers.is_empty() && plan.clients.is_empty() {
        return Err(CertsError::BadPlan("no hosts, peers or clients are given: there is nothing to issue".to_owned()));
    }
    issue_all(&Ca::load(out)?, out, plan, &peers)
}

/// Checks the whole plan before anything is created. Returns the names of each peer.
fn check(plan: &Plan) -> Result<Vec<Vec<NodeName>>, CertsError> {
    check_cluster_name(&plan.cluster_name).map_err(CertsError::BadPlan)?;
    if let Some(bad) = plan.hosts.iter().find(|host| !is_host(host)) {
        return Err(CertsError::BadPlan(format!("{bad:?} is neither the name nor the address of a host")));
    }
    // With such a name, a server could answer as a peer.
    if let Some(bad) = plan.hosts.iter().find(|host| is_peers(host)) {
        return Err(CertsError::BadPlan(format!("{bad:?} can't be the name of a host: such names are for peers")));
    }
    for client in &plan.clients {
        let principal = Principal::new(client).map_err(|e| CertsError::BadPlan(e.to_string()))?;
        // If a certificate has no SAN, gRPC uses its common name as the host. With such a name, a client could answer
        // as a peer.
        if is_peers(principal.as_str()) || client.contains('/') {
            return Err(CertsError::BadPlan(format!("{client:?} can't be the name of a client")));
        }
        if client.ends_with("-key") {
            return Err(CertsError::BadPlan(format!(
                "client name {client:?} ends with -key: its certificate file could be the key file of another client"
            )));
        }
    }
    let names = PeerNames::new(&plan.cluster_name);
    let peer = |peer: &String| -> Result<Vec<NodeName>, CertsError> {
        let nodes: Result<Vec<NodeName>, _> = peer.split('+').map(NodeName::new).collect();
        let nodes = nodes.map_err(|e| CertsError::BadPlan(e.to_string()))?;
        match nodes.iter().find(|node| !is_host(&names.expected(&Dialled::Node((*node).clone())))) {
            Some(bad) => Err(CertsError::BadPlan(format!(
                "{:?} can't be used in a certificate: each part of a node's name between dots has 1 to 63 characters, capitals and _ \
                 counting twice",
                bad.as_str()
            ))),
            None => Ok(nodes),
        }
    };
    plan.peers.iter().map(peer).collect()
}

/// Returns true for an IP address or a DNS name. The first label may be `*`.
fn is_host(host: &str) -> bool {
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let name = host.strip_prefix("*.").unwrap_or(host);
    host.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

fn issue_all(ca: &Ca, out: &Path, plan: &Plan, peers: &[Vec<NodeName>]) -> Result<Vec<PathBuf>, CertsError> {
    let mut made = Vec::new();
    let mut issue = |dir: &Path, stem: &str, common_name: &str, hosts: Vec<String>, usage| {
        let request =
            Request { common_names: vec![common_name.to_owned()], hosts, usage, lifetime_seconds: LIFETIME_SECONDS };
        ca.issue_files(&request, dir, stem).map(|(cert, key)| made.extend([cert, key]))
    };
    if !plan.hosts.is_empty() {
        issue(out, "server", "server", plan.hosts.clone(), Usage::Server)?;
    }
    let names = PeerNames::new(&plan.cluster_name);
    for nodes in peers {
        let dir = out.join(nodes.first().map_or("", NodeName::as_str));
        make_dir(&dir)?;
        let mut hosts: Vec<String> = nodes.iter().map(|node| names.expected(&Dialled::Node(node.clone()))).collect();
        hosts.push(names.expected(&Dialled::Member));
        issue(&dir, "peer", PEER_NAME, hosts, Usage::Peer)?;
    }
    for client in &plan.clients {
        issue(out, &format!("client-{client}"), client, Vec::new(), Usage::Client)?;
    }
    Ok(made)
}

/// Why certificates can't be created.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the texts name every field")]
pub enum CertsError {
    /// An authority already exists.
    #[error("{file} exists already and is not overwritten", file = _0.display())]
    CaExists(PathBuf),
    /// The request is malformed.
    #[error("{0}")]
    BadPlan(String),
    /// A file or a directory can't be read or written.
    #[error("{file}: {error}", file = file.display())]
    File { file: PathBuf, error: String },
    /// OpenSSL failed.
    #[error("OpenSSL: {0}")]
    OpenSsl(String),
}

impl CertsError {
    fn file(file: &Path, error: &dyn fmt::Display) -> CertsError {
        CertsError::File { file: file.to_owned(), error: error.to_string() }
    }
}

impl From<ErrorStack> for CertsError {
    fn from(error: ErrorStack) -> CertsError {
        CertsError::OpenSsl(error.to_string())
    }
}

/// The usage of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A server, which is dialled.
    Server,
    /// A client, which dials.
    Client,
    /// A peer, which dials and is dialled.
    Peer,
}

/// A certificate to issue.
#[derive(Clone, Debug)]
pub struct Request {
    /// The common names. A usable certificate has exactly one; tests also need none or two.
    pub common_names: Vec<String>,
    /// Host names and IP addresses, the subject alternative names.
    pub hosts: Vec<String>,
    /// The extended key usage.
    pub usage: Usage,
    /// The seconds until it expires. Negative if it has expired.
    pub lifetime_seconds: i64,
}

/// A certificate and its key, in PEM form.
pub struct Issued {
    /// The certificate alone, without its chain.
    pub cert_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
}

/// A certificate authority with its key.
pub struct Ca {
    cert: X509,
    key: PKey<Private>,
}

impl Ca {
    /// Creates an authority.
    ///
    /// # Errors
    /// [`CertsError::OpenSsl`].
    pub fn create(common_name: &str) -> Result<Ca, CertsError> {
        let key = new_key()?;
        let name = subject(&[common_name.to_owned()])?;
        let mut builder = begin(&name, &key, CA_LIFETIME_SECONDS)?;
        builder.set_issuer_name(&name)?;
        builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(key_id)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Ca { cert: builder.build(), key })
    }

    /// Reads `ca.pem` and `ca-key.pem`.
    ///
    /// # Errors
    /// [`CertsError::File`].
    pub fn load(dir: &Path) -> Result<Ca, CertsError> {
        let (cert_file, key_file) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        let cert = fs::read(&cert_file).map_err(|e| CertsError::file(&cert_file, &e))?;
        let cert = X509::from_pem(&cert).map_err(|e| CertsError::file(&cert_file, &e))?;
        let key = fs::read(&key_file).map_err(|e| CertsError::file(&key_file, &e))?;
        // An empty passphrase, because OpenSSL would otherwise ask for one on the terminal.
        let key = PKey::private_key_from_pem_passphrase(&key, b"").map_err(|e| CertsError::file(&key_file, &e))?;
        if !cert.public_key().is_ok_and(|public| public.public_eq(&key)) {
            return Err(CertsError::file(&key_file, &"is not the key of ca.pem"));
        }
        Ok(Ca { cert, key })
    }

    /// Writes `ca.pem` and `ca-key.pem`.
    ///
    /// # Errors
    /// [`CertsError::File`].
    pub fn save(&self, dir: &Path) -> Result<(), CertsError> {
        write(&dir.join("ca-key.pem"), &self.key.private_key_to_pem_pkcs8()?, 0o600)?;
        write(&dir.join("ca.pem"), &self.cert_pem()?, 0o644)
    }

    /// Returns the certificate in PEM form.
    ///
    /// # Errors
    /// [`CertsError::OpenSsl`].
    pub fn cert_pem(&self) -> Result<Vec<u8>, CertsError> {
        Ok(self.cert.to_pem()?)
    }

    /// Issues a certificate.
    ///
    /// # Errors
    /// [`CertsError::OpenSsl`].
    pub fn issue(&self, request: &Request) -> Result<Issued, CertsError> {
        let key = new_key()?;
        let mut builder = begin(&subject(&request.common_names)?, &key, request.lifetime_seconds)?;
        builder.set_issuer_name(self.cert.subject_name())?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        let mut usages = ExtendedKeyUsage::new();
        match request.usage {
            Usage::Server => usages.server_auth(),
            Usage::Client => usages.client_auth(),
            Usage::Peer => usages.server_auth().client_auth(),
        };
        builder.append_extension(usages.build()?)?;
        if !request.hosts.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for host in &request.hosts {
                if host.parse::<IpAddr>().is_ok() {
                    names.ip(host)
                } else {
                    names.dns(host)
                };
            }
            let names = names.build(&builder.x509v3_context(Some(&self.cert), None))?;
            builder.append_extension(names)?;
        }
        let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(Some(&self.cert), None))?;
        builder.append_extension(key_id)?;
        let ca_id = AuthorityKeyIdentifier::new().keyid(true).build(&builder.x509v3_context(Some(&self.cert), None))?;
        builder.append_extension(ca_id)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(Issued { cert_pem: builder.build().to_pem()?, key_pem: key.private_key_to_pem_pkcs8()? })
    }

    /// Issues a certificate into `<dir>/<stem>.pem` and its key into `<dir>/<stem>-key.pem` (0600). Existing files are
    /// replaced.
    ///
    /// # Errors
    /// [`CertsError::File`], [`CertsError::OpenSsl`].
    pub fn issue_files(&self, request: &Request, dir: &Path, stem: &str) -> Result<(PathBuf, PathBuf), CertsError> {
        let (cert, key) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}-key.pem")));
        let issued = self.issue(request)?;
        write(&key, &issued.key_pem, 0o600)?;
        write(&cert, &issued.cert_pem, 0o644)?;
        Ok((cert, key))
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn subject(common_names: &[String]) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    for common_name in common_names {
        name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    }
    Ok(name.build())
}

fn begin(name: &X509Name, key: &PKey<Private>, lifetime_seconds: i64) -> Result<X509Builder, CertsError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs().cast_signed();
    let not_after = now + lifetime_seconds;
    let not_before = if lifetime_seconds < 0 { not_after - DAY_SECONDS } else { now - SKEW_SECONDS };
    let mut builder = X509::builder()?;
    builder.set_version(2)?; // counted from 0: X.509 v3
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let serial: Asn1Integer = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(name)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::from_unix(not_before)?.as_ref())?;
    builder.set_not_after(Asn1Time::from_unix(not_after)?.as_ref())?;
    Ok(builder)
}

/// Replaces a file atomically. The file has its mode before any byte is written.
fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    let replace = || -> io::Result<()> {
        let new = file.with_extension("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&new, file)
    };
    replace().map_err(|e| CertsError::file(file, &e))
}

#[cfg(test)]
mod tests;
