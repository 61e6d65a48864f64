//! The controller: keeps what is wanted, looks at what is, does what the planner says, and tells people.
//!
//! ```text
//! API ─► pen ─► store ─► records ─┐
//! node, members ─► observed ──────┼─► think (controller-core) ─► note ─► publish ─► do ─► look again
//! clock ──────────────────────────┘
//! ```
//! Owns: the store, the loop, the tables' long poll, the API. Refuses: policy; that is the planner's.

mod access;
mod acme;
mod authority;
pub mod config;
mod deploy;
mod execute;
mod http;
mod journal;
mod members;
mod names;
mod points;
mod reconcile;
mod records;
mod repository;
mod run;
#[cfg(test)]
mod stage;
mod store;
mod tables;
mod views;
mod x509;

pub use acme::AcmeError;
pub use config::Config;
pub use run::{Handle, RunError, new_cluster_id, raise_epoch, run};
pub use store::StoreError;
