//! The shared wire types, version 1. Readers ignore unknown fields; a document whose `needs` names a feature that the
//! reader lacks is refused whole ([`unmet_needs`]).
//!
//! What running instances read (`Release`, `InstanceConfig`, labels) is frozen for a major version.

pub mod balance;
pub mod guard;
pub mod https;
pub mod instance;
pub mod probe;
pub mod release;
pub mod route;
pub mod status;
pub mod table;

pub use balance::{Balance, BalancePolicy, HashKey};
pub use guard::{Cors, Guard, Rate, RateOf};
pub use https::{Certificate, HttpsPolicy, PrivateKey, Tls};
pub use instance::{InstanceConfig, InstanceExit, InstanceState, label};
pub use probe::{Check, Probe};
pub use release::{
    InstanceSpec, Limits, Policy, ProcessTraffic, Protocol, Release, Source, TrafficSpec, Value, VersionDocument,
};
pub use route::{HeaderEdits, Redirect, Route};
pub use status::{Counters, DrainReport, Health, InstanceReport, MemberKind, MemberStatus, ProbeAnswer, Refusal};
pub use table::TableUpdate;

/// Features this release of the platform understands in documents. None yet: everything is in version 1 itself.
pub const FEATURES: [&str; 0] = [];

/// The needs that this reader lacks; empty when the document may be used.
pub fn unmet_needs(needs: &[String]) -> Vec<String> {
    needs.iter().filter(|need| !FEATURES.contains(&need.as_str())).cloned().collect()
}

/// Media types of what the platform keeps in the repository.
pub mod media {
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// `artifactType` of a pushed version: config is a `VersionDocument`, layers are the artifact.
    pub const VERSION: &str = "application/vnd.platformer.version.v1+json";
    /// `artifactType` of a release: config is a `Release`, layers are those of its source.
    pub const RELEASE: &str = "application/vnd.platformer.release.v1+json";
    /// One layer of an artifact: a gzip-compressed tar.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A docker-archive, as `docker save` writes it.
    pub const DOCKER_ARCHIVE: &str = "application/vnd.platformer.docker-archive.v1.tar";
}
