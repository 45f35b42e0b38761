//! Tests of a driver whose version supports other feature levels than the first.

use super::*;
use crate::consensus::group::CommittedCommand;
use crate::consensus::replica::CatalogInput;
use crate::feature_level::{ClusterLevel, FeatureLevel};

/// The view of a binary that supports these levels.
fn supports(min: u32, max: u32) -> CatalogView {
    CatalogView::new(ClusterLevel::new(levels(min, max)))
}

fn levels(min: u32, max: u32) -> FeatureRange {
    FeatureRange::new(FeatureLevel(min), FeatureLevel(max)).expect("a range")
}

fn input(index: u64, command: &Command) -> CatalogInput {
    let bytes = command.encode().into();
    CatalogInput::Command(CommittedCommand { index: LogIndex(index), append_time_us: 1, bytes })
}

/// The levels of a node that joins were checked before the raise, and the node was added after it.
#[test]
fn a_node_is_not_added_if_it_does_not_support_the_level_that_the_cluster_has_when_it_is_added() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::try_start(dir.path(), "n1", supports(1, 3)).expect("recovered");
    founder.settle();
    let mut add = |supported| founder.command_of(Command::AddNode(member(OTHER, "n2")), supported).map(|_| ());
    assert_eq!(add(levels(1, 2)), Err(ProposeError::LevelUnsupported { member: OTHER }));
    assert_eq!(add(levels(1, 4)), Ok(()));
}

/// A version that no longer supports level 1 replays a catalog that began at level 1. It ended in between.
#[test]
fn a_version_replays_a_catalog_that_began_at_a_level_below_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut joined =
        Founder::try_start(dir.path(), "n1", supports(2, 3)).expect("an empty catalog says nothing about the level");
    for (i, command) in
        [Command::AddNode(member(ME, "n1")), Command::RaiseFeatureLevel(FeatureLevel(2))].iter().enumerate()
    {
        let Driver { governor, groups, host, sinks, .. } = &mut joined.driver;
        governor.apply(vec![input(10 + i as u64, command)], groups, host, sinks).expect("applied");
    }
    assert_eq!(joined.view.level().get(), FeatureLevel(2));
    let Driver { governor, groups, host, sinks, .. } = &mut joined.driver;
    let beyond = governor.apply(vec![input(20, &Command::RaiseFeatureLevel(FeatureLevel(4)))], groups, host, sinks);
    assert!(beyond.is_err_and(|error| error.is_config() && error.to_string().contains("start a newer version")));
}

/// Nobody would refuse such a node if it is the only one.
#[test]
fn a_leader_ends_if_its_version_no_longer_supports_the_level_of_the_cluster() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    drop(founder);
    let top = FeatureRange::SUPPORTED.max().0;
    let mut newer = Founder::try_start(dir.path(), "n1", supports(top + 1, top + 2)).expect("recovered");
    let until = Instant::now() + Duration::from_secs(20);
    let error = loop {
        if let Err(error) = newer.driver.tick() {
            break error;
        }
        newer.driver.take_completions();
        newer.driver.perform().expect("performed");
        newer.driver.waker.wait_until(Instant::now() + Duration::from_millis(1));
        assert!(Instant::now() < until, "it leads, and goes on");
    };
    assert!(error.is_config() && error.to_string().contains("start an older version"), "{error}");
}
