//! Children: reaping all of them, signals to the app's group, and leaving none behind.

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, wait};

/// How a process ended: one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

/// Reaps everything that has ended; answers how `app` did, when it is among them.
pub(crate) fn reap(app: Option<Pid>) -> Option<Ended> {
    let mut answer = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let ended = Ended { code: status.exit_status(), signal: status.terminating_signal() };
        if Some(pid) == app && (ended.code.is_some() || ended.signal.is_some()) {
            answer = Some(ended);
        }
    }
    answer
}

/// The app leads a process group of its own, so that its children get the signal as well.
pub(crate) fn signal_group(app: Pid, signal: Signal) {
    // No such group: it has just ended, and its end is on the way here.
    let _ = kill_process_group(app, signal);
}

/// Ends what an app left behind when its first process ended: it would hold the port, or run on unseen.
pub(crate) fn end_leftovers(app: Pid) {
    signal_group(app, Signal::KILL);
    // Ended children hand their own children to boot, so each round goes one generation deeper.
    const ROUNDS_MAX: usize = 16;
    for _ in 0..ROUNDS_MAX {
        reap(None);
        let me = getpid().as_raw_nonzero().get();
        let mine: Vec<i32> = kit::process::all().iter().filter(|stat| stat.parent == me).map(|stat| stat.pid).collect();
        if mine.is_empty() {
            return;
        }
        for pid in mine.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
