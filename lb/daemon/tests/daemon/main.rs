//! The load balancer in process, between a stand-in controller, apps on this machine, and clients that hide nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admission;
mod answers;
mod app;
mod balance;
mod challenges;
mod client;
mod compress;
mod controller;
mod differential;
mod drain;
mod every;
mod flips;
mod forward;
mod frames;
mod framing;
mod grpc;
mod guards;
mod health;
mod hold;
mod http2;
mod inquiry;
mod limits;
mod moves;
mod program;
mod proxied;
mod recorder;
mod requests;
mod routes;
mod seen;
mod slow;
mod stage;
mod storm;
mod streams;
mod tls;
mod upgrade;
