use std::path::Path;

use super::compare::Survivor;
use super::perform::{Inputs, finish, perform, unfinished};
use super::plan::{Consent, Fate, Plan, Question, plan};
use super::survey::{Found, RecoverError, Survey, survey};
use crate::catalog::{Catalog, Command, LogSettings, Member, NewLog, Origin};
use crate::consensus::conf_change::{ConfChange, ConfChangeKind};
use crate::feature_level::Feature;
use crate::storage::disk::Disk;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::error::StorageError;
use crate::storage::log::{CatalogState, ConfState, Genesis, GroupLog, HardState, LogOptions};
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::payload::{RecordFields, encode_record, stamp_records};
use crate::storage::recovery_file::{Change, RecoveryFile};
use crate::storage::roll_forward::decide;
use crate::types::{ClusterId, GroupId, LogId, LogIndex, LogName, NodeId, NodeName, Offset, ReplicaId, Term};

pub(crate) const OLD: ClusterId = ClusterId(0xaa);
const NEW: ClusterId = ClusterId(0xbb);
/// The nodes `a`, `b` and so on.
pub(crate) const NODES: [NodeId; 4] = [NodeId(100), NodeId(200), NodeId(300), NodeId(400)];
const TERM: Term = Term(3);

pub(crate) fn name(log: &str) -> LogName {
    LogName::new(log).expect("a name")
}

/// A node of a cluster, stopped.
pub(crate) struct Stopped {
    pub(crate) dir: tempfile::TempDir,
    node: usize,
    catalog: Catalog,
    file: NodeFile,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096 }
}

impl Stopped {
    /// The first node of a cluster of so many, with these logs, each with the positions of the nodes of its replicas.
    pub(crate) fn new(nodes: usize, logs: &[(&str, &[usize])]) -> Stopped {
        Stopped::of(0, nodes, logs)
    }

    /// The same for another node of the cluster.
    fn of(node: usize, nodes: usize, logs: &[(&str, &[usize])]) -> Stopped {
        let dir = tempfile::tempdir().expect("a directory");
        let node_name = |i: usize| NodeName::new(["a", "b", "c", "d"][i]).expect("a name");
        let file = NodeFile::new(NODES[node], node_name(node));
        let data = DataDir::open(&Disk::real(), dir.path()).expect("a data directory");
        data.store(&file).expect("stored");
        let mut stopped = Stopped { dir, node, catalog: Catalog::default(), file };
        let voters = NODES[..nodes].iter().map(|id| ReplicaId::of_node(*id)).collect();
        stopped.create(&data, GroupId::CATALOG, ReplicaId::of_node(NODES[node]), voters);
        stopped.file.cluster_id = Some(OLD);
        stopped.file.cluster_name = Some("demo".to_owned());
        let mut commands: Vec<Command> = (0..nodes)
            .map(|i| {
                let (bind_addr, rpc_addr) = (format!("host-{i}:8402"), format!("host-{i}:8401"));
                Command::AddNode(Member { id: NODES[i], name: node_name(i), bind_addr, rpc_addr })
            })
            .collect();
        commands.push(Command::RaiseFeatureLevel(Feature::Producers.level()));
        for (i, (log, on)) in logs.iter().enumerate() {
            let origin = Origin::Nodes(on.iter().map(|i| NODES[*i]).collect());
            let log_id = LogId(0x1000 + i as u64);
            let settings = LogSettings::default();
            commands.push(Command::CreateLog(NewLog { name: name(log), log_id, origin, settings, restore: None }));
        }
        stopped.write(&data, GroupId::CATALOG, |log| {
            commands.iter().map(|command| record_entry(log, &command.encode())).collect::<Vec<_>>()
        });
        commands.iter().for_each(|command| drop(stopped.catalog.apply(command, 7)));
        let placed: Vec<(GroupId, Vec<ReplicaId>, Option<ReplicaId>)> = stopped
            .catalog
            .logs()
            .map(|log| {
                let mine = log.replicas.iter().find(|placement| placement.node == NODES[node]);
                (log.group, log.first.iter().map(|p| p.replica).collect(), mine.map(|placement| placement.replica))
            })
            .collect();
        for (group, voters, mine) in placed {
            if let Some(replica) = mine {
                stopped.create(&data, group, replica, voters);
            }
        }
        data.store(&stopped.file).expect("stored");
        stopped
    }

    fn create(&mut self, data: &DataDir, group: GroupId, replica: ReplicaId, voters: Vec<ReplicaId>) {
        let genesis = Genesis::Voters(voters, Offset(0));
        GroupLog::create(data.disk(), &data.groups_dir(), group, &options(), genesis).expect("created");
        self.file.add(group, replica);
    }

    /// Appends entries to a group, one after the other, and syncs them. All but the last two are known to be committed.
    fn write(&self, data: &DataDir, group: GroupId, entries: impl Fn(&mut Builder) -> Vec<Entry>) {
        let (mut log, _) = GroupLog::open(data.disk(), &data.groups_dir(), group, &options()).expect("opened");
        let entries = entries(&mut Builder { index: log.last().index, offset: log.last().offset });
        entries.chunks(1).for_each(|entry| log.append(entry).expect("appended"));
        let commit = LogIndex(log.last().index.0.saturating_sub(2).max(1));
        log.append_hard_state(&HardState { term: TERM, vote: None, commit }).expect("appended");
        log.set_applied(commit);
        log.close().expect("closed");
    }

    fn open(&self) -> DataDir {
        DataDir::open(&Disk::real(), self.dir.path()).expect("a data directory")
    }

    /// Appends so many records to a log.
    pub(crate) fn append(&self, log: &str, records: usize) {
        let group = self.group(log);
        self.write(&self.open(), group, |at| (0..records).map(|i| record_entry(at, &[i as u8; 300])).collect());
    }

    fn change_conf(&self, log: &str, change: ConfChange) {
        let group = self.group(log);
        self.write(&self.open(), group, |at| vec![at.entry(EntryKind::ConfChange, 0, 0, &change.encode())]);
    }

    fn group(&self, log: &str) -> GroupId {
        self.catalog.log_named(&name(log)).expect("a log").group
    }

    fn lock(&self) -> DataDir {
        DataDir::look(&Disk::real(), self.dir.path()).expect("locked")
    }

    fn survey(&self) -> Result<Survey, RecoverError> {
        survey(&self.lock(), true)
    }

    fn plan(&self, consent: &Consent, others: &[Survivor]) -> Plan {
        plan(&self.survey().expect("a survey"), consent, others).expect("a plan")
    }

    fn recover(&self, consent: &Consent) -> Plan {
        let data = self.lock();
        let survey = survey(&data, true).expect("a survey");
        let plan = plan(&survey, consent, &[]).expect("a plan");
        let mut next = 0x2000;
        let mut new_log_id = || {
            next += 1;
            Ok(LogId(next))
        };
        let inputs = Inputs { cluster_id: NEW, new_log_id: &mut new_log_id, now_us: 99 };
        perform(&data, &survey, &plan, inputs).expect("recovered");
        plan
    }

    /// The path of a file of a group.
    fn path(&self, group: GroupId, file: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("groups/{group}/{file}"))
    }
}

/// The end of the entries so far.
struct Builder {
    index: LogIndex,
    offset: Offset,
}

impl Builder {
    fn entry(&mut self, kind: EntryKind, count: u32, append_time_us: u64, payload: &[u8]) -> Entry {
        let stamp = Stamp { kind, count, base_offset: self.offset, append_time_us, producer_id: 0, sequence: 0 };
        self.index = self.index.next();
        self.offset = Offset(self.offset.0 + u64::from(count));
        Entry::new(self.index, TERM, stamp, payload)
    }
}

fn record_entry(at: &mut Builder, value: &[u8]) -> Entry {
    let mut payload = Vec::new();
    encode_record(&mut payload, &RecordFields { value, ..RecordFields::default() });
    stamp_records(&mut payload, at.offset, TERM, 7).expect("canonical");
    at.entry(EntryKind::Records, 1, 7, &payload)
}

fn fates(plan: &Plan) -> Vec<&Fate> {
    plan.fates.iter().collect()
}

/// A cluster of three in which `a` survives, with a log of each kind.
pub(crate) fn one_of_three() -> Stopped {
    let logs: [(&str, &[usize]); 4] = [("default", &[0, 1, 2]), ("pair", &[1, 0]), ("own", &[0]), ("gone", &[1, 2])];
    let stopped = Stopped::new(3, &logs);
    for log in ["default", "pair", "own"] {
        stopped.append(log, 9);
    }
    stopped
}

#[test]
fn a_log_keeps_its_id_only_if_the_lost_nodes_were_never_a_majority() {
    let stopped = one_of_three();
    let lost = Fate::Undecided(Question::Lost);
    let undecided = stopped.plan(&Consent::default(), &[]);
    assert_eq!(fates(&undecided), [&Fate::NewId, &Fate::Same, &Fate::Same, &lost]);
    assert!(!undecided.is_catalog_complete);
    let dropped = stopped.plan(&Consent { drop_lost: true, ..Consent::default() }, &[]);
    assert_eq!(dropped.fates[3], Fate::Dropped);
    let named = stopped.plan(&Consent { drop: [name("gone")].into(), ..Consent::default() }, &[]);
    assert_eq!(named.fates[3], Fate::Dropped);

    // A third voter is in the log, perhaps committed: with it, two lost nodes are a majority.
    let third = ConfChange { kind: ConfChangeKind::AddVoter, replica: ReplicaId(90) };
    stopped.change_conf("pair", third);
    assert_eq!(stopped.plan(&Consent::default(), &[]).fates[1], Fate::NewId);
    // A learner never counts.
    stopped.change_conf("own", ConfChange { kind: ConfChangeKind::AddLearner, ..third });
    assert_eq!(stopped.plan(&Consent::default(), &[]).fates[2], Fate::Same);
    // This replica itself may have been removed.
    let own = ReplicaId(stopped.catalog.log_named(&name("own")).expect("a log").replicas[0].replica.0);
    stopped.change_conf("own", ConfChange { kind: ConfChangeKind::Remove, replica: own });
    assert_eq!(stopped.plan(&Consent::default(), &[]).fates[2], Fate::NewId);
}

#[test]
fn consent_must_fit_the_logs() {
    let stopped = one_of_three();
    let survey = stopped.survey().expect("a survey");
    let refused = |consent: Consent| plan(&survey, &consent, &[]).expect_err("refused");
    let of = |log: &str| [name(log)].into();
    assert_eq!(refused(Consent { drop: of("nosuch"), ..Consent::default() }), "there is no log nosuch");
    let kept = refused(Consent { keep: of("gone"), ..Consent::default() });
    assert!(kept.contains("nothing of it"), "{kept}");
    let dropped = refused(Consent { drop: of("own"), ..Consent::default() });
    assert!(dropped.contains("is not lost: delete it after the recovery"), "{dropped}");
    let both = refused(Consent { drop: of("gone"), keep: of("gone"), ..Consent::default() });
    assert!(both.contains("both dropped and kept"), "{both}");
    // Nothing is done while a log is undecided.
    let undecided = plan(&survey, &Consent::default(), &[]).expect("a plan");
    let inputs = Inputs { cluster_id: NEW, new_log_id: &mut || Ok(LogId(1)), now_us: 1 };
    let error = perform(&stopped.lock(), &survey, &undecided, inputs).expect_err("refused");
    assert!(matches!(error, RecoverError::Undecided(_)), "{error}");
    assert_eq!(stopped.lock().load().expect("loaded").expect("a node").cluster_id, Some(OLD));
}

#[test]
fn the_node_continues_alone_with_everything_that_it_had() {
    let stopped = one_of_three();
    let before = stopped.survey().expect("a survey");
    stopped.recover(&Consent { drop_lost: true, ..Consent::default() });
    let data = stopped.open();
    let node = data.load().expect("loaded").expect("a node");
    assert_eq!((node.node_id, node.cluster_id), (NODES[0], Some(NEW)));
    assert_eq!(node.cluster_name.as_deref(), Some("demo"));
    for log in &before.logs[..3] {
        let Found::Copy(copy) = &log.found else { panic!("{log:?}") };
        let opened = GroupLog::open(data.disk(), &data.groups_dir(), log.group, &options());
        let (_, found) = opened.expect("opened");
        assert_eq!(found.conf_state, ConfState { voters: vec![copy.replica], learners: Vec::new() });
        let (last, commit) = (copy.facts.last, copy.facts.committed);
        assert_eq!((found.last_index, found.next_offset), (last.index, last.offset));
        assert!(commit < last.index && found.hard_state.commit == last.index, "{found:?}");
        assert!(found.hard_state.term > TERM && found.hard_state.vote.is_none(), "{found:?}");
    }
    let CatalogState { index, bytes } = data.load_catalog().expect("loaded").expect("a snapshot");
    let (_, found) = GroupLog::open(data.disk(), &data.groups_dir(), GroupId::CATALOG, &options()).expect("opened");
    assert_eq!((found.base.index, found.last_index), (index, index));
    let catalog = Catalog::decode(&bytes).expect("a catalog");
    assert_eq!(catalog.members().map(|member| member.id).collect::<Vec<_>>(), [NODES[0]]);
    assert!(catalog.is_removed(NODES[1]) && catalog.is_removed(NODES[2]));
    let ids = ["default", "pair", "own"].map(|log| catalog.log_named(&name(log)).expect("kept").log_id);
    assert_eq!(ids, [LogId(0x2001), LogId(0x1001), LogId(0x1002)]);
    assert!(catalog.log_named(&name("gone")).is_none() && catalog.is_purged(LogId(0x1003)));
    assert!(stopped.dir.path().join(format!("replaced-{OLD}/groups/1/manifest")).is_file());
    assert!(stopped.dir.path().join(format!("replaced-{OLD}/groups/0/{:020}.seg", 1)).is_file());
    drop(data);
    // Now it is a cluster of one, of which nothing is lost.
    let after = stopped.survey().expect("a survey");
    let again = plan(&after, &Consent::default(), &[]).expect("a plan");
    assert!(again.removed.is_empty() && again.is_catalog_complete && again.fates == vec![Fate::Same; 3], "{again:?}");
}

/// With four voters, two survivors are in every majority: together they have everything.
#[test]
fn survivors_are_compared_by_the_rule_of_elections() {
    let logs: [(&str, &[usize]); 1] = [("default", &[0, 1, 2, 3])];
    let (a, b) = (Stopped::new(4, &logs), Stopped::of(1, 4, &logs));
    a.append("default", 5);
    b.append("default", 4);
    let other = |stopped: &Stopped| {
        let text = serde_json::to_string(&Survivor::of(&stopped.survey().expect("a survey"))).expect("JSON");
        serde_json::from_str::<Survivor>(&text).expect("a survivor")
    };
    assert_eq!(a.plan(&Consent::default(), &[]).fates, [Fate::NewId], "the two lost ones and b are a majority");
    let compared = a.plan(&Consent::default(), &[other(&b)]);
    assert_eq!(compared.fates, [Fate::Same]);
    assert!(compared.is_catalog_complete && compared.newer_catalog.is_none());
    let behind = b.plan(&Consent::default(), &[other(&a)]);
    assert_eq!(behind.fates, [Fate::Undecided(Question::Behind("a".to_owned()))]);
    let consent = Consent { keep: [name("default")].into(), ..Consent::default() };
    assert_eq!(b.plan(&consent, &[other(&a)]).fates, [Fate::NewId]);

    // A log that another survivor has is dropped only by its name.
    let logs: [(&str, &[usize]); 2] = [("default", &[0, 1, 2, 3]), ("own", &[1])];
    let (a, b) = (Stopped::new(4, &logs), Stopped::of(1, 4, &logs));
    let lost = |consent: &Consent, others: &[Survivor]| a.plan(consent, others).fates[1].clone();
    let drop_lost = Consent { drop_lost: true, ..Consent::default() };
    assert_eq!(lost(&drop_lost, &[]), Fate::Dropped);
    assert_eq!(lost(&drop_lost, &[other(&b)]), Fate::Undecided(Question::Elsewhere("b".to_owned())));
    let named = Consent { drop: [name("own")].into(), ..drop_lost };
    assert_eq!(lost(&named, &[other(&b)]), Fate::Dropped);

    let itself = plan(&a.survey().expect("a survey"), &Consent::default(), &[other(&a)]).expect_err("refused");
    assert_eq!(itself, "a is this node itself");
    let foreign = Survivor { cluster_id: NEW.to_string(), ..other(&b) };
    let refused = plan(&a.survey().expect("a survey"), &Consent::default(), &[foreign]).expect_err("refused");
    assert!(refused.contains("is of cluster"), "{refused}");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn damage_concerns_its_log_alone() {
    let stopped = one_of_three();
    stopped.append("default", 30);
    let (group, gone) = (stopped.group("default"), Consent { drop_lost: true, ..Consent::default() });
    // In a segment that a start does not read.
    flip(&stopped.path(group, &format!("{:020}.seg", 1)), 400);
    let damaged = stopped.plan(&gone, &[]);
    assert_eq!(fates(&damaged)[..2], [&Fate::Undecided(Question::Damaged), &Fate::Same]);
    let keep = Consent { keep: [name("default")].into(), ..gone.clone() };
    assert_eq!(stopped.plan(&keep, &[]).fates[0], Fate::NewId);
    // The damaged files are kept beside the others.
    let dropped = stopped.recover(&Consent { drop: [name("default")].into(), ..gone });
    assert_eq!(dropped.fates[0], Fate::Dropped);
    assert!(stopped.dir.path().join(format!("groups/{group}.replaced-{OLD}/manifest")).is_file());
    let after = stopped.survey().expect("a survey");
    assert!(after.logs.iter().all(|log| log.name != name("default")), "{:?}", after.logs);

    // Where a start refuses it, it can only be dropped: the manifest, and what is not applied yet.
    let stopped = one_of_three();
    let newest = stopped.path(group, &format!("{:020}.seg", 1));
    let bytes = std::fs::read(&newest).expect("a segment");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("frames");
    flip(&newest, last - 400);
    let survey = stopped.survey().expect("a survey");
    assert!(matches!(&survey.logs[0].found, Found::Refused(why) if why.contains(".seg")), "{:?}", survey.logs[0]);
    flip(&newest, last - 400);
    flip(&stopped.path(group, "manifest"), 100);
    let survey = stopped.survey().expect("a survey");
    assert!(matches!(&survey.logs[0].found, Found::Refused(why) if why.contains("manifest")), "{:?}", survey.logs[0]);
    assert_eq!(stopped.plan(&Consent::default(), &[]).fates[0], Fate::Undecided(Question::Lost));

    // Without the catalog or node.toml nothing is known.
    flip(&stopped.path(GroupId::CATALOG, &format!("{:020}.seg", 1)), 300);
    let refused = stopped.survey().expect_err("damaged");
    assert!(matches!(refused, RecoverError::Damaged { .. }), "{refused}");
}

/// The newest command of the catalog may be lost in a crash, although records of the new log are synced.
#[test]
fn a_log_whose_creation_is_lost_gets_a_name() {
    let mut stopped = one_of_three();
    let data = stopped.open();
    for group in [8, 9] {
        let (replica, voters) = (ReplicaId(30 + group), vec![ReplicaId(30 + group), ReplicaId(50)]);
        stopped.create(&data, GroupId(group), replica, voters);
    }
    stopped.write(&data, GroupId(8), |at| vec![record_entry(at, b"x")]);
    data.store(&stopped.file).expect("stored");
    drop(data);
    let plan = stopped.recover(&Consent { drop_lost: true, ..Consent::default() });
    assert_eq!(plan.fates[4..], [Fate::NewId, Fate::NewId]);
    let after = stopped.survey().expect("a survey");
    let log = after.catalog.log_named(&name("recovered-8")).expect("a log");
    assert!(log.group == GroupId(8) && log.log_id.0 > 0x2000 && log.replicas[0].node == NODES[stopped.node], "{log:?}");
    assert!(after.catalog.was_placed(ReplicaId(39)), "its id is not used again");
}

#[test]
fn an_interrupted_recovery_stops_every_start_until_it_is_finished() {
    let stopped = one_of_three();
    let data = stopped.lock();
    assert_eq!(unfinished(&data).expect("read"), None);
    finish(&data).expect("nothing to do");
    let node = data.load().expect("loaded").expect("a node");
    let file = NodeFile { cluster_id: Some(NEW), ..node };
    let change = Change::Write { name: "node.toml".to_owned(), bytes: file.encode().into_bytes() };
    decide(&data, &RecoveryFile { cluster_id: NEW, changes: vec![change] }).expect("decided");
    drop(data);
    let refused = DataDir::open(&Disk::real(), stopped.dir.path()).err().expect("refused");
    assert!(matches!(refused, StorageError::RecoveryUnfinished { .. }) && refused.is_config(), "{refused}");
    let data = stopped.lock();
    assert_eq!(unfinished(&data).expect("read"), Some(NEW));
    finish(&data).expect("finished");
    drop(data);
    assert_eq!(stopped.open().load().expect("loaded"), Some(file));
}

#[test]
fn a_directory_without_a_cluster_has_nothing_to_recover() {
    let dir = tempfile::tempdir().expect("a directory");
    let look = || DataDir::look(&Disk::real(), dir.path()).expect("locked");
    assert!(matches!(survey(&look(), true), Err(RecoverError::Blank(_))));
    let data = DataDir::open(&Disk::real(), dir.path()).expect("a data directory");
    data.store(&NodeFile::new(NODES[0], NodeName::new("a").expect("a name"))).expect("stored");
    drop(data);
    assert!(matches!(survey(&look(), true), Err(RecoverError::NotMember(_))));
}
