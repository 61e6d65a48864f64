//! The controller's wire and store types, version 1.
//!
//! [`api`]: what the CLI and scripts send and get. [`compute`]: what the node is asked and answers.
//! [`state`]: what the store keeps.

pub mod api;
pub mod app_file;
pub mod compute;
pub mod state;
