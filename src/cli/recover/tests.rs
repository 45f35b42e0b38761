use super::*;
use crate::golden::assert_golden;
use crate::lost_quorum::tests::{OLD, Stopped, one_of_three};
use crate::storage::node::NodeFile;
use crate::storage::recovery_file::RecoveryFile;
use crate::storage::roll_forward::{decide, store_node_file};

fn args(dir: &Path) -> Args {
    Args {
        data_dir: dir.to_owned(),
        apply: false,
        remove: Vec::new(),
        drop: Vec::new(),
        drop_lost: false,
        keep: Vec::new(),
        compare: Vec::new(),
        no_verify: false,
        output: OutputArgs::default(),
    }
}

fn reported(stopped: &Stopped, consent: &Consent) -> (String, String) {
    let data_dir = DataDir::look(&Disk::real(), stopped.dir.path()).expect("locked");
    let survey = survey(&data_dir, true).expect("a survey");
    let plan = plan(&survey, consent, &[]).expect("a plan");
    let path = stopped.dir.path().display().to_string();
    let here = |text: String| text.replace(&path, "/var/lib/seriatim");
    let text = to_text(&survey, &plan, stopped.dir.path(), None);
    let text = format!("{text}{}\n", command(&survey, &plan, stopped.dir.path()));
    let json = to_json(&survey, &plan, stopped.dir.path(), None);
    (here(text), here(format!("{json:#}\n")))
}

#[test]
fn a_dry_run_says_what_is_kept_and_what_may_be_lost() {
    let (text, json) = reported(&one_of_three(), &Consent { drop_lost: true, ..Consent::default() });
    assert_golden("recover-dry-run.txt", text.as_bytes());
    assert_golden("recover-dry-run.json", json.as_bytes());
}

#[test]
fn nothing_is_done_without_the_consent_of_the_operator() {
    let stopped = one_of_three();
    let dir = stopped.dir.path();
    let files = || {
        let names = std::fs::read_dir(dir.join("groups/1")).expect("a directory");
        let node = std::fs::read_to_string(dir.join("node.toml")).expect("a node");
        (names.count(), node)
    };
    let before = files();
    let remove = vec!["b".to_owned(), "c".to_owned()];
    let undecided = run(&args(dir)).expect_err("a log is lost");
    assert!(undecided.exit == Exit::Precondition && undecided.message.contains("gone"), "{undecided}");
    let undecided = run(&Args { apply: true, remove: remove.clone(), ..args(dir) }).expect_err("a log is lost");
    assert!(undecided.exit == Exit::Precondition && undecided.next.contains("--drop-lost"), "{undecided}");
    run(&Args { drop_lost: true, ..args(dir) }).expect("a dry run");
    for named in [vec![], vec!["b".to_owned()], vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]] {
        let refused = run(&Args { drop_lost: true, apply: true, remove: named, ..args(dir) }).expect_err("refused");
        assert!(refused.exit == Exit::Precondition && refused.next == "--remove b,c", "{refused}");
    }
    assert_eq!(files(), before);
    let unknown = run(&Args { drop: vec![LogName::new("x").expect("a name")], ..args(dir) }).expect_err("refused");
    assert!(unknown.exit == Exit::Usage && unknown.message == "there is no log x", "{unknown}");

    let in_use = DataDir::open(&Disk::real(), dir).expect("a running node");
    assert!(run(&args(dir)).expect_err("in use").message.contains("in use"));
    drop(in_use);
    run(&Args { drop_lost: true, apply: true, remove, ..args(dir) }).expect("recovered");
    assert!(dir.join(format!("replaced-{OLD}")).is_dir());
    let alone = run(&Args { apply: true, ..args(dir) }).expect_err("nothing left to do");
    assert!(alone.message.contains("only member"), "{alone}");
}

#[test]
fn a_survivor_is_read_from_the_output_of_another_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("b.json");
    let (_, json) = reported(&one_of_three(), &Consent::default());
    std::fs::write(&file, json).expect("written");
    let survivor = read_survivor(&file).expect("a survivor");
    assert_eq!((survivor.node_name.as_str(), survivor.replicas.len()), ("a", 3));
    std::fs::write(&file, "{}").expect("written");
    let bad = read_survivor(&file).expect_err("another file");
    assert!(bad.exit == Exit::BadData && bad.next.contains("recover -o json"), "{bad}");
    assert_eq!(read_survivor(&dir.path().join("none")).expect_err("missing").exit, Exit::BadData);
}

#[test]
fn an_interrupted_recovery_is_finished_by_the_same_command() {
    let stopped = one_of_three();
    let dir = stopped.dir.path();
    let data_dir = DataDir::look(&Disk::real(), dir).expect("locked");
    let node = data_dir.load().expect("loaded").expect("a node");
    let file = NodeFile { cluster_id: Some(ClusterId(9)), ..node };
    let recovery = RecoveryFile { cluster_id: ClusterId(9), changes: vec![store_node_file(&file)] };
    decide(&data_dir, &recovery).expect("decided");
    drop(data_dir);
    let told = run(&args(dir)).expect_err("only --apply finishes it");
    assert!(told.exit == Exit::Precondition && told.next.contains("--apply` finishes it"), "{told}");
    run(&Args { apply: true, ..args(dir) }).expect("finished");
    let data_dir = DataDir::open(&Disk::real(), dir).expect("a node starts");
    assert_eq!(data_dir.load().expect("loaded"), Some(file));
}
