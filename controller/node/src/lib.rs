//! The part that touches a machine: instances on an engine, behind one trait.
//!
//! Owns: creating, starting, stopping, removing and seeing instances. Refuses: deciding which. No engine's type leaves
//! this crate.

pub mod compute;
pub mod docker;
pub mod process;

pub use compute::{Compute, ComputeError, LogLine, LogRequest};
