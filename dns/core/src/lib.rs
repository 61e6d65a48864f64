//! Which answer this question gets. Pure: no sockets, no clock, no chance of its own.
//!
//! Owns: the names and records made of what is published ([`Table`]), the look-up, and the packets in and out
//! ([`answer`]). Refuses: sending anything, and names it does not own, which are handed back as [`Forward`].
//!
//! Start at [`v1`] for what the controller publishes, at [`answer`] for what happens to one packet.

mod answer;
mod forward;
mod message;
mod name;
mod record;
mod table;
pub mod v1;

pub use answer::{Answered, Outcome, Transport, answer};
pub use forward::{Forward, Mismatch, UpstreamReply};
pub use message::{TCP_BYTES_MAX, UDP_BYTES_MAX, rcode};
pub use name::{Name, NameError};
pub use record::rtype;
pub use table::{NODES_MAX, Table, TableError, VIEWS_MAX};

#[cfg(test)]
mod tests;
