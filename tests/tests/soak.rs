//! Soak: deploys and rollbacks without end under load, while parts are killed at random points and at random times.
//! `make soak` runs it. The seed is printed; with it the same faults come in the same order.

use std::time::Duration;

use tests::faults::{NOT_WARM, POINTS, kill_with_boot};
use tests::{Load, Part, Platform};

/// `PLATFORMER_SOAK_SECONDS` and `PLATFORMER_SOAK_SEED` say otherwise.
const SECONDS: u64 = 600;
/// Deploys under one load; then its clients are made anew.
const ROUND: usize = 12;
const VERSIONS: [&str; 3] = ["1", "2", "3"];

/// Chance with a seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(count).expect("small")).expect("small")
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// The controller kills itself at a point.
    AtPoint(&'static str),
    /// These are killed while the controller waits at a point.
    Beside(&'static str, &'static [Part]),
    /// One instance that serves is killed while the controller waits at a point.
    Instance(&'static str),
    /// These are killed after some milliseconds.
    After(u64, &'static [Part]),
}

/// Never lb-1: the clients are connected to it.
const VICTIMS: [&[Part]; 5] = [
    &[Part::Lb2],
    &[Part::Dns],
    &[Part::Repository],
    &[Part::Dns, Part::Repository, Part::Lb2],
    &[Part::Controller, Part::Repository, Part::Dns, Part::Lb2],
];

impl Fault {
    fn choose(chance: &mut Chance, instances: bool) -> Self {
        let point = chance.of(&POINTS);
        let (kind, victims, after) = (chance.below(10), chance.of(&VICTIMS), chance.below(1500));
        match kind {
            0 => Self::None,
            1..=3 => Self::AtPoint(point),
            4 | 5 if instances => Self::Instance(point),
            4..=6 => Self::Beside(point, victims),
            _ => Self::After(u64::try_from(after).expect("small"), victims),
        }
    }

    fn arm(self, platform: &Platform) {
        match self {
            Self::None | Self::After(..) => platform.arm(""),
            Self::AtPoint(point) => platform.arm(&format!("{point}=kill")),
            Self::Beside(point, _) | Self::Instance(point) => platform.arm(&format!("{point}=pause")),
        }
    }

    fn happen(self, platform: &mut Platform) {
        match self {
            Self::None => {}
            Self::AtPoint(_) => {
                platform.wait_died(Part::Controller);
                platform.arm("");
                platform.start_part(Part::Controller);
            }
            Self::Beside(point, parts) => {
                platform.wait_paused(point);
                platform.arm("");
                parts.iter().for_each(|part| platform.kill(*part));
                // A paused controller that was killed left its mark.
                platform.go_on(point);
                parts.iter().for_each(|part| platform.start_part(*part));
            }
            Self::Instance(point) => {
                platform.wait_paused(point);
                platform.arm("");
                let status = platform.app("hello");
                let instances = status["instances"].as_array().cloned().unwrap_or_default();
                let serves = |id: &str| instances.iter().any(|one| one["id"] == id && one["state"] == "active");
                let victim = platform.app_processes().into_iter().find(|process| serves(&process.instance));
                victim.iter().for_each(kill_with_boot);
                platform.go_on(point);
            }
            Self::After(ms, parts) => {
                std::thread::sleep(Duration::from_millis(ms));
                parts.iter().for_each(|part| platform.kill(*part));
                parts.iter().for_each(|part| platform.start_part(*part));
            }
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[ignore = "runs for minutes: make soak"]
fn endless_deploys_with_random_faults_lose_nothing() {
    let clock = kit::Clock::start();
    let seed = number("PLATFORMER_SOAK_SEED").unwrap_or_else(|| clock.unix_ms());
    let length = Duration::from_secs(number("PLATFORMER_SOAK_SECONDS").unwrap_or(SECONDS));
    println!("soak: PLATFORMER_SOAK_SEED={seed} for {} s", length.as_secs());
    let mut chance = Chance(seed | 1);
    let mut platform = Platform::start_faulty();
    for version in VERSIONS {
        platform.push("hello", version, NOT_WARM);
    }
    platform.ctl_ok(&["deploy", "hello", "1"]);
    platform.wait_settled("hello", "1", 2);
    let (mut live, mut deploys, mut requests, mut rounds) = ("1", 0, 0, 0);
    while clock.elapsed() < length {
        rounds += 1;
        // What a killed instance may have carried out is not sent again: those rounds have no POSTs.
        let instances = rounds % 2 == 0;
        let lb = platform.lb();
        let load = if instances { Load::start_gets(lb, "hello") } else { Load::start(lb, "hello") };
        for _ in 0..ROUND {
            let others: Vec<_> = VERSIONS.into_iter().filter(|version| *version != live).collect();
            let (version, fault) = (chance.of(&others), Fault::choose(&mut chance, instances));
            let what = format!("seed {seed}, deploy {deploys} of {version} over {live}, {fault:?}");
            fault.arm(&platform);
            let mut deploy = platform.ctl_command(&["deploy", "hello", version, "--detach"]);
            let mut deploy =
                deploy.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().expect(&what);
            fault.happen(&mut platform);
            let code = deploy.wait().expect("platformctl ends").code();
            for part in Part::ALL {
                platform.wait_ready(part);
            }
            // Killed before it had the request: said so, and asked once more. (The same request twice is one deployment.)
            if code != Some(0) {
                platform.arm("");
                platform.ctl_ok(&["deploy", "hello", version, "--detach"]);
            }
            let settled =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| platform.wait_settled("hello", version, 2)));
            assert!(settled.is_ok(), "{what}: not settled");
            assert_eq!(load.failed(), 0, "{what}: {:?}", load.stop());
            assert_eq!(platform.history("hello")[0], (version.to_owned(), "done".to_owned()), "{what}");
            live = version;
            deploys += 1;
            if clock.elapsed() >= length {
                break;
            }
        }
        let tally = load.stop();
        assert_eq!(tally.failed, 0, "seed {seed}: {tally:?}");
        requests += tally.good;
        println!("soak: {:>4} s, {deploys} deploys, {requests} requests, 0 failed", clock.elapsed().as_secs());
    }
}
