//! A table file: what a person writes to serve names without a controller. Strict, because people mistype.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dns_core::v1::TableFile;
use dns_core::{Table, TableError};
use kit::{Shutdown, Tasks};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::server::Server;

/// No table file is larger than this.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the table file {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("table file {path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("table file {path} is not a table")]
    Form {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("table file {path} has an unknown field {field}: remove it, or check its spelling")]
    Unknown { path: PathBuf, field: String },
    #[error("table file {path} cannot be served")]
    Table {
        path: PathBuf,
        #[source]
        source: TableError,
    },
}

/// Puts the table of a file in force, and again at each SIGHUP; one with a fault changes nothing then.
pub(crate) fn serve(server: Arc<Server>, path: &Path, tasks: &Tasks, shutdown: &Shutdown) -> Result<(), FileError> {
    server.put_in_force(read(path)?);
    let (path, asked) = (path.to_path_buf(), shutdown.asked());
    let mut hangup = signal(SignalKind::hangup()).map_err(|source| FileError::Io { path: path.clone(), source })?;
    tasks.spawn("dns-table-file", async move {
        let again = async {
            while hangup.recv().await.is_some() {
                match read(&path) {
                    Ok(table) => {
                        server.put_in_force(table);
                        tracing::info!(path = %path.display(), "table file read again");
                    }
                    Err(error) => {
                        tracing::error!(error = %kit::problem::chain(&error), "table in force is kept");
                    }
                }
            }
        };
        tokio::select! { () = asked => {}, () = again => {} }
    });
    Ok(())
}

fn read(path: &Path) -> Result<Table, FileError> {
    let io = |source| FileError::Io { path: path.to_path_buf(), source };
    if std::fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_path_buf() });
    }
    parse(path, &std::fs::read(path).map_err(io)?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Table, FileError> {
    let path = path.to_path_buf();
    let form = |source| FileError::Form { path: path.clone(), source };
    let file: TableFile = serde_json::from_slice(bytes).map_err(form)?;
    // The wire types inside ignore what they do not know; what was written and is not read is told here.
    let written: Value = serde_json::from_slice(bytes).map_err(form)?;
    let understood = serde_json::to_value(&file).map_err(form)?;
    if let Some(field) = unknown(&written, &understood, "") {
        return Err(FileError::Unknown { path, field });
    }
    let table = file.sections().and_then(|sections| Table::new(&sections));
    table.map_err(|source| FileError::Table { path, source })
}

/// The first field that was written but not understood, with the way to it.
fn unknown(written: &Value, understood: &Value, at: &str) -> Option<String> {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => written.iter().find_map(|(name, value)| {
            let at = format!("{at}.{name}");
            match understood.get(name) {
                Some(known) => unknown(value, known, &at),
                None => (!value.is_null()).then_some(at),
            }
        }),
        (Value::Array(written), Value::Array(understood)) => {
            let mut pairs = written.iter().zip(understood).enumerate();
            pairs.find_map(|(number, (written, understood))| unknown(written, understood, &format!("{at}[{number}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_field_is_named_with_its_place() {
        let parse = |text: &str| parse(Path::new("names.json"), text.as_bytes()).map_err(|error| error.to_string());
        let sound = r#"{"platform": {"domain": "platform", "ttl_ms": 5000, "views":
            [{"name": "all", "sources": ["::/0"], "forward": false, "parts": {}, "environment": null}]}}"#;
        assert!(parse(sound).is_ok());
        for (from, to, field) in [
            ("\"forward\": false", "\"forward\": false, \"froward\": true", ".platform.views[0].froward"),
            ("\"ttl_ms\": 5000", "\"ttl_ms\": 5000, \"ttl\": 5", ".platform.ttl"),
        ] {
            let error = parse(&sound.replace(from, to)).expect_err("mistyped");
            assert!(error.contains(field), "{error}");
        }
        assert!(parse("{}").is_err() && parse(&sound.replace("::/0", "x")).is_err());
    }
}
