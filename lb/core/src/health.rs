//! Health: when an instance is up.
//!
//! ```text
//!            rise passes            fall failures
//! Pending ───────────────► Up ───────────────────► Down
//!    │                      ▲                       │ ▲
//!    │                      └────── rise passes ────┘ │
//!    └──────────────── fall failures ─────────────────┘
//! ```
//! Until it was up once, failures in the probe's startup time make nobody down: an app may take long to start.
//! Presumed: it was active before lb's own restart. Its first probe alone decides then, and requests wait for that.

use std::time::Duration;

use appbase_core::v1::{Health, Probe};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthMachine {
    health: Health,
    /// In a row.
    passes: u32,
    failures: u32,
    presumed: bool,
    /// When it became known; none once it was up.
    starts_since: Option<Duration>,
    up_since: Duration,
}

impl HealthMachine {
    /// Nobody has asked it yet: no traffic.
    pub fn pending(now: Duration) -> Self {
        let (health, starts_since, up_since) = (Health::Pending, Some(now), Duration::ZERO);
        Self { health, passes: 0, failures: 0, presumed: false, starts_since, up_since }
    }

    /// It had traffic before lb restarted: the first pass or failure is enough.
    pub fn presumed() -> Self {
        Self { presumed: true, starts_since: None, ..Self::pending(Duration::ZERO) }
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// Pending, and nothing failed yet: its first probe decides, and that is a matter of moments.
    pub fn is_undecided(&self) -> bool {
        self.health == Health::Pending && self.failures == 0
    }

    /// It was up once, or before lb's own restart.
    pub fn was_up(&self) -> bool {
        self.starts_since.is_none()
    }

    /// How long it is up without a break; zero unless up.
    pub fn up_for(&self, now: Duration) -> Duration {
        if self.health == Health::Up { now.saturating_sub(self.up_since) } else { Duration::ZERO }
    }

    /// A probe passed. True when the health changed.
    pub fn passed(&mut self, probe: &Probe, now: Duration) -> bool {
        self.failures = 0;
        self.passes = self.passes.saturating_add(1);
        let enough = self.passes >= probe.rise || self.presumed;
        if self.health == Health::Up || !enough {
            return false;
        }
        self.presumed = false;
        self.starts_since = None;
        self.health = Health::Up;
        self.up_since = now;
        true
    }

    /// A probe or a connection failed. True when the health changed.
    pub fn failed(&mut self, probe: &Probe, now: Duration) -> bool {
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        let startup = Duration::from_millis(probe.startup_ms);
        let starts = self.starts_since.is_some_and(|since| now.saturating_sub(since) < startup);
        let enough = (self.failures >= probe.fall && !starts) || self.presumed;
        if self.health == Health::Down || !enough {
            return false;
        }
        self.presumed = false;
        self.health = Health::Down;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a machine over `p` (pass) and `f` (failure), one a second, and says what it is after each.
    fn run(machine: HealthMachine, events: &str) -> String {
        run_starting(machine, 0, events)
    }

    fn run_starting(mut machine: HealthMachine, startup_ms: u64, events: &str) -> String {
        let probe = Probe { rise: 2, fall: 3, startup_ms, ..Probe::default() };
        let letter = |health| match health {
            Health::Pending => '?',
            Health::Up => 'U',
            Health::Down => 'D',
        };
        events
            .chars()
            .enumerate()
            .map(|(second, event)| {
                let before = machine.health();
                let now = Duration::from_secs(second as u64);
                let changed = if event == 'p' { machine.passed(&probe, now) } else { machine.failed(&probe, now) };
                assert_eq!(changed, before != machine.health(), "says so exactly when it changed");
                letter(machine.health())
            })
            .collect()
    }

    #[test]
    fn rise_and_fall_count_in_a_row() {
        for (events, expect) in [
            ("pp", "?U"),
            ("pfpp", "???U"),
            ("fff", "??D"),
            ("ppffpff", "?UUUUUU"),
            ("ppfffp", "?UUUDD"),
            ("fffpp", "??DDU"),
        ] {
            assert_eq!(run(HealthMachine::pending(Duration::ZERO), events), expect, "{events}");
        }
    }

    #[test]
    fn of_a_presumed_one_the_first_answer_decides() {
        assert_eq!(run(HealthMachine::presumed(), "fp"), "DD");
        assert_eq!(run(HealthMachine::presumed(), "pfff"), "UUUD");
    }

    #[test]
    fn who_starts_has_its_startup_time_once() {
        let starting = |events| run_starting(HealthMachine::pending(Duration::ZERO), 5_000, events);
        assert_eq!(starting("fffffff"), "?????DD", "from the fifth second on");
        assert_eq!(starting("fffppfff"), "????UUUD", "once it was up, it is no longer starting");
        assert_eq!(run_starting(HealthMachine::presumed(), 5_000, "f"), "D");
    }

    #[test]
    fn undecided_ends_with_the_first_pass_or_failure_that_counts() {
        let probe = Probe { rise: 2, fall: 3, startup_ms: 0, ..Probe::default() };
        let mut machine = HealthMachine::pending(Duration::ZERO);
        assert!(machine.is_undecided());
        machine.passed(&probe, Duration::ZERO);
        assert!(machine.is_undecided(), "one of two passes");
        machine.failed(&probe, Duration::ZERO);
        assert!(machine.health() == Health::Pending && !machine.is_undecided());
        let mut presumed = HealthMachine::presumed();
        assert!(presumed.is_undecided());
        presumed.failed(&probe, Duration::ZERO);
        assert_eq!((presumed.health(), presumed.is_undecided()), (Health::Down, false));
    }

    #[test]
    fn up_time_begins_again_after_a_break() {
        let probe = Probe { rise: 1, fall: 1, ..Probe::default() };
        let second = Duration::from_secs;
        let mut machine = HealthMachine::pending(second(3));
        machine.passed(&probe, second(3));
        machine.passed(&probe, second(4));
        assert_eq!(machine.up_for(second(5)), second(2));
        machine.failed(&probe, second(6));
        assert_eq!(machine.up_for(second(6)), Duration::ZERO);
        machine.passed(&probe, second(7));
        assert_eq!(machine.up_for(second(8)), second(1));
    }
}
