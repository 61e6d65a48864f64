//! Desired + run + observed → plan, and the tables that follow from it. Pure: no sockets, files, clock, chance or tasks.
//!
//! ```text
//! change sets ─► Desired ─┐
//! run records ────────────┼─► plan ─► changed run records, steps, events, a time to look again, a report
//! Observed ───────────────┘     └──► render ─► route table, name table
//! ```
//! Start at [`plan`] for decisions, at [`v1`] for what is kept and said.

pub mod acme;
pub mod addresses;
pub mod admit;
pub mod app_file;
pub mod certificates;
pub mod desired;
mod guards;
pub mod observed;
pub mod plan;
pub mod render;
pub mod resolve;
pub mod time;
pub mod v1;
pub mod words;
