//! The wire types of the repository, version 1: what OCI Distribution and the OCI image layout say in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Media types of manifests that are understood.
pub mod media {
    pub use appbase_core::v1::media::MANIFEST as OCI_MANIFEST;
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
}

/// The body of every refusal: `errors` as OCI Distribution has it, the rest as a problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub errors: Vec<ErrorEntry>,
    pub status: u16,
    pub code: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `GET /v2/<name>/tags/list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagList {
    pub name: String,
    pub tags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescriptorDocument {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest, an image index, or Docker's second schema of either: told apart by what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDocument {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<DescriptorDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<DescriptorDocument>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<DescriptorDocument>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<DescriptorDocument>,
}

/// The file `oci-layout` of an image layout.
pub const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}\n";
/// The annotation by which `index.json` of an image layout names a manifest.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
