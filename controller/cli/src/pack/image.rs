//! The id that an image has once its docker-archive is loaded: the SHA-256 of its config file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use appbase_core::Digest;
use serde::Deserialize;

use crate::error::Failure;

/// `manifest.json` and an image's config are small documents.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Config")]
    config: String,
}

/// Reads the archive twice: `manifest.json` names the config and mostly comes last.
pub(super) fn id(file: &mut File, path: &Path) -> Result<String, Failure> {
    let wrong = |what: &str| {
        Failure::input(format!("{} {what}", path.display()))
            .hint("try", "docker save -o image.tar IMAGE   for an image, or tar -czf app.tar.gz … for an artifact")
    };
    let read = |error: io::Error| wrong(&format!("is not a sound tar: {error}"));
    let Some(manifest) = member(file, "manifest.json").map_err(read)? else {
        return Err(wrong("is a tar without manifest.json, so it is no image"));
    };
    let listed: Vec<Listed> = serde_json::from_slice(&manifest)
        .map_err(|error| wrong(&format!("has a manifest.json that cannot be read: {error}")))?;
    let [image] = listed.as_slice() else {
        return Err(wrong(&format!("holds {} images, a version is one", listed.len())));
    };
    let Some(config) = member(file, &image.config).map_err(read)? else {
        return Err(wrong("does not hold the config that its manifest.json names"));
    };
    Ok(Digest::of(&config).to_string())
}

fn member(file: &mut File, name: &str) -> io::Result<Option<Vec<u8>>> {
    file.seek(SeekFrom::Start(0))?;
    for entry in tar::Archive::new(&mut *file).entries_with_seek()? {
        let entry = entry?;
        if entry.path()? != Path::new(name) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes)?;
        return Ok(Some(bytes));
    }
    Ok(None)
}
