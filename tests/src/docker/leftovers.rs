//! Names of a test's platform, and taking away all that carries one: its own at the end, and at the start what a run
//! that was killed left.
//!
//! A name says which process made it, so what belongs to a test that runs just now is never touched.

use std::sync::atomic::{AtomicU32, Ordering};

use super::command::{each, list, try_docker};

/// On everything: the parts and the harness's own carry it from here, instances and networks from the controller.
pub(crate) const PROJECT: &str = "io.platformer.project";

const PREFIX: &str = "ptest";

static MADE: AtomicU32 = AtomicU32::new(0);

/// A project of this process: `ptest-<pid namespace>-<pid>-<start ticks>-<number>`.
pub(crate) fn new_name() -> String {
    let pid = std::process::id().cast_signed();
    let ticks = kit::process::stat(pid).map_or(0, |stat| stat.start_ticks);
    format!("{PREFIX}-{}-{pid}-{ticks}-{}", namespace(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Process ids mean something within one namespace only; several may share an engine.
fn namespace() -> u64 {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

/// Whether a test made it that runs no more.
fn is_left(project: &str) -> bool {
    let mut words = project.split('-');
    let of = |words: &mut std::str::Split<'_, char>| words.next()?.parse::<u64>().ok();
    if words.next() != Some(PREFIX) || of(&mut words) != Some(namespace()) {
        return false;
    }
    let (Some(pid), Some(ticks)) = (of(&mut words), of(&mut words)) else { return false };
    i32::try_from(pid).is_ok_and(|pid| !kit::process::runs(pid, ticks))
}

/// Removes what tests left that were killed.
pub(crate) fn sweep() {
    let format = format!("{{{{.Label \"{PROJECT}\"}}}}");
    let filter = format!("label={PROJECT}");
    let mut projects = list(&["ps", "-a", "--filter", &filter, "--format", &format]);
    projects.extend(list(&["volume", "ls", "--filter", &filter, "--format", &format]));
    projects.extend(list(&["network", "ls", "--filter", &filter, "--format", &format]));
    let images = list(&["images", "--filter", &filter, "--format", "{{.Repository}}"]);
    projects.extend(images.iter().filter_map(|name| name.split('/').next()).map(str::to_owned));
    projects.retain(|project| is_left(project));
    projects.sort();
    projects.dedup();
    projects.iter().for_each(|project| remove(project));
}

/// Removes everything of a project. The controller goes first: it would make anew what is removed here.
pub(crate) fn remove(project: &str) {
    let _ = try_docker(&["rm", "-f", "-v", &format!("{project}-controller")]);
    let filter = format!("label={PROJECT}={project}");
    each(&["rm", "-f", "-v"], &list(&["ps", "-aq", "--filter", &filter]));
    each(&["network", "rm"], &list(&["network", "ls", "-q", "--filter", &filter]));
    each(&["volume", "rm", "-f"], &list(&["volume", "ls", "-q", "--filter", &filter]));
    each(&["rmi", "-f"], &list(&["images", "-q", "--filter", &filter]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_uses_is_left() {
        assert!(!is_left(&new_name()), "this process runs");
        let here = namespace();
        assert!(is_left(&format!("ptest-{here}-1-18446744073709551615-0")), "another process has that number now");
        for foreign in ["platformer", "ptest", "ptest-x-1-0", "other-1-2-3", "ptest-7-1-18446744073709551615-0"] {
            assert!(!is_left(foreign), "{foreign}");
        }
    }
}
