//! boot: what a user's app stands on. PID 1 of every instance, or its parent on the process engine.
//!
//! Owns: fetching and verifying one release, unpacking it, running its app, passing signals, reaping, and saying how
//! the app ended. Refuses: deciding what runs where, and everything the network could ask of it; it listens nowhere.
//!
//! ```text
//!             marker matches
//!  fetching ──────────────────► running ──app ended──► waiting ──► running …   (only where boot restarts)
//!     │  fetched, verified ▲        │                     │
//!     │                    │        └─TERM─► stopping ─►  ended
//!     └────────TERM or refused────────────────────────────►
//! ```
//!
//! Start at [`instance::run`].

pub mod arguments;
mod backoff;
mod children;
mod command;
mod directory;
mod fetch;
pub mod instance;
mod log;
mod marker;
pub mod unpack;
