//! Armed: what a program with fail points does at them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, io};

const FAULTS: &str = "PLATFORMER_FAULTS";
const DIRECTORY: &str = "PLATFORMER_FAULTS_DIR";
const OFFSET: &str = "PLATFORMER_CLOCK_OFFSET_MS";
/// How often a paused point looks whether it may go on.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Pause,
    Error,
}

/// How often each point was passed under the text in force.
struct Hits {
    text: String,
    counts: BTreeMap<String, u32>,
}

static HITS: Mutex<Hits> = Mutex::new(Hits { text: String::new(), counts: BTreeMap::new() });

impl Hits {
    /// A new text counts from the beginning.
    fn count(&mut self, text: &str, name: &str) -> u32 {
        if self.text != text {
            text.clone_into(&mut self.text);
            self.counts.clear();
        }
        let count = self.counts.entry(name.to_owned()).or_default();
        *count += 1;
        *count
    }
}

pub(super) fn pass(name: &str) -> io::Result<()> {
    let Some(text) = setting(FAULTS) else { return Ok(()) };
    let hit = HITS.lock().unwrap_or_else(PoisonError::into_inner).count(&text, name);
    match action(&text, name, hit) {
        None => Ok(()),
        Some(Action::Kill) => kill(),
        Some(Action::Pause) => {
            tracing::warn!(point = name, "paused, as the test asks");
            blocking(|| pause(name))
        }
        Some(Action::Error) => Err(io::Error::other(format!("{name} fails, as the test asks"))),
    }
}

pub(super) fn offset_ms() -> i64 {
    setting(OFFSET).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A variable, or what stands in the file that it names with `@`.
fn setting(name: &str) -> Option<String> {
    let text = env::var(name).ok()?;
    let text = match text.strip_prefix('@') {
        Some(path) => fs::read_to_string(path).ok()?,
        None => text,
    };
    Some(text.trim().to_owned())
}

/// What `text` says about the `hit`-th time at `name`.
fn action(text: &str, name: &str, hit: u32) -> Option<Action> {
    text.split(',').find_map(|one| {
        let (point, action) = one.trim().split_once('=')?;
        let (action, at) = action.split_once('@').unwrap_or((action, "1"));
        (point == name && at.parse() == Ok(hit)).then_some(match action {
            "kill" => Action::Kill,
            "pause" => Action::Pause,
            "error" => Action::Error,
            // A mistyped test must not pass for nothing.
            other => panic!("{FAULTS} asks {other} of {point}, which is no action"),
        })
    })
}

/// Nothing after this runs, in no thread.
fn kill() -> ! {
    let own = rustix::process::getpid();
    loop {
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        std::thread::sleep(LOOK_PAUSE);
    }
}

fn pause(name: &str) -> io::Result<()> {
    let directory = env::var_os(DIRECTORY).ok_or_else(|| io::Error::other(format!("{DIRECTORY} is not set")))?;
    let marker = PathBuf::from(directory).join(name);
    fs::write(&marker, b"")?;
    while marker.exists() {
        std::thread::sleep(LOOK_PAUSE);
    }
    Ok(())
}

/// Other tasks go on meanwhile, where the runtime has other threads.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    let many = tokio::runtime::Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
    if many { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_acts_once_at_its_hit() {
        let text = "a.b=kill, a=pause@2,c=error";
        assert_eq!(action(text, "a.b", 1), Some(Action::Kill));
        assert_eq!(action(text, "a.b", 2), None);
        assert_eq!([1, 2, 3].map(|hit| action(text, "a", hit)), [None, Some(Action::Pause), None]);
        assert_eq!(action(text, "c", 1), Some(Action::Error));
        assert_eq!(action("", "c", 1), None);
    }

    #[test]
    fn a_new_text_counts_anew() {
        let mut hits = Hits { text: String::new(), counts: BTreeMap::new() };
        assert_eq!(["x", "x", "y", "x"].map(|text| hits.count(text, "a")), [1, 2, 1, 1]);
    }

    /// Without variables nothing happens, also where points can do something.
    #[test]
    fn unarmed_points_are_passed() {
        assert!(pass("never.armed").is_ok());
        assert_eq!(offset_ms(), 0);
    }
}
