//! Claim, swap and drain in every order that two or three cores may bring them into, by loom: the gate's own file is read
//! with loom's atomics. What stands around it here is the order that lb's balancer keeps: open, store, close.

#[path = "../src/gate/count.rs"]
mod count;

use atomics::{AtomicBool, AtomicU64, Ordering};
use count::Count;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// loom takes SeqCst of a read or a write for less than it is, and of a fence for what it is: so each stands between two.
mod atomics {
    pub(crate) use std::sync::atomic::Ordering;

    use loom::sync::atomic::{AtomicBool as Flag, AtomicU64 as Number, fence};

    fn fenced<T>(order: Ordering, act: impl FnOnce() -> T) -> T {
        let fence = || {
            if order == Ordering::SeqCst {
                fence(order);
            }
        };
        fence();
        let done = act();
        fence();
        done
    }

    #[derive(Debug)]
    pub(crate) struct AtomicBool(Flag);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(Flag::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> bool {
            fenced(order, || self.0.load(order))
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            fenced(order, || self.0.store(value, order));
        }
    }

    #[derive(Debug)]
    pub(crate) struct AtomicU64(Number);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(Number::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            fenced(order, || self.0.load(order))
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            fenced(order, || self.0.store(value, order));
        }

        pub(crate) fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
            fenced(order, || self.0.fetch_add(more, order))
        }

        pub(crate) fn fetch_sub(&self, less: u64, order: Ordering) -> u64 {
            fenced(order, || self.0.fetch_sub(less, order))
        }
    }
}

/// An instance: who is inside uses it, who saw it drained stops it. loom tells when both happen at once, the flag when
/// one comes after the other.
struct Instance {
    in_use: UnsafeCell<()>,
    stopped: AtomicBool,
}

impl Instance {
    fn new() -> Self {
        Self { in_use: UnsafeCell::new(()), stopped: AtomicBool::new(false) }
    }

    fn carry(&self) {
        self.in_use.with(|_| ());
        assert!(!self.stopped.load(Ordering::Acquire), "a request got in after the drain was over");
    }

    fn stop(&self) {
        self.in_use.with_mut(|_| ());
        self.stopped.store(true, Ordering::Release);
    }
}

const BLUE: usize = 0;
const GREEN: usize = 1;

/// Both slots of one app, and the snapshot: which of them takes requests.
struct World {
    gates: [Count; 2],
    instances: [Instance; 2],
    snapshot: AtomicU64,
    /// How often whoever waits for an empty gate was told to look.
    told: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let gates = [Count::new(), Count::new()];
        gates[GREEN].close();
        let instances = [Instance::new(), Instance::new()];
        Arc::new(Self { gates, instances, snapshot: AtomicU64::new(BLUE as u64), told: AtomicU64::new(0) })
    }

    /// One request, which may find so many gates that closed this instant: each was of a snapshot that was not the newest.
    fn ask(&self, refused_max: usize) {
        for _ in 0..=refused_max {
            let chosen = self.snapshot.load(Ordering::Acquire) as usize;
            let entered = self.gates[chosen].enter();
            if entered {
                self.instances[chosen].carry();
            }
            if self.gates[chosen].leave() {
                self.told.fetch_add(1, Ordering::SeqCst);
            }
            if entered {
                return;
            }
        }
        panic!("refused more often than tables flipped");
    }

    fn flip(&self, from: usize, to: usize) {
        self.gates[to].open();
        self.snapshot.store(to as u64, Ordering::Release);
        self.gates[from].close();
        self.told.fetch_add(1, Ordering::SeqCst);
    }

    fn stop_when_drained(&self, which: usize) {
        if self.gates[which].is_empty() {
            self.instances[which].stop();
        }
    }
}

fn client(world: &Arc<World>, refused_max: usize) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || world.ask(refused_max))
}

#[test]
fn nobody_is_inside_of_what_was_seen_to_be_drained_and_one_flip_refuses_nobody_twice() {
    loom::model(|| {
        let world = World::new();
        let client = client(&world, 1);
        world.flip(BLUE, GREEN);
        world.stop_when_drained(BLUE);
        client.join().expect("no panic");
        assert!(world.gates[BLUE].is_empty() && world.gates[GREEN].inside() == 0);
    });
}

#[test]
fn of_two_clients_as_well() {
    // Three threads meet in more orders than anybody can wait for; two changes of the thread show every pair.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let world = World::new();
        let clients = [client(&world, 1), client(&world, 1)];
        world.flip(BLUE, GREEN);
        world.stop_when_drained(BLUE);
        for client in clients {
            client.join().expect("no panic");
        }
    });
}

#[test]
fn there_and_back_again_leaves_a_gate_open() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new();
        let client = client(&world, 2);
        world.flip(BLUE, GREEN);
        world.flip(GREEN, BLUE);
        world.stop_when_drained(GREEN);
        client.join().expect("no panic");
    });
}

#[test]
fn who_waits_for_the_last_one_is_told() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new();
        let client = client(&world, 1);
        let waiter = {
            let world = Arc::clone(&world);
            // What `Gate::emptied` does before it sleeps. It is awake again when the number has changed.
            thread::spawn(move || {
                let before = world.told.load(Ordering::SeqCst);
                (before, world.gates[BLUE].is_empty())
            })
        };
        world.flip(BLUE, GREEN);
        client.join().expect("no panic");
        let (before, was_empty) = waiter.join().expect("no panic");
        assert!(world.gates[BLUE].is_empty());
        assert!(was_empty || world.told.load(Ordering::SeqCst) > before, "it sleeps for ever beside an empty gate");
    });
}

/// The model can fail: whoever closes before it stores leaves a client without a gate.
#[test]
#[should_panic(expected = "refused more often than tables flipped")]
fn a_close_before_the_store_is_found() {
    loom::model(|| {
        let world = World::new();
        world.gates[GREEN].open();
        let client = client(&world, 1);
        world.gates[BLUE].close();
        world.snapshot.store(GREEN as u64, Ordering::Release);
        client.join().expect("no panic");
    });
}

/// And so can the gate: whoever looks before it is counted is missed by the close.
#[test]
#[should_panic]
fn a_look_before_the_count_is_found() {
    loom::model(|| {
        let world = World::new();
        let client = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                if !world.gates[BLUE].is_closed() {
                    world.gates[BLUE].enter();
                    world.instances[BLUE].carry();
                    world.gates[BLUE].leave();
                }
            })
        };
        world.flip(BLUE, GREEN);
        world.stop_when_drained(BLUE);
        client.join().expect("no panic");
    });
}
