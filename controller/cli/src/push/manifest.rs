//! The manifest of a version: an OCI image manifest whose config is the version document.

use appbase_core::Digest;
use appbase_core::v1::media;
use serde::{Deserialize, Serialize};

/// As much of an OCI image manifest as versions use. Field order is the order of the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    pub(crate) artifact_type: String,
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// The bytes of a version's manifest: the same for the same config and layers (media type, digest, size).
pub(crate) fn manifest(config: (Digest, u64), layers: &[(&str, Digest, u64)]) -> Vec<u8> {
    let descriptor = |media: &str, digest, size| Descriptor { media_type: media.to_owned(), digest, size };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        artifact_type: media::VERSION.to_owned(),
        config: descriptor(media::VERSION, config.0, config.1),
        layers: layers.iter().map(|(media, digest, size)| descriptor(media, *digest, *size)).collect(),
    };
    serde_json::to_vec(&manifest).expect("a manifest is text and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_fixed() {
        let text = manifest((Digest::of(b"c"), 1), &[(media::LAYER, Digest::of(b"l"), 1)]);
        assert_eq!(
            String::from_utf8(text).expect("text"),
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""artifactType":"application/vnd.platformer.version.v1+json","#,
                r#""config":{"mediaType":"application/vnd.platformer.version.v1+json","#,
                r#""digest":"sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6","size":1},"#,
                r#""layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","#,
                r#""digest":"sha256:acac86c0e609ca906f632b0e2dacccb2b77d22b0621f20ebece1a4835b93f6f0","size":1}]}"#
            )
        );
    }
}
