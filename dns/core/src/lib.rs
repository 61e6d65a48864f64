//! Which answer this question gets. Pure: no sockets, no clock, no chance of its own.
//!
//! Start at [`v1`] for what the controller publishes.

pub mod v1;
