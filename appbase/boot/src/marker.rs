//! Marker: what is unpacked here, verified. Written last; while it matches, the repository is not needed.

use std::fs;
use std::io;

use appbase_core::v1::{InstanceSpec, Release, Source};
use appbase_core::{AppName, Digest, ProcessName};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) app: AppName,
    pub(crate) process: ProcessName,
    pub(crate) document: Digest,
    /// Layers unpacked in `app/`, each verified; empty for an image.
    pub(crate) layers: Vec<Digest>,
}

/// The layers that boot has to unpack for this spec.
pub(crate) fn layers(spec: &InstanceSpec) -> &[Digest] {
    match &spec.source {
        Source::Artifact { layers } => layers,
        Source::Image { .. } => &[],
    }
}

/// Reads what is here. None when there is nothing, or anything about it is not as it was verified.
pub(crate) fn read(directory: &Directory) -> Option<(Marker, Release)> {
    let marker: Marker = serde_json::from_slice(&fs::read(directory.marker()).ok()?).ok()?;
    let document = fs::read(directory.release()).ok()?;
    if Digest::of(&document) != marker.document {
        return None;
    }
    let release: Release = serde_json::from_slice(&document).ok()?;
    let spec = release.processes.get(&marker.process)?;
    let sound = layers(spec) == marker.layers && (marker.layers.is_empty() || directory.app().is_dir());
    sound.then_some((marker, release))
}

/// Makes what was unpacked durable first, so that the marker never says more than the disk holds.
pub(crate) fn write(directory: &Directory, marker: &Marker, document: &[u8]) -> io::Result<()> {
    kit::durable::replace(&directory.release(), document).map_err(io::Error::other)?;
    rustix::fs::syncfs(fs::File::open(directory.root())?)?;
    kit::durable::replace(&directory.marker(), &serde_json::to_vec(marker)?).map_err(io::Error::other)
}

pub(crate) fn remove(directory: &Directory) -> io::Result<()> {
    match fs::remove_file(directory.marker()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
