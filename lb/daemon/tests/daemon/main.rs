//! The load balancer in process, between a stand-in controller, apps on this machine, and clients that hide nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod app;
mod balance;
mod challenges;
mod client;
mod controller;
mod drain;
mod every;
mod flips;
mod forward;
mod grpc;
mod guards;
mod health;
mod hold;
mod http2;
mod limits;
mod moves;
mod proxied;
mod recorder;
mod requests;
mod routes;
mod seen;
mod stage;
mod storm;
mod streams;
mod tls;
mod upgrade;
