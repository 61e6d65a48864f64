//! The whole core in a fake world: seeded deployments, crashes, lost answers, members that come and go, and controllers
//! that end between any two writes. After every step the promises must hold; in the end everything must settle.

mod world;

use std::time::Duration;

use controller_core::plan::Step;
use controller_core::render;
use controller_core::v1::state::{EndState, Traffic};
use proptest::prelude::*;
use world::{INSTANCES, World};

fn story(seed: u64, steps: u64) {
    let mut world = World::new(seed);
    world.deploy(1, false);
    for _ in 0..steps {
        world.step(true);
    }
    world.settle();
}

#[test]
fn promises_hold_in_256_disturbed_worlds() {
    for seed in 0..256 {
        if let Err(panic) = std::panic::catch_unwind(|| story(seed, 300)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_quiet_deploy_flips_once_and_keeps_the_old_one_warm() {
    let mut world = World::new(7);
    world.deploy(1, false);
    (0..60).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(1));
    world.deploy(2, false);
    (0..40).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(2));
    let warm = world.run.instances.values().filter(|i| i.release == 1 && i.state == Traffic::Standby).count();
    assert_eq!(warm, INSTANCES as usize, "the old one stays warm");
    let before = world.revision;
    world.deploy(1, false);
    world.step(false);
    assert_eq!(render::live_release(&world.run), Some(1), "a warm rollback is one flip: one pass after {before}");
    assert!(world.served > 0, "requests went through all along");
}

#[test]
fn what_never_comes_up_is_aborted_and_the_old_one_serves() {
    let mut world = World::new(9);
    world.deploy(1, false);
    (0..60).for_each(|_| world.step(false));
    world.deploy(2, true);
    (0..100).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(1));
    let end = world.deployments.values().last().and_then(|deployment| deployment.end.as_ref()).expect("it ended");
    assert_eq!(end.state, EndState::Aborted);
    assert!(end.reason.as_deref().is_some_and(|reason| reason.contains("not all instances came up in time")));
    assert!(world.run.instances.values().all(|i| i.release == 1), "what was new is gone");
}

fn live_after_two_deploys(seed: u64) -> World {
    let mut world = World::new(seed);
    world.deploy(1, false);
    (0..60).for_each(|_| world.step(false));
    world.deploy(2, false);
    (0..40).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(2));
    world
}

/// The instances of an app that takes long to stop, stop at their own pace; the next ones have their whole deadline.
#[test]
fn the_deadline_begins_when_the_slot_is_free() {
    let mut world = live_after_two_deploys(13);
    world.dns = None;
    world.deploy(3, false);
    for _ in 0..90 {
        world.now += Duration::from_secs(1);
        world.controller(false);
        let (out, dns) = (world.published.clone(), world.dns);
        world.members();
        // A dns that takes nothing keeps the old instances draining.
        world.dns = dns;
        world.published = out;
    }
    let running = world.run.deployment.clone().expect("still waiting for the slot, far beyond 30 s");
    assert_eq!(world.deployments[&running].release, 3);
    (0..80).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(3));

    world.dns = None;
    world.deploy(4, false);
    for _ in 0..1300 {
        world.now += Duration::from_secs(1);
        world.controller(false);
        world.members();
        world.dns = None;
    }
    let end = world.deployments.values().last().and_then(|deployment| deployment.end.clone()).expect("it ended");
    assert_eq!(end.state, EndState::Aborted);
    assert!(end.reason.is_some_and(|reason| reason.contains("did not get free")));
}

/// Restarts of last week are no reason to throw the warm release away.
#[test]
fn a_warm_release_that_restarted_once_is_gone_back_to() {
    let mut world = live_after_two_deploys(15);
    for instance in world.engine.values_mut() {
        instance.restarts = 5;
    }
    for lb in world.lbs.values_mut() {
        lb.up_since.clear();
    }
    world.deploy(1, false);
    world.controller(false);
    (0..20).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(1));
}

/// What has a recorded name and is another instance makes way: nobody sends to where it is.
#[test]
fn what_is_not_as_recorded_is_made_anew() {
    let mut world = live_after_two_deploys(17);
    let (id, seen) = world.engine.iter_mut().find(|(_, seen)| seen.labels.release == 2).expect("it runs");
    let id = id.clone();
    seen.labels.address = Some("127.0.0.1:9".parse().expect("an address"));
    for lb in world.lbs.values_mut() {
        lb.up_since.remove(&id);
        lb.in_flight.clear();
    }
    let plan = world.plan();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::Stop { id: stopped, .. } if *stopped == id)), "{plan:?}");
}

/// Nothing tells the controller that an lb says nothing more: it must look again by itself.
#[test]
fn an_lb_that_falls_silent_holds_the_flip_up_only_while_it_counts() {
    let mut world = World::new(11);
    world.deploy(1, false);
    (0..60).for_each(|_| world.step(false));
    world.deploy(2, false);
    world.lbs.get_mut("lb-2").expect("there are two").reachable = false;
    let gone = world.now;
    (0..6).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(1), "lb-2 counts as reachable still");
    while render::live_release(&world.run) != Some(2) {
        world.controller(false);
        world.members();
        let wake = world.plan().wake.map_or(Duration::MAX, |(at, _)| at);
        world.now = wake.min(world.now + Duration::from_secs(30)).max(world.now + Duration::from_millis(50));
        assert!(world.now - gone < Duration::from_secs(12), "it waits for an lb that was given up long ago");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same input gives the same plan, whatever happened before.
    #[test]
    fn plans_are_equal_to_themselves(seed in any::<u64>(), steps in 1_u64..80) {
        let mut world = World::new(seed);
        world.deploy(1, false);
        (0..steps).for_each(|_| world.step(true));
        let addresses = world.addresses.clone();
        let first = world.plan();
        world.addresses = addresses;
        prop_assert_eq!(first, world.plan());
    }
}
