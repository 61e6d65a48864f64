//! The words every part of the platform shares: names, versions, digests, generations and the v1 wire types.
//!
//! Owns: what a valid name, version, digest or generation is, and the documents that more than one part reads.
//! Refuses: sockets, files, clocks, randomness. Everything here is a value.
//!
//! Start at [`v1`] for the wire, at [`name`] for the rules.

pub mod claims;
pub mod digest;
pub mod generation;
pub mod moment;
pub mod name;
pub mod prefix;
pub mod slot;
pub mod v1;
pub mod version;

pub use digest::Digest;
pub use generation::Generation;
pub use moment::Moment;
pub use name::{
    AppName, ClusterId, DeploymentId, EnvironmentName, InstanceId, MemberId, ProcessName, SectionKey, ServerName,
};
pub use prefix::Prefix;
pub use slot::Slot;
pub use version::Version;

/// Number of a release within its (app, environment): 1, 2, 3, …
pub type ReleaseNumber = u64;
