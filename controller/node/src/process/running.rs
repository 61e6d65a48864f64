//! Running: which processes are an instance's, and signals to exactly those.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use appbase_core::v1::InstanceState;
use kit::process::Stat;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::directory;

pub(super) const STATE: &str = "state.json";
/// In the environment of boot, and by boot of its app: the instance's directory. Tells its processes from strangers after boot was killed.
pub(super) const MARK: &str = "PLATFORM_INSTANCE_DIRECTORY";

/// The boot that last said something in a directory.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    pub(super) state: InstanceState,
    directory: PathBuf,
}

/// None when none was ever started there.
pub(super) fn boot(directory: &Path) -> io::Result<Option<Boot>> {
    let state: Option<InstanceState> = directory::read(&directory.join(STATE))?;
    Ok(state.map(|state| Boot { state, directory: directory.to_path_buf() }))
}

impl Boot {
    pub(super) fn is(&self, pid: u32) -> bool {
        u32::try_from(self.state.boot_pid) == Ok(pid)
    }

    /// Pid and start time name it for ever: a stranger with its pid is not it.
    pub(super) fn runs(&self) -> bool {
        kit::process::runs(self.state.boot_pid, self.state.boot_start_ticks)
    }

    /// The processes of boot's session, boot among them. A session's number is free again once all of it has ended, so
    /// without its leader only those count that carry the instance's mark.
    pub(super) fn members(&self) -> Vec<Stat> {
        let led = self.runs();
        let mut all = kit::process::all();
        all.retain(|stat| {
            let in_session = stat.session == self.state.boot_pid && stat.start_ticks >= self.state.boot_start_ticks;
            in_session && !stat.zombie && (led || self.marked(stat.pid))
        });
        all
    }

    fn marked(&self, pid: i32) -> bool {
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
        let mark = [MARK.as_bytes(), b"=", self.directory.as_os_str().as_bytes()].concat();
        environment.split(|b| *b == 0).any(|variable| variable == mark)
    }

    pub(super) fn signal(&self, signal: Signal) {
        send(self.state.boot_pid, self.state.boot_start_ticks, signal);
    }

    pub(super) fn signal_members(&self, signal: Signal) {
        for stat in self.members() {
            send(stat.pid, stat.start_ticks, signal);
        }
    }

    /// The app's process group, as boot last named it.
    pub(super) fn signal_app(&self, signal: Signal) {
        let now = boot(&self.directory).ok().flatten().and_then(|boot| boot.state.app_pid);
        let app = now.filter(|app| self.members().iter().any(|stat| stat.group == *app));
        if let Some(group) = app.and_then(Pid::from_raw) {
            // It may have ended this moment.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// The descriptor holds the process; the look after opening it tells whether it is the right one.
fn send(pid: i32, start_ticks: u64, signal: Signal) {
    let Some(number) = Pid::from_raw(pid) else { return };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return };
    if kit::process::runs(pid, start_ticks) {
        let _ = pidfd_send_signal(process, signal);
    }
}
