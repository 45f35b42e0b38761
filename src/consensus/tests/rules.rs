//! The rules that lose data when they are forgotten. Each is shown with the rule, and without it: then what must not
//! happen does. (The third such rule, never overwriting a truncated suffix in place, is the storage's.)

use super::sim::World;
use crate::consensus::group::Rules;

/// A sole voter with a learner: it becomes leader in the Ready that raises its term. If a message of that term left before
/// the term is synced, a power cut would make it use the term again, for other entries: the learner would hold entries of
/// a term that never were in the leader's log.
fn a_term_that_is_not_synced(rules: Rules) -> bool {
    let mut world = World::new(1, 2, rules);
    for _ in 0..200 {
        world.tick(0);
        world.sync(0);
        world.deliver();
        world.sync(1);
        if world.nodes[0].group.as_ref().is_some_and(|g| !g.status().learners.is_empty()) {
            break;
        }
    }
    // Keep the learner one, and restart the leader: it campaigns at once, in a new term.
    world.wanted.truncate(1);
    world.network.clear();
    world.sync(0);
    world.crash_keeping(0, 0);
    let synced_term = world.nodes[0].disk.files.hard_state.term;
    world.start(0);
    for _ in 0..20 {
        world.tick(0);
    }
    world.network.iter().any(|m| m.from == 1 && m.term > synced_term.0)
}

#[test]
fn no_message_leaves_before_its_term_is_synced() {
    assert!(!a_term_that_is_not_synced(Rules::default()));
    assert!(a_term_that_is_not_synced(Rules { hold_unsynced_term: false, ..Rules::default() }));
}

/// A conf change that is applied although the commit that covers it can still be forgotten: after a power cut the node
/// would be back in the old configuration, with a majority of its own.
fn a_conf_change_ahead_of_its_commit(rules: Rules) -> bool {
    let mut world = World::new(1, 2, rules);
    for _ in 0..200 {
        world.tick(0);
        world.sync(0);
        world.deliver();
        // Applied and not synced: what a power cut here leaves behind must know of the commit.
        let applied = world.nodes[0].group.as_ref().map(|g| g.status()).expect("running");
        if applied.learners.len() + applied.voters.len() > 1 {
            let conf_index = world.nodes[0].disk.files.conf_index;
            world.crash_keeping(0, 0);
            return world.nodes[0].disk.files.hard_state.commit < conf_index;
        }
    }
    panic!("no conf change in 200 ticks");
}

#[test]
fn no_conf_change_before_its_commit_is_synced() {
    assert!(!a_conf_change_ahead_of_its_commit(Rules::default()));
    let forgotten = Rules { sync_commit_before_conf_change: false, ..Rules::default() };
    assert!(a_conf_change_ahead_of_its_commit(forgotten));
}
