//! What the platform's own programs stand on. Knows nothing of apps, routes or names.
//!
//! Owns: the clock, spawned tasks, shutdown, durable files, the HTTP client and error document, the admin endpoint,
//! and how a member follows its table. Refuses: policy of any kind.

pub mod admin;
pub mod client;
pub mod clock;
pub mod durable;
pub mod faults;
pub mod gate;
pub mod keys;
pub mod member;
pub mod password;
pub mod problem;
pub mod process;
pub mod random;
pub mod serve;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;

pub use clock::Clock;
pub use shutdown::Shutdown;
pub use tasks::{Awaited, Tasks};
