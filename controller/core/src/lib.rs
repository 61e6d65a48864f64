//! Desired + run + observed → plan, and the tables that follow from it. Pure.
//!
//! Start at [`v1`] for what is kept and said.

pub mod v1;
