//! The harness: the real programs, started and ended as a person or an accident would, and clients that count.
//!
//! Every test has its own directory and ports. What it started is ended with it, by process id.

pub mod load;
pub mod platform;

pub use load::{Load, Tally};
pub use platform::{Part, Platform};
