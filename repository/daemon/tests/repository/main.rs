//! The repository over its HTTP API, in this process, on port 0.

mod faults;
mod manifests;
mod tutorial;
mod uploads;
mod world;
