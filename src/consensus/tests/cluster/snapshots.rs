//! Tests of a node that catches up by a snapshot, with real log files.

use super::*;

/// The log state of a snapshot may include later entries than the snapshot's base. The node stored it with the index
/// of the base, because that was its applied index. After a restart, the entries in between would have been applied
/// to it twice.
#[test]
fn a_snapshots_log_state_is_stored_with_its_own_index() {
    let mut world = World::new(7, 3);
    let wanted = world.wanted.clone();
    world.nodes.iter_mut().for_each(|node| node.wanted.clone_from(&wanted));
    let voters =
        |world: &World, i: usize| world.nodes[i].process.as_ref().map_or(0, |p| p.replica.group.status().voters.len());
    while (0..3).any(|i| voters(&world, i) < 3) {
        world.heal_step(&[0, 1, 2], 100);
    }
    let leader = world.leader().expect("a leader");
    let away = (leader + 1) % 3;
    let two: Vec<usize> = (0..3).filter(|i| *i != away).collect();
    world.kill(away, true);
    for _ in 0..60 {
        world.leader().into_iter().for_each(|leader| world.produce(leader));
        world.heal_step(&two, 100);
    }
    let leader = world.leader().expect("a leader");
    let first = world.nodes[leader].process.as_ref().expect("running").replica.group.visible().next_offset;
    let trim = Offset(first.0 - 5).0.to_le_bytes().to_vec();
    world.propose(leader, EntryKind::Trim, trim, 0, None);
    (0..60).for_each(|_| world.heal_step(&two, 100));

    world.start(away);
    let id = world.nodes[away].id;
    let snapshot = (0..20_000).find_map(|_| {
        let at = world.network.iter().position(|m| m.to == id.0 && m.snapshot.is_some());
        if at.is_none() && world.network.is_empty() {
            for i in 0..3 {
                world.tick(i);
                world.sync(i, false);
                world.sync(i, true);
            }
        } else if at.is_none() {
            world.deliver();
        }
        Some(world.network.remove(at?))
    });
    let snapshot = snapshot.expect("a snapshot is sent");
    let (base, as_of) = (snapshot.snapshot.index, snapshot.snapshot.log_state_index);
    assert!(as_of > base, "the log state is newer than the base: {snapshot:?}");
    world.network.clear();
    let process = world.nodes[away].process.as_mut().expect("running");
    process.replica.step(snapshot, FeatureRange::SUPPORTED).expect("our own message");
    world.perform(away);
    for end in [false, true] {
        world.sync(away, end);
    }
    let process = world.nodes[away].process.as_mut().expect("running");
    assert_eq!(process.replica.group.visible().applied, LogIndex(base), "nothing after the snapshot is applied");
    process.writer.quiet(true).expect("closed");
    world.kill(away, false);
    let disk = world.nodes[away].sim.disk();
    let (_, found) = GroupLog::open(&disk, Path::new(GROUPS_DIR), GROUP, &options()).expect("opened");
    assert_eq!((found.base.index, found.log_state_index), (LogIndex(base), LogIndex(as_of)));
}
