//! Directory: what is written for an instance, whole and in one step.
//!
//! `instance.json` is boot's; `labels.json` and `request.json` (the request without its config) are the engine's. A
//! directory with neither of these is none of ours.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use appbase_core::InstanceId;
use controller_core::v1::compute::{CreateInstance, InstanceLabels};
use serde::{Deserialize, Serialize};

use super::failed;
use crate::ComputeError;

pub(super) const CONFIG: &str = "instance.json";
const LABELS: &str = "labels.json";
const REQUEST: &str = "request.json";
/// Names that no instance can have: unfinished ones and those on their way out.
const HIDDEN: &str = ".";

/// The directory of all instances.
#[derive(Debug)]
pub(super) struct Instances {
    root: PathBuf,
}

/// What was asked for, kept for people and as a second copy of the labels.
#[derive(Serialize, Deserialize)]
struct Request {
    labels: InstanceLabels,
    command: Vec<String>,
    limits: appbase_core::v1::Limits,
    stop_grace_ms: u64,
}

impl Instances {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let root = root.canonicalize()?;
        // What an engine before this one was making or removing when it ended.
        for entry in fs::read_dir(&root)?.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(HIDDEN)
                && let Err(error) = remove_tree(&path)
            {
                tracing::warn!(path = %path.display(), %error, "what an instance left cannot be removed");
            }
        }
        Ok(Self { root })
    }

    pub(super) fn path(&self, id: &InstanceId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn hidden(&self, id: &InstanceId, why: &str) -> PathBuf {
        self.root.join(format!("{HIDDEN}{why}-{id}"))
    }

    /// All that may be instances, in order of their names.
    pub(super) fn list(&self) -> Result<Vec<InstanceId>, ComputeError> {
        let fail = |error: io::Error| failed("read", &self.root, &error);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            ids.extend(name.to_str().and_then(|name| InstanceId::parse(name).ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// None: no directory, or none that an engine made. Labels that cannot be read are an error, never none: what is
    /// unknown must not look absent.
    pub(super) fn labels(&self, id: &InstanceId) -> Result<Option<InstanceLabels>, ComputeError> {
        let directory = self.path(id);
        let fail = |error: io::Error| failed("read the labels of", &directory, &error);
        let copy = || read::<Request>(&directory.join(REQUEST));
        match read(&directory.join(LABELS)) {
            Ok(Some(labels)) => Ok(Some(labels)),
            Ok(None) => Ok(copy().map_err(fail)?.map(|request| request.labels)),
            Err(error) => match copy() {
                Ok(Some(request)) => Ok(Some(request.labels)),
                _ => Err(fail(error)),
            },
        }
    }

    /// Why `labels.json` cannot be read although the labels are known.
    pub(super) fn damage(&self, id: &InstanceId) -> Option<String> {
        let path = self.path(id).join(LABELS);
        match read::<InstanceLabels>(&path) {
            Ok(Some(_)) => None,
            Ok(None) => Some(format!("{} is missing; its copy in {REQUEST} is used", path.display())),
            Err(error) => Some(format!("{} is damaged ({error}); its copy in {REQUEST} is used", path.display())),
        }
    }

    pub(super) fn create(&self, request: &CreateInstance) -> Result<(), ComputeError> {
        let directory = self.path(&request.id);
        let new = self.hidden(&request.id, "new");
        let made = self.write(&new, request).and_then(|()| {
            if directory.exists() {
                return Err(io::Error::other("a directory with that name is there and has no labels: move it away"));
            }
            fs::rename(&new, &directory)?;
            kit::durable::sync_directory_of(&directory)
        });
        made.map_err(|error| {
            let _ = fs::remove_dir_all(&new);
            failed("create", &directory, &error)
        })
    }

    fn write(&self, new: &Path, request: &CreateInstance) -> io::Result<()> {
        if new.exists() {
            fs::remove_dir_all(new)?;
        }
        DirBuilder::new().mode(0o700).create(new)?;
        let kept = Request {
            labels: request.labels.clone(),
            command: request.command.clone(),
            limits: request.limits.clone(),
            stop_grace_ms: request.stop_grace_ms,
        };
        write(&new.join(CONFIG), &request.config)?;
        write(&new.join(REQUEST), &kept)?;
        write(&new.join(LABELS), &request.labels)
    }

    /// Out of sight in one step, then away.
    pub(super) fn remove(&self, id: &InstanceId) -> Result<(), ComputeError> {
        let directory = self.path(id);
        // A name of its own: what could not be removed earlier is in nobody's way.
        let away = self.hidden(id, &format!("removed-{}", kit::random::hex::<4>()));
        let removed = fs::rename(&directory, &away).and_then(|()| remove_tree(&away));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| failed("remove", &directory, &error)),
        }
    }
}

/// Also what an app made read-only, as some module caches are.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_directories(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Gives this user all rights on a directory and all below it. Links are not followed.
fn open_directories(root: &Path) -> io::Result<()> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    kit::durable::replace(path, &serde_json::to_vec(value)?).map_err(io::Error::other)
}

/// None: no such file.
pub(super) fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_app_made_read_only_can_be_removed() {
        let place = tempfile::tempdir().expect("a directory");
        let (cache, outside) = (place.path().join("tree/cache/module"), place.path().join("outside"));
        fs::create_dir_all(&cache).expect("made");
        fs::create_dir(&outside).expect("made");
        fs::write(cache.join("file"), "text").expect("written");
        std::os::unix::fs::symlink(&outside, cache.join("link")).expect("linked");
        for path in [&cache, &outside] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).expect("read-only");
        }
        open_directories(&place.path().join("tree")).expect("opened");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&cache), mode(&outside)), (0o700, 0o555), "links are not followed");
        remove_tree(&place.path().join("tree")).expect("removed");
        assert!(!cache.exists() && outside.exists());
    }
}
