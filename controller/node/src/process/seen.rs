//! Seen: what the directories and /proc say of the instances.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use appbase_core::v1::InstanceExit;
use appbase_core::{ClusterId, InstanceId};
use controller_core::v1::compute::{InstanceLabels, InstancePhase, ObservedInstance};

use super::directory::{self, Instances};
use super::running::{self, Boot, STATE};
use crate::ComputeError;

const EXIT: &str = "exit.json";

pub(super) fn observe(instances: &Instances, cluster: &ClusterId) -> Result<Vec<ObservedInstance>, ComputeError> {
    let mut seen = Vec::new();
    for id in instances.list()? {
        match instances.labels(&id)? {
            Some(labels) if labels.cluster == *cluster => seen.push(one(instances, id, labels)),
            Some(_) | None => {}
        }
    }
    Ok(seen)
}

fn one(instances: &Instances, id: InstanceId, labels: InstanceLabels) -> ObservedInstance {
    let path = instances.path(&id);
    let damage = instances.damage(&id);
    let mut seen = ObservedInstance {
        id,
        labels,
        phase: InstancePhase::Created,
        restarts: 0,
        last_exit: None,
        problem: None,
        running_for_ms: 0,
    };
    match running::boot(&path) {
        Ok(None) => {}
        Ok(Some(boot)) => {
            let exit = || directory::read::<InstanceExit>(&path.join(EXIT)).ok().flatten();
            seen.restarts = boot.state.restarts;
            seen.last_exit = boot.state.last_exit.clone();
            seen.problem = boot.state.problem.clone();
            seen.phase = if boot.runs() { InstancePhase::Running } else { InstancePhase::Ended };
            if seen.phase == InstancePhase::Running {
                seen.running_for_ms = running_for_ms(&boot);
            } else if boot.state.phase != "ended" {
                seen.phase = InstancePhase::Lost;
                seen.last_exit = exit().or(seen.last_exit);
                seen.problem = Some(lost(&boot));
            }
        }
        // Written whole by renaming, so this is a disk's or a person's doing. Running is the answer that removes and
        // starts nothing.
        Err(error) => {
            seen.phase = InstancePhase::Running;
            seen.problem = Some(format!("cannot read {}: {error}", path.join(STATE).display()));
        }
    }
    seen.problem = seen.problem.or(damage);
    seen
}

/// boot always says when it ends itself.
fn lost(boot: &Boot) -> String {
    match boot.members().first() {
        Some(stat) => format!("boot was killed and its app still runs (pid {}); starting it again ends that", stat.pid),
        None => "boot was killed, or the machine was started again".to_owned(),
    }
}

/// Both times are of the machine's own clock since its start.
fn running_for_ms(boot: &Boot) -> u64 {
    let Some(app) = boot.state.app_pid.and_then(kit::process::stat) else { return 0 };
    let uptime = std::fs::read_to_string("/proc/uptime").ok();
    let Some(seconds) = uptime.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()) else { return 0 };
    let started_ms = app.start_ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an uptime is positive and far below 2^53"
    )]
    let up_ms = (seconds * 1000.0) as u64;
    up_ms.saturating_sub(started_ms)
}

/// By instance: changes whenever it may look different. Cheap, for it is asked several times a second.
pub(super) fn fingerprints(instances: &Instances) -> BTreeMap<InstanceId, (i64, i64, u64, bool)> {
    let ids = instances.list().unwrap_or_default();
    let fingerprint = |id: &InstanceId| {
        let path = instances.path(id);
        let state = std::fs::metadata(path.join(STATE)).ok();
        let (seconds, nanos, inode) = state.map_or((0, 0, 0), |file| (file.mtime(), file.mtime_nsec(), file.ino()));
        (seconds, nanos, inode, running::boot(&path).ok().flatten().is_some_and(|boot| boot.runs()))
    };
    ids.into_iter().map(|id| (id.clone(), fingerprint(&id))).collect()
}
