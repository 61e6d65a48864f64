//! Stands in for boot in the tests of the Docker engine: says what it finds, then does what `PLATFORM_STUB` says.

#![expect(clippy::print_stdout, reason = "its log is what the tests read")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Ok(mut term) = signal(SignalKind::terminate()) else { return ExitCode::FAILURE };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("arguments {}", arguments.join(" "));
    let own = fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(u32::MAX);
    println!("user {own}");
    let path = arguments.get(2).cloned().unwrap_or_default();
    match (fs::metadata(&path), fs::read_to_string(&path)) {
        (Ok(meta), Ok(text)) => println!("config {:o} {} {}", meta.mode() & 0o777, meta.uid(), text.len()),
        (_, failed) => println!("config {failed:?}"),
    }
    for (name, path) in [("volume", "/platformer/instance/marker"), ("root", "/marker"), ("tmp", "/tmp/marker")] {
        println!("{name} {}", if fs::write(path, "x").is_ok() { "writable" } else { "read-only" });
    }
    let mut names: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    names.sort();
    println!("environment {}", names.join(" "));
    println!("resolver {}", fs::read_to_string("/etc/resolv.conf").unwrap_or_default().replace('\n', "; "));
    match std::env::var("PLATFORM_STUB").as_deref() {
        Ok("crash") => return ExitCode::from(3),
        Ok("deaf") => std::future::pending::<()>().await,
        _ => {
            term.recv().await;
        }
    }
    println!("asked to stop");
    ExitCode::SUCCESS
}
