//! The whole core in a fake world: seeded deployments, crashes, lost answers, members that come and go, and controllers
//! that end between any two writes. After every step the promises must hold; in the end everything must settle.

mod world;

use std::time::Duration;

use controller_core::plan::Step;
use controller_core::render;
use controller_core::v1::state::{EndState, Split, Traffic};
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
    let warm = world.run.instances.values().filter(|i| i.release == 1 && i.state == Traffic::Warm).count();
    assert_eq!(warm, INSTANCES as usize, "the old one stays warm");
    let before = world.revision;
    world.deploy(1, false);
    world.step(false);
    assert_eq!(render::live_release(&world.run), Some(1), "a warm rollback is one flip: one pass after {before}");
    assert!(world.served > 0, "requests went through all along");
}

/// It waits as long as it takes, gets its share without a flip, and is live with one pass.
#[test]
fn a_staged_release_waits_and_is_made_live_with_one_flip() {
    let mut world = World::new(7);
    world.deploy(1, false);
    (0..60).for_each(|_| world.step(false));
    world.deploy(2, false);
    world.deployments.values_mut().filter(|d| d.end.is_none()).for_each(|deployment| deployment.stage = true);
    (0..1_000).for_each(|_| world.step(false));
    assert_eq!((render::live_release(&world.run), world.run.staged), (Some(1), Some(2)));
    let states = |world: &World, release| -> Vec<Traffic> {
        world.run.instances.values().filter(|i| i.release == release).map(|i| i.state).collect()
    };
    assert_eq!(states(&world, 2), [Traffic::Standby; 2], "no window ends for what is staged");
    let weights = |world: &World| -> Vec<u32> {
        world.section().expect("published").pools.values().map(|pool| pool.weight).collect()
    };
    assert_eq!(weights(&world), [100, 0]);
    world.desired.split = Some(Split { release: 2, percent: 30, ..Split::default() });
    assert_eq!(weights(&world), [70, 30]);
    (0..20).for_each(|_| world.step(false));
    world.deploy(2, false);
    world.step(false);
    assert_eq!((render::live_release(&world.run), world.run.staged), (Some(2), None));
    assert_eq!(weights(&world), [0, 100]);
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

/// The new ones start beside what is warm, which makes room as soon as they answer: nobody waits for it to stop, and if
/// they never answer it is still there.
#[test]
fn a_warm_release_makes_room_once_the_new_one_answers() {
    let mut world = live_after_two_deploys(13);
    let states = |world: &World, release| -> Vec<Traffic> {
        world.run.instances.values().filter(|i| i.release == release).map(|i| i.state).collect()
    };
    world.deploy(3, false);
    world.controller(false);
    assert_eq!(states(&world, 3), [Traffic::Standby; 2]);
    assert_eq!(states(&world, 1), [Traffic::Warm; 2]);
    while states(&world, 1).contains(&Traffic::Warm) {
        world.step(false);
    }
    assert!(world.run.deployment.is_some(), "traffic has not moved");

    let mut world = live_after_two_deploys(13);
    world.deploy(3, true);
    (0..45).for_each(|_| world.step(false));
    assert_eq!((world.run.deployment.clone(), world.run.aborted), (None, Some(3)));
    assert_eq!(states(&world, 1), [Traffic::Warm; 2]);
    world.deploy(1, false);
    (0..4).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(1), "one flip");
}

/// New ones that were given up may be in somebody's memory still; the next ones wait for that, and have their whole
/// deadline all the same.
#[test]
fn the_deadline_begins_when_the_slot_is_free() {
    let mut world = live_after_two_deploys(13);
    cancel_before_the_flip(&mut world, 3);
    world.deploy(4, false);
    // A dns that takes nothing keeps them draining.
    (0..90).for_each(|_| second_with_a_deaf_dns(&mut world));
    let running = world.run.deployment.clone().expect("still waiting for the slot, far beyond 30 s");
    assert_eq!(world.deployments[&running].release, 4);
    (0..80).for_each(|_| world.step(false));
    assert_eq!(render::live_release(&world.run), Some(4));

    cancel_before_the_flip(&mut world, 5);
    world.deploy(6, false);
    (0..1300).for_each(|_| second_with_a_deaf_dns(&mut world));
    let end = world.deployments.values().last().and_then(|deployment| deployment.end.clone()).expect("it ended");
    assert_eq!(end.state, EndState::Aborted);
    assert!(end.reason.is_some_and(|reason| reason.contains("did not get free")));
}

fn cancel_before_the_flip(world: &mut World, release: u64) {
    world.deploy(release, false);
    world.controller(false);
    let running = world.run.deployment.clone().expect("it has just begun");
    world.deployments.get_mut(&running).expect("recorded").cancel = true;
    world.controller(false);
    assert_eq!(world.run.deployment, None, "release {release} is cancelled");
}

fn second_with_a_deaf_dns(world: &mut World) {
    world.now += Duration::from_secs(1);
    world.dns = None;
    world.controller(false);
    world.members();
    world.dns = None;
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

/// Who goes back and thinks better of it can go back still.
#[test]
fn a_way_back_that_was_cancelled_is_there_still() {
    let mut world = live_after_two_deploys(18);
    let warm = |world: &World| world.run.instances.values().filter(|i| i.state == Traffic::Warm).count();
    assert_eq!(warm(&world), 2);
    world.deploy(1, false);
    let id = world.run.deployment.clone().expect("it runs");
    world.deployments.get_mut(&id).expect("recorded").cancel = true;
    (0..20).for_each(|_| world.step(false));
    assert_eq!((render::live_release(&world.run), warm(&world)), (Some(2), 2));
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

/// The same while old instances drain: people read whom they wait for.
#[test]
fn an_lb_that_falls_silent_is_named_while_old_instances_drain() {
    let mut world = World::new(12);
    world.deploy(1, false);
    (0..60).for_each(|_| world.step(false));
    world.deploy(2, false);
    while render::live_release(&world.run) != Some(2) {
        world.step(false);
    }
    world.lbs.get_mut("lb-2").expect("there are two").reachable = false;
    let mut gone = world.now;
    let mut said = String::new();
    while !said.contains("cannot stop: not heard of lb-2") {
        world.controller(false);
        world.members();
        let plan = world.plan();
        said = plan.report.join(", ");
        if plan.wake.is_some_and(|(_, why)| why == "name TTL") {
            // Its last word, still of the old table, comes when names are no reason to wait any more.
            let lb = world.lbs.get_mut("lb-2").expect("there are two");
            lb.said.as_mut().expect("it has spoken").1 = world.now;
            gone = world.now;
        }
        assert!(world.now - gone < Duration::from_secs(12), "that was late: {said}");
        let wake = plan.wake.map_or(Duration::MAX, |(at, _)| at);
        world.now = wake.min(world.now + Duration::from_secs(30)).max(world.now + Duration::from_millis(50));
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
