//! Docker's own client, so that what the harness sees does not come from what it tests.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn run(words: &[&str], input: &[u8]) -> std::io::Result<Output> {
    let mut child = Command::new("docker")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdin.take().expect("it is piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A client that ends early says why itself.
            let _ = pipe.write_all(input);
        });
        child.wait_with_output()
    })
}

/// Its output; an error with its reason.
pub(crate) fn try_docker(words: &[&str]) -> Result<String, String> {
    feed(words, &[])
}

/// The same with something on its standard input.
pub(crate) fn feed(words: &[&str], input: &[u8]) -> Result<String, String> {
    let output = run(words, input).map_err(|error| format!("the docker client does not run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("docker {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Its output; it must do what it is asked.
pub fn docker(words: &[&str]) -> String {
    try_docker(words).unwrap_or_else(|reason| panic!("{reason}"))
}

/// The words of its output.
pub(crate) fn list(words: &[&str]) -> Vec<String> {
    try_docker(words).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// `words` for all of `names` at once; nothing when there are none, and no matter how it ends.
pub(crate) fn each(words: &[&str], names: &[String]) {
    if !names.is_empty() {
        let all: Vec<&str> = words.iter().copied().chain(names.iter().map(String::as_str)).collect();
        let _ = try_docker(&all);
    }
}
