use std::fs;

use super::*;

fn principal(name: &str) -> Principal {
    Principal::new(name).expect("a name")
}

fn acl(policy: &str) -> Acl {
    Acl::from_text(policy).expect("a policy")
}

#[test]
fn everything_that_no_line_grants_is_denied() {
    let acl = acl("p, alice, default, produce\np, alice, audit-*, consume\n");
    let alice = principal("alice");
    assert!(acl.allows(&alice, "default", Action::Produce));
    assert!(!acl.allows(&alice, "default", Action::Consume));
    assert!(!acl.allows(&alice, "default2", Action::Produce));
    assert!(!acl.allows(&alice, Acl::EVERY_LOG, Action::Produce));
    assert!(acl.allows(&alice, "audit-1", Action::Consume));
    assert!(acl.allows(&alice, "audit-", Action::Consume));
    assert!(!acl.allows(&alice, "audit", Action::Consume));
    assert!(!acl.allows(&principal("bob"), "default", Action::Produce));
    assert!(!acl.allows(&principal("Alice"), "default", Action::Produce));
    for action in Action::ALL {
        assert!(!self::acl("").allows(&alice, "default", *action));
    }
}

#[test]
fn the_default_policy_grants_the_documented_permissions() {
    let acl = acl(include_str!("../../../acl/policy.csv"));
    let (root, peer, nobody) = (principal("root"), principal("peer"), principal("nobody"));
    for action in [Action::Produce, Action::Consume, Action::Admin] {
        for log in ["default", "x", Acl::EVERY_LOG] {
            assert!(acl.allows(&root, log, action));
            assert!(!acl.allows(&peer, log, action));
            assert!(!acl.allows(&nobody, log, action));
        }
    }
    assert!(acl.allows(&peer, Acl::EVERY_LOG, Action::Replicate));
    assert!(!acl.allows(&root, Acl::EVERY_LOG, Action::Replicate));
    assert!(!acl.allows(&Principal::anonymous(), "default", Action::Consume));
}

#[test]
fn a_permission_for_one_log_is_enough_before_the_name_is_known() {
    let acl = acl("p, alice, audit-*, consume\np, role:r, one, produce\ng, bob, role:r\np, root, *, admin\n");
    assert!(acl.allows_some(&principal("alice"), Action::Consume));
    assert!(!acl.allows_some(&principal("alice"), Action::Produce));
    assert!(acl.allows_some(&principal("bob"), Action::Produce));
    assert!(acl.allows_some(&principal("root"), Action::Admin));
    assert!(!acl.allows_some(&principal("carol"), Action::Consume));
}

#[test]
fn roles_may_contain_roles() {
    let acl = acl("p, role:a, *, consume\ng, role:b, role:a\ng, bob, role:b\n");
    assert!(acl.allows(&principal("bob"), "x", Action::Consume));
    assert!(!acl.allows(&principal("b"), "x", Action::Consume));
}

#[test]
fn the_cache_of_decisions_is_bounded() {
    let acl = acl("p, a, *, consume\n");
    let a = principal("a");
    for n in 0..DECISIONS_REMEMBERED_MAX + 100 {
        assert!(acl.allows(&a, &format!("log{n}"), Action::Consume));
    }
    let policy = acl.current();
    let decided = policy.decided.lock();
    assert_eq!(decided.count, 100);
    assert_eq!(decided.of[&a].len(), 100);
}

#[test]
fn malformed_lines_are_refused_by_number() {
    let refused = |policy: &str| Acl::from_text(policy).map(drop).expect_err(policy).to_string();
    for (line, says) in [
        ("p, root, *", "a permission is"),
        ("p, root, *, produce, allow", "a permission is"),
        ("p, root, *, write", "\"write\" is not an action"),
        ("p, root, *, *", "\"*\" is not an action"),
        ("p, *, *, produce", "can't be the name"),
        ("p, ro*, *, produce", "can't be the name"),
        ("p, , *, produce", "can't be the name"),
        ("p, role:, *, produce", "can't be the name"),
        ("p, role:role:a, *, produce", "can't be the name"),
        ("p, \"root\", *, produce", "quotes"),
        ("p, root, a*b, produce", "is neither the name of a log"),
        ("p, root, **, produce", "is neither the name of a log"),
        ("p, root, , produce", "is neither the name of a log"),
        ("p, root, a/b, produce", "is neither the name of a log"),
        ("g, root, admin", "is not a role"),
        ("g, root", "a membership is"),
        ("p2, root, *, produce", "a line begins with"),
        ("root, *, produce", "a line begins with"),
    ] {
        let error = refused(&format!("# remark\n\np, a, *, consume\n  {line}\n"));
        assert!(error.starts_with("policy:4: ") && error.contains(says), "{line}: {error}");
    }
}

#[test]
fn a_reload_keeps_the_last_good_policy() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("policy.csv");
    let missing = Acl::load(None, &file).map(drop).expect_err("no file");
    assert!(missing.to_string().starts_with(&file.display().to_string()), "{missing}");
    fs::write(&file, "p, a, *, consume\n").expect("written");
    let acl = Acl::load(None, &file).expect("a policy");
    let (held, a) = (acl.clone(), principal("a"));
    assert_eq!((acl.reload(), acl.generation()), (Ok(false), 1));
    assert!(held.allows(&a, "x", Action::Consume));
    fs::write(&file, "p, a, *, nonsense\n").expect("written");
    assert!(acl.reload().is_err());
    assert!(held.allows(&a, "x", Action::Consume) && held.generation() == 1);
    // An editor that saves the file may truncate it first. A reload at that moment removed all permissions.
    for nothing in ["", "# p, a, *, consume\n", "g, a, role:x\n"] {
        fs::write(&file, nothing).expect("written");
        assert_eq!(acl.reload(), Err(AclError::Empty(file.clone())), "{nothing:?}");
        assert!(held.allows(&a, "x", Action::Consume) && held.generation() == 1);
    }
    fs::write(&file, "p, b, *, consume\n").expect("written");
    assert_eq!((acl.reload(), held.generation()), (Ok(true), 2));
    assert!(!held.allows(&a, "x", Action::Consume));
    assert!(held.allows(&principal("b"), "x", Action::Consume));
}

#[test]
fn another_model_may_be_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let (model, policy) = (dir.path().join("model.conf"), dir.path().join("policy.csv"));
    let load = |model_text: &str, policy_text: &str| {
        fs::write(&model, model_text).and_then(|()| fs::write(&policy, policy_text)).expect("written");
        Acl::load(Some(&model), &policy)
    };
    let with_deny = MODEL
        .replace("p = sub, obj, act", "p = sub, obj, act, eft")
        .replace("some(where (p.eft == allow))", "some(where (p.eft == allow)) && !some(where (p.eft == deny))");
    let acl = load(&with_deny, "p, a, *, consume, allow\np, a, secret, consume, deny\n").expect("a policy");
    assert!(acl.allows(&principal("a"), "x", Action::Consume));
    assert!(!acl.allows(&principal("a"), "secret", Action::Consume));
    assert!(load(&with_deny, "p, a, *, consume\n").is_err());
    // With a model that compares the star literally, the node started and denied every request.
    let literal = MODEL.replace("keyMatch(r.obj, p.obj)", "r.obj == p.obj");
    let useless = load(&literal, "p, a, *, consume\np, b, team-*, produce\n").map(drop).expect_err("no right");
    assert_eq!(useless, AclError::WithoutEffect { policy: policy.clone(), model: Some(model.clone()) });
    assert!(useless.to_string().contains("does the matcher accept \"*\" for every log?"), "{useless}");
    let one = load(&literal, "p, a, *, consume\np, b, team-a, produce\n").expect("one line grants a right");
    assert!(one.allows(&principal("b"), "team-a", Action::Produce));
    // With a byte order mark, the first line began with neither "p" nor "g".
    let marked = load(&format!("\u{feff}{MODEL}"), "\u{feff}p, a, *, consume\n").expect("a policy");
    assert!(marked.allows(&principal("a"), "x", Action::Consume));
    for bad in [
        "",
        "nonsense",
        &MODEL.replace("r = sub, obj, act", "r = sub, act"),
        &MODEL.replace("keyMatch(", "noSuchFunction("),
        &MODEL.replace("r.act == p.act", "r.act =="),
        &MODEL.replace("p = sub, obj, act", "p = sub, act, obj"),
    ] {
        let error = load(bad, "p, a, *, consume\n").map(drop).expect_err(bad).to_string();
        assert!(error.starts_with(&model.display().to_string()), "{error}");
    }
}

/// Patterns of other principals' lines were listed for a principal that may use every log.
#[test]
fn permissions_are_listed_without_those_that_a_wider_one_covers() {
    let policy =
        "p, role:admin, *, consume\ng, root, role:admin\np, alice, team-*, consume\np, alice, team-a, produce\n";
    let acl = Acl::from_text(policy).expect("a policy");
    let of = |name: &str| acl.permissions(&Principal::new(name).expect("a name"));
    assert_eq!(of("root"), [("*".to_owned(), Action::Consume)]);
    assert_eq!(of("alice"), [("team-*".to_owned(), Action::Consume), ("team-a".to_owned(), Action::Produce)]);
    assert_eq!(of("nobody"), []);
}

#[test]
fn a_permission_covers_a_name_or_a_prefix() {
    for (permitted, log, yes) in [
        ("*", "*", true),
        ("*", "audit", true),
        ("audit-*", "audit-1", true),
        ("audit-*", "audit", false),
        ("audit", "audit", true),
        ("audit", "audit-1", false),
        ("audit-*", "*", false),
    ] {
        assert_eq!(covers(permitted, log), yes, "{permitted} {log}");
    }
}
