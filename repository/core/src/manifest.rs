//! Manifests: what one is allowed to be, and what it refers to. The bytes stay as they were pushed.

use appbase_core::Digest;
use appbase_core::digest::DigestError;

use crate::v1::{DescriptorDocument, ManifestDocument, media};

/// The size OCI Distribution asks registries to accept; more is refused.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Docker itself stops at 127 layers; artifacts have a handful.
pub const ENTRIES_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest is larger than {MANIFEST_BYTES_MAX} bytes")]
    TooLarge,
    #[error("manifest is not readable: {0}")]
    Json(String),
    #[error("manifest has schema version {0}: only 2 is supported")]
    Schema(u32),
    #[error(
        "manifest type \"{0}\" is not supported: push an OCI image manifest or index, or Docker's schema 2 of either"
    )]
    MediaType(String),
    #[error("manifest says it is \"{inside}\" but was pushed as \"{outside}\"")]
    MediaTypesDiffer { inside: String, outside: String },
    #[error("manifest of type \"{media_type}\" lacks \"{field}\"")]
    Missing { media_type: String, field: &'static str },
    #[error("manifest refers to more than {ENTRIES_MAX} blobs")]
    TooMany,
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A blob or manifest as another one names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub media_type: String,
    pub artifact_type: Option<String>,
    pub content: Content,
    /// The manifest this one says something about; need not exist.
    pub subject: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Image { config: Descriptor, layers: Vec<Descriptor> },
    Index { manifests: Vec<Descriptor> },
}

impl Manifest {
    /// Reads the bytes of a manifest that was pushed with `content_type` (parameters are ignored).
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let document: ManifestDocument =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(error.to_string()))?;
        let outside = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
        Self::from_document(document, outside.filter(|text| !text.is_empty()))
    }

    fn from_document(document: ManifestDocument, outside: Option<String>) -> Result<Self, ManifestError> {
        if document.schema_version != 2 {
            return Err(ManifestError::Schema(document.schema_version));
        }
        let media_type = match (document.media_type, outside) {
            (Some(inside), Some(outside)) if inside != outside => {
                return Err(ManifestError::MediaTypesDiffer { inside, outside });
            }
            (Some(text), _) | (None, Some(text)) => text,
            (None, None) => media::OCI_MANIFEST.to_owned(),
        };
        let missing = |field| ManifestError::Missing { media_type: media_type.clone(), field };
        let content = match media_type.as_str() {
            media::OCI_MANIFEST | media::DOCKER_MANIFEST => Content::Image {
                config: document.config.ok_or_else(|| missing("config"))?.try_into()?,
                layers: descriptors(document.layers.ok_or_else(|| missing("layers"))?)?,
            },
            media::OCI_INDEX | media::DOCKER_LIST => {
                Content::Index { manifests: descriptors(document.manifests.ok_or_else(|| missing("manifests"))?)? }
            }
            _ => return Err(ManifestError::MediaType(media_type.chars().take(120).collect())),
        };
        let subject = document.subject.map(|subject| Digest::parse(&subject.digest)).transpose()?;
        Ok(Self { media_type, artifact_type: document.artifact_type, content, subject })
    }

    /// Blobs that must be stored before the manifest is. Layers that may not be distributed need not be.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        match &self.content {
            Content::Image { config, layers } => std::iter::once(config)
                .chain(layers.iter().filter(|layer| {
                    !layer.media_type.contains(".nondistributable.") && !layer.media_type.contains(".foreign.")
                }))
                .collect(),
            Content::Index { .. } => Vec::new(),
        }
    }

    /// Manifests that must be stored before this one is.
    pub fn manifests(&self) -> &[Descriptor] {
        match &self.content {
            Content::Image { .. } => &[],
            Content::Index { manifests } => manifests,
        }
    }

    pub fn layers(&self) -> &[Descriptor] {
        match &self.content {
            Content::Image { layers, .. } => layers,
            Content::Index { .. } => &[],
        }
    }

    pub fn config(&self) -> Option<&Descriptor> {
        match &self.content {
            Content::Image { config, .. } => Some(config),
            Content::Index { .. } => None,
        }
    }
}

impl TryFrom<DescriptorDocument> for Descriptor {
    type Error = ManifestError;
    fn try_from(document: DescriptorDocument) -> Result<Self, ManifestError> {
        Ok(Self { digest: Digest::parse(&document.digest)?, media_type: document.media_type, size: document.size })
    }
}

impl From<&Descriptor> for DescriptorDocument {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            annotations: Default::default(),
        }
    }
}

fn descriptors(documents: Vec<DescriptorDocument>) -> Result<Vec<Descriptor>, ManifestError> {
    if documents.len() > ENTRIES_MAX {
        return Err(ManifestError::TooMany);
    }
    documents.into_iter().map(Descriptor::try_from).collect()
}

/// The bytes of an OCI image manifest that carries a document of ours: `artifact_type` is also the config's media
/// type. Equal arguments give equal bytes, and so the same digest.
pub fn manifest(artifact_type: &str, config_digest: Digest, config_size: u64, layers: &[Descriptor]) -> Vec<u8> {
    let config = Descriptor { media_type: artifact_type.to_owned(), digest: config_digest, size: config_size };
    let document = ManifestDocument {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.to_owned()),
        artifact_type: Some(artifact_type.to_owned()),
        config: Some((&config).into()),
        layers: Some(layers.iter().map(DescriptorDocument::from).collect()),
        manifests: None,
        subject: None,
    };
    serde_json::to_vec(&document).expect("a manifest holds only text and integers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use appbase_core::v1::media::{LAYER, RELEASE};

    fn built() -> Vec<u8> {
        let layer = Descriptor { media_type: LAYER.to_owned(), digest: Digest::of(b"layer"), size: 5 };
        manifest(RELEASE, Digest::of(b"config"), 6, &[layer])
    }

    #[test]
    fn what_is_built_reads_back_and_stays_the_same() {
        let bytes = built();
        let read = Manifest::parse(Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), &bytes)
            .expect("our own manifest");
        assert_eq!(read.artifact_type.as_deref(), Some(RELEASE));
        assert_eq!(read.config().map(|config| config.digest), Some(Digest::of(b"config")));
        assert_eq!(read.blobs().len(), 2);
        // Frozen: a changed byte would make every stored release another one.
        assert_eq!(
            Digest::of(&bytes).to_string(),
            "sha256:6c23b6d8605ec86a693b6adfca338c87c7ca25f6b59b1795898fdc5b2d190900",
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }

    #[test]
    fn hostile_manifests_are_refused() {
        let digest = Digest::of(b"x");
        let config = format!(r#""config":{{"mediaType":"c","digest":"{digest}","size":1}}"#);
        let layer = format!(r#"{{"mediaType":"l","digest":"{digest}","size":1}}"#);
        let many = vec![layer.clone(); ENTRIES_MAX + 1].join(",");
        for (bytes, content_type) in [
            (String::new(), None),
            ("[]".to_owned(), None),
            (r#"{"schemaVersion":1}"#.to_owned(), None),
            (r#"{"schemaVersion":2}"#.to_owned(), None),
            (format!(r#"{{"schemaVersion":2,{config}}}"#), None),
            (format!(r#"{{"schemaVersion":2,{config},"layers":[{layer}]}}"#), Some("text/plain")),
            (format!(r#"{{"schemaVersion":2,{config},"layers":[{layer}]}}"#), Some(media::OCI_INDEX)),
            (format!(r#"{{"schemaVersion":2,{config},"layers":[{many}]}}"#), None),
            (format!(r#"{{"schemaVersion":2,"mediaType":"a",{config},"layers":[]}}"#), Some(media::OCI_MANIFEST)),
            (
                format!(
                    r#"{{"schemaVersion":2,{config},"layers":[{{"mediaType":"l","digest":"sha256:..","size":1}}]}}"#
                ),
                None,
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,{config},"layers":[{{"mediaType":"l","digest":"{digest}","size":-1}}]}}"#
                ),
                None,
            ),
            ("[".repeat(100_000), None),
        ] {
            let start: String = bytes.chars().take(120).collect();
            assert!(Manifest::parse(content_type, bytes.as_bytes()).is_err(), "{start}");
        }
        assert_eq!(Manifest::parse(None, &vec![b' '; MANIFEST_BYTES_MAX + 1]), Err(ManifestError::TooLarge));
    }

    #[test]
    fn docker_and_index_manifests_are_understood() {
        let digest = Digest::of(b"x");
        let docker = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"c","digest":"{digest}","size":1}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{digest}","size":1}}]}}"#,
            media::DOCKER_MANIFEST
        );
        let read = Manifest::parse(Some(media::DOCKER_MANIFEST), docker.as_bytes()).expect("docker's");
        assert_eq!(read.blobs().len(), 1, "a foreign layer is not asked for");
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{digest}","size":1}}]}}"#);
        let read = Manifest::parse(Some(media::OCI_INDEX), index.as_bytes()).expect("an index");
        assert_eq!(read.manifests().len(), 1);
    }
}
