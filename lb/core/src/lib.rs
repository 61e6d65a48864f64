//! Which instance gets this request. Pure: no sockets, no clock, no chance of its own.
//!
//! Owns: what a sound route table is, which rule matches, which instance is chosen, when a request may be sent again,
//! when an instance is up, and when what it still has in flight is ended. Refuses: doing any of it.
//!
//! Start at [`v1`] for what the controller publishes, at [`table`] for its checked form, at [`route`] for a request.

pub mod challenge;
pub mod cohort;
pub mod drain;
pub mod eject;
pub mod explain;
pub mod guard;
pub mod health;
pub mod host;
pub mod http1;
pub mod key;
pub mod latency;
pub mod path;
pub mod pick;
pub mod preview;
pub mod proxied;
pub mod retry;
pub mod route;
pub mod rule;
pub mod table;
pub mod trace;
pub mod v1;

pub use table::{Section, Table, TableError};
