//! App file: reads `platform.toml` and checks what the types cannot say. Every error names line and column or key.

use appbase_core::v1::Limits;

use crate::v1::app_file::{AppFile, LimitsFile};

/// A platform.toml is text of at most this size.
pub const APP_FILE_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppFileError {
    #[error("platform.toml is larger than {APP_FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("platform.toml, line {line}, column {column}: {message}")]
    Syntax { line: usize, column: usize, message: String },
    #[error("platform.toml, {key}: {message}")]
    Value { key: String, message: String },
}

/// Parses and checks; an empty text is an app file without anything.
pub fn parse(text: &str) -> Result<AppFile, AppFileError> {
    if text.len() > APP_FILE_BYTES_MAX {
        return Err(AppFileError::TooLarge);
    }
    let file: AppFile = toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        AppFileError::Syntax { line, column, message: error.message().replace('\n', " ") }
    })?;
    check(&file)?;
    Ok(file)
}

/// Line and column, from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn wrong(key: &str, message: impl Into<String>) -> AppFileError {
    AppFileError::Value { key: key.to_owned(), message: message.into() }
}

fn check(file: &AppFile) -> Result<(), AppFileError> {
    if let Some(text) = &file.path
        && (!text.starts_with('/') || text.len() > 1024 || text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f))
    {
        let message = "must begin with '/' and hold no blanks and nothing but ASCII: write others as %XX";
        return Err(wrong("path", message));
    }
    for host in &file.hosts {
        check_host(host).map_err(|message| wrong("hosts", message))?;
    }
    for key in file.values.keys() {
        check_value_name(key).map_err(|message| wrong(&format!("values.{key}"), message))?;
    }
    let instances = file.processes.iter().map(|(name, process)| (name.as_str(), process.instances));
    for (name, count) in instances.chain([("web", file.instances)]) {
        if count.is_some_and(|count| count > INSTANCES_MAX) {
            return Err(wrong("instances", format!("process {name}: at most {INSTANCES_MAX}")));
        }
    }
    if file.processes.contains_key("web") && (file.command.is_some() || file.port.is_some()) {
        return Err(wrong("processes.web", "process web is described at the top of the file already"));
    }
    limits(&file.limits)?;
    Ok(())
}

/// Of one process of one app in one environment.
pub const INSTANCES_MAX: u32 = 200;

/// A host of a rule: a name, `*.` and a name, or `*` for every one.
pub fn check_host(host: &str) -> Result<(), String> {
    if host == "*" {
        return Ok(());
    }
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if labels.len() <= 253 && labels.split('.').all(label_fits) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is no host name: lower-case labels with dots, '*.' in front for one more label, or '*' for every host",
        host.escape_debug()
    ))
}

/// Names of values are those of environment variables; the platform's own prefix is its own.
pub fn check_value_name(name: &str) -> Result<(), String> {
    let fits = name.len() <= 128
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !fits {
        return Err("a value's name has letters, digits and '_' and does not begin with a digit".to_owned());
    }
    if name.starts_with("PLATFORM_") || name == "PORT" {
        return Err(format!("{name} is given by the platform"));
    }
    if matches!(name, "LD_PRELOAD" | "LD_LIBRARY_PATH" | "LD_AUDIT") {
        return Err(format!("{name} changes which code runs and is refused"));
    }
    Ok(())
}

pub(crate) fn limits(file: &LimitsFile) -> Result<Limits, AppFileError> {
    let memory_bytes = file.memory.as_deref().map(memory).transpose()?;
    let cpu_millis = match file.cpu {
        None => None,
        Some(cores) if (0.01..=1024.0).contains(&cores) => Some((cores * 1000.0).round() as u64),
        Some(_) => return Err(wrong("limits.cpu", "cores, from 0.01 to 1024")),
    };
    if file.pids.is_some_and(|pids| !(8..=65_536).contains(&pids)) {
        return Err(wrong("limits.pids", "from 8 to 65536"));
    }
    Ok(Limits { memory_bytes, cpu_millis, pids: file.pids })
}

/// At least 6 MiB, the least an engine takes.
fn memory(text: &str) -> Result<u64, AppFileError> {
    match size("limits.memory", text)? {
        bytes if bytes >= 6 << 20 => Ok(bytes),
        _ => Err(wrong("limits.memory", "at least 6MiB")),
    }
}

/// `64MiB` → 67108864.
pub(crate) fn size(key: &str, text: &str) -> Result<u64, AppFileError> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let found = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*factor));
    found.ok_or_else(|| wrong(key, format!("\"{}\" is no size: use 64MiB or 1GiB", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_their_place() {
        let check = |text: &str, expect: &str| {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expect), "{text:?}\n  gave   {error}\n  wanted {expect}");
        };
        check("port = 8080\ncomand = \"x\"\n", "line 2, column 1: unknown field `comand`");
        check("port = \"x\"", "line 1, column 8");
        check("port = 70000", "line 1, column 8");
        check("command = \"a\"\n[processes.Web]\n", "line 2");
        check("path = \"x\"", "path: must begin with '/'");
        check("health = \"/ü\"", "says nothing of how to ask");
        check("[processes.api]\nport = 1\nhealth = \"x\"", "line 3, column");
        check("hosts = [\"Ex.org\"]", "hosts: \"Ex.org\"");
        check("[limits]\nmemory = \"1\"", "limits.memory: at least 6MiB");
        check("[limits]\nmemory = \"much\"", "limits.memory: \"much\" is no size");
        check("[values]\nPORT = \"1\"", "values.PORT: PORT is given by the platform");
        check("[values]\nLD_PRELOAD = \"1\"", "values.LD_PRELOAD");
        check("instances = 1000", "instances: process web: at most 200");
    }

    #[test]
    fn a_whole_file() {
        let file = parse(
            "command = \"./app --port 8080\"\nport = 8080\nhosts = [\"*\", \"*.example.org\"]\n[limits]\nmemory = \"64MiB\"\ncpu = 0.5\n[processes.worker]\ncommand = \"./work\"\n",
        )
        .expect("a sound file");
        assert_eq!(file.port, Some(8080));
        assert_eq!(limits(&file.limits).expect("sound").memory_bytes, Some(64 << 20));
        assert_eq!(file.processes.len(), 1);
        assert_eq!(parse("").expect("nothing is allowed"), AppFile::default());
    }
}
