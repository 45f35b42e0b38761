//! Findings about the cluster, and how serious they are.

use crate::cli::exit::Exit;

/// A problem of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterFinding {
    pub kind: FindingKind,
    /// `None` if the finding is about the catalog, or not about one log.
    pub log: Option<String>,
    pub nodes: Vec<String>,
    pub message: String,
    /// The next step; may be empty.
    pub next: String,
}

/// The result of a monitoring plugin, as those of Nagios define it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckState {
    Ok,
    Warning,
    Critical,
    /// The check itself could not be made.
    Unknown,
}

impl CheckState {
    pub fn name(self) -> &'static str {
        match self {
            CheckState::Ok => "OK",
            CheckState::Warning => "WARNING",
            CheckState::Critical => "CRITICAL",
            CheckState::Unknown => "UNKNOWN",
        }
    }

    /// Returns the exit code; `None` if all is well. The numbers are those of plugins, and not the meanings of the
    /// codes elsewhere.
    pub fn exit(self) -> Option<Exit> {
        match self {
            CheckState::Ok => None,
            CheckState::Warning => Some(Exit::Failed),
            CheckState::Critical => Some(Exit::Usage),
            CheckState::Unknown => Some(Exit::OutcomeUnknown),
        }
    }

    /// Returns the line of the plugin.
    pub fn line(self, what: &str) -> String {
        format!("{}: {what}\n", self.name())
    }
}

/// The kinds of findings, the most serious first. The first finding determines the state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FindingKind {
    Damage,
    NoMajority,
    NoLeader,
    AppendsRefused,
    Joining,
    VoterMissing,
    VotersTooFew,
    MemberMissing,
    DiskLow,
    CertificateExpires,
}

impl FindingKind {
    /// Returns how a monitor shows it.
    pub fn state(self) -> CheckState {
        match self {
            FindingKind::Damage
            | FindingKind::NoMajority
            | FindingKind::NoLeader
            | FindingKind::AppendsRefused
            | FindingKind::Joining => CheckState::Critical,
            FindingKind::VoterMissing
            | FindingKind::VotersTooFew
            | FindingKind::MemberMissing
            | FindingKind::DiskLow
            | FindingKind::CertificateExpires => CheckState::Warning,
        }
    }

    /// Returns the name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::Damage => "damage",
            FindingKind::NoMajority => "no_majority",
            FindingKind::NoLeader => "no_leader",
            FindingKind::AppendsRefused => "appends_refused",
            FindingKind::Joining => "joining",
            FindingKind::VoterMissing => "voter_missing",
            FindingKind::VotersTooFew => "voters_too_few",
            FindingKind::MemberMissing => "member_missing",
            FindingKind::DiskLow => "disk_low",
            FindingKind::CertificateExpires => "certificate_expires",
        }
    }
}

impl ClusterFinding {
    /// Returns the finding for a node that is not ready yet.
    pub fn joining(addr: &str, waiting_for: &str) -> ClusterFinding {
        let message = format!("{addr} is not ready yet: {waiting_for}");
        ClusterFinding { kind: FindingKind::Joining, log: None, nodes: Vec::new(), message, next: String::new() }
    }
}
