//! The repository: artifacts, images and release documents, over the HTTP API of OCI Distribution and two paths of its
//! own for the tutorial.
//!
//! Owns: one data directory (an OCI image layout with a catalogue beside it) and who may read and write it.
//! Refuses: a second process on the same directory, overwriting a version, bytes that are not what they are called.
//!
//! `http` answers requests, `store` keeps bytes; what is valid is decided in repository-core.

mod admin;
mod config;
mod counters;
pub mod fsck;
mod http;
mod run;
mod store;

pub use config::Config;
pub use run::{Handle, RunError, run};
pub use store::StoreError;
