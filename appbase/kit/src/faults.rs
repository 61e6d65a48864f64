//! Faults: named points at which a test makes this program die, wait or fail, and a wall clock that is wrong.
//!
//! Only with the cargo feature `faults`, which no program for users has: without it a point is nothing, the clock is the
//! machine's, and no variable is read. `tests/build.sh` builds the programs with it beside the others.
//!
//! `PLATFORMER_FAULTS` is `point=action[@hit]`, several separated by commas, or `@FILE` with such a text in the file: it is
//! read at each point, so that a running program can be armed. Each acts once, at its `hit`-th time (the first unless
//! given) since that text is in force.
//!
//! | action | what happens |
//! | --- | --- |
//! | `kill` | SIGKILL to this program |
//! | `pause` | makes the file `<point>` in `PLATFORMER_FAULTS_DIR` and goes on once that is gone |
//! | `error` | [`fails`] answers an error; [`point`] goes on |
//!
//! `PLATFORMER_CLOCK_OFFSET_MS` is added to wall time; it may be `@FILE` as well.
//!
//! The crate `fail` was left out: it cannot kill, and what it holds up nobody outside the process can let go on.

#[cfg(any(test, feature = "faults"))]
mod armed;

/// Whether points do anything: what only finds out whether one is passed need not be done otherwise.
pub const ON: bool = cfg!(feature = "faults");

/// Passes a point.
#[inline]
pub fn point(name: &str) {
    let _ = fails(name);
}

/// Passes a point that can fail.
#[cfg(feature = "faults")]
pub fn fails(name: &str) -> std::io::Result<()> {
    armed::pass(name)
}

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn fails(_name: &str) -> std::io::Result<()> {
    Ok(())
}

/// Wall time as this program shall see it.
#[cfg(feature = "faults")]
pub(crate) fn shifted(unix_ms: u64) -> u64 {
    unix_ms.saturating_add_signed(armed::offset_ms())
}

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn shifted(unix_ms: u64) -> u64 {
    unix_ms
}
