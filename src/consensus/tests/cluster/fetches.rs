//! Tests of fetching old entries for a follower while clients use the reader threads.

use super::*;

/// Clients' cold reads filled the readers' only queue, so that a follower's fetches were refused again and again.
#[test]
fn a_follower_gets_old_entries_while_clients_fill_the_readers() {
    let mut world = World::new(9, 1);
    assert!(world.settle(200));
    (0..60).for_each(|_| world.produce(0));
    assert!(world.settle(200));
    // After a restart, applied entries are not in memory.
    world.kill(0, false);
    world.add();
    let wanted = world.wanted.clone();
    world.nodes.iter_mut().for_each(|node| node.wanted.clone_from(&wanted));
    let fill = |world: &World, i: usize| {
        let process = world.nodes[i].process.as_ref().expect("running");
        while process.readers.handle().run(Box::new(|| ())).is_ok() {}
    };
    world.start(0);
    for _ in 0..600 {
        for i in 0..2 {
            fill(&world, i);
            world.tick(i);
            world.sync(i, false);
            world.sync(i, true);
            world.nodes[i].process.as_ref().expect("running").readers.run();
            fill(&world, i);
            world.perform(i);
        }
        (0..world.network.len().min(500)).for_each(|_| world.deliver());
        let statuses: Vec<_> =
            world.nodes.iter().filter_map(|n| n.process.as_ref()).map(|p| p.replica.group.status()).collect();
        if statuses.iter().all(|s| s.applied_index.0 > 60 && s.voters == wanted) {
            return;
        }
    }
    panic!("the second node does not catch up");
}
