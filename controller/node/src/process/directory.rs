//! Directory: what is written for an instance, whole and in one step.
//!
//! `instance.json` is boot's; `labels.json` and `request.json` (the request without its config) are the engine's. A
//! directory with neither of these is none of ours.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
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
            if entry.file_name().to_string_lossy().starts_with(HIDDEN) {
                fs::remove_dir_all(entry.path())?;
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
        let away = self.hidden(id, "removed");
        let removed = remove_tree(&away).and_then(|()| fs::rename(&directory, &away)).and_then(|()| remove_tree(&away));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| failed("remove", &directory, &error)),
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
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
