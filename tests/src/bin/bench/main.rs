//! Bench: the figures of docs/benchmarks.md, each beside a peer in the same run.
//!
//! `bench [SECTION...]` runs all sections or those named and puts what came of each into the file, which keeps the
//! others. `make bench` builds everything in the `dist` profile first. Peers are Debian's packages; one that is not
//! installed is said to be missing in its row.
//!
//! Two cores: what is measured has the first, whoever asks and answers behind it the second. CPU time comes from the
//! scheduler's own count, because on a shared machine it moves far less than the rate does.

mod deploys;
mod dns;
mod flips;
mod footprint;
mod lb;
mod planning;
mod program;
mod report;
mod repository;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;

use report::{Report, say};

type Section = fn() -> String;

/// In the order of the document: name, title, what measures it.
const SECTIONS: [(&str, &str, Section); 8] = [
    ("flips", "Flips under load", flips::run),
    ("deploys", "Deploy, rollback, publish", deploys::run),
    ("lb", "Load balancer", lb::run),
    ("tls", "TLS at the load balancer", tls::run),
    ("dns", "DNS server", dns::run),
    ("repository", "Repository", repository::run),
    ("footprint", "Memory and images", footprint::run),
    ("planning", "Planning", planning::run),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| SECTIONS.iter().any(|(known, _, _)| known == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let names: Vec<_> = SECTIONS.iter().map(|(name, _, _)| *name).collect();
        say(&format!("error: there is no section \"{unknown}\"; there are {}", names.join(", ")));
        return ExitCode::FAILURE;
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    for (name, title, measure) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            say(&format!("==> {title}"));
            let text = measure();
            say(&text);
            // Read now: another run may have written meanwhile.
            let mut report = Report::read(&file);
            report.put(name, title, &text);
            report.write(&file);
        }
    }
    ExitCode::SUCCESS
}
