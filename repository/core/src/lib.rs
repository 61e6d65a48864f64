//! What the repository knows without touching a disk or a socket.
//!
//! Owns: which names, tags and manifests are valid, which tags may move, how an upload proceeds, what a path asks for,
//! which bytes a range means, the error codes, and the text that the tutorial's config path answers.
//! Refuses: storage, transport, time. A daemon carries out what is decided here.
//!
//! Start at [`route`] for what can be asked, at [`manifest`] for what is stored.

pub mod config_text;
pub mod manifest;
pub mod name;
pub mod range;
pub mod refusal;
pub mod route;
pub mod tag;
pub mod upload;
pub mod v1;

pub use manifest::{Descriptor, Manifest};
pub use name::RepositoryName;
pub use refusal::{Code, Refusal};
pub use route::{Access, Route};
pub use tag::{Reference, Tag};
pub use upload::{Upload, UploadId};
