//! Versions in the repository.

use serde::Serialize;

use super::table::{Cell, Column, cell, table};
use super::{Paint, number, plural};

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Pushed {
    pub(crate) app: String,
    pub(crate) version: String,
    /// `pushed` or `already-there`.
    pub(crate) outcome: &'static str,
    pub(crate) manifest: String,
    pub(crate) layers: usize,
    pub(crate) bytes: u64,
    /// How many of them were sent; the rest was there.
    pub(crate) bytes_sent: u64,
    pub(crate) took_ms: u64,
}

/// `pushed hello-world 2: 3.1 MB in 1 layer, 0.4s (sha256:…)`
pub(crate) fn pushed(pushed: &Pushed) -> String {
    let Pushed { app, version, manifest, .. } = pushed;
    if pushed.outcome == "already-there" {
        return format!("{app} {version} is already there ({manifest})");
    }
    let sent = if pushed.bytes_sent < pushed.bytes {
        format!(" ({} sent, the rest was there)", number::bytes(pushed.bytes_sent))
    } else {
        String::new()
    };
    format!(
        "pushed {app} {version}: {} in {}{sent}, {} ({manifest})",
        number::bytes(pushed.bytes),
        plural(pushed.layers as u64, "layer"),
        number::duration(pushed.took_ms)
    )
}

/// A version as the repository has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Stored {
    pub(crate) version: String,
    pub(crate) manifest: String,
    /// `artifact` or `image`.
    pub(crate) kind: String,
    pub(crate) bytes: u64,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Layer {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
}

pub(crate) fn versions(stored: &[Stored], width: usize, paint: Paint) -> String {
    let columns = [Column::Id("VERSION"), Column::Id("KIND"), Column::Number("SIZE"), Column::Text("DIGEST")];
    let rows: Vec<Vec<Cell>> = stored
        .iter()
        .map(|stored| {
            vec![cell(&stored.version), cell(&stored.kind), cell(number::bytes(stored.bytes)), cell(&stored.manifest)]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

pub(crate) fn version(app: &str, stored: &Stored, app_file: &str, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(&format!("{app} {}", crate::safe::line(&stored.version))));
    let mut row = |word: &str, fact: &str| {
        text.push_str(&format!("  {} {}\n", paint.dim(&format!("{word:<9}")), crate::safe::line(fact)));
    };
    row("kind", &stored.kind);
    row("manifest", &stored.manifest);
    for layer in &stored.layers {
        row("layer", &format!("{}  {}", layer.digest, number::bytes(layer.bytes)));
    }
    match app_file.is_empty() {
        true => row("app file", "none"),
        false => row("app file", "platform.toml"),
    }
    for line in app_file.lines() {
        text.push_str(&format!("    {}\n", crate::safe::line(line)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_push_came_to() {
        let mut push = Pushed {
            app: "hello-world".into(),
            version: "2".into(),
            outcome: "pushed",
            manifest: "sha256:1f9c".into(),
            layers: 1,
            bytes: 3_140_000,
            bytes_sent: 3_140_000,
            took_ms: 402,
        };
        assert_eq!(pushed(&push), "pushed hello-world 2: 3.1 MB in 1 layer, 0.4s (sha256:1f9c)");
        push.bytes_sent = 0;
        assert_eq!(
            pushed(&push),
            "pushed hello-world 2: 3.1 MB in 1 layer (0 B sent, the rest was there), 0.4s (sha256:1f9c)"
        );
        push.outcome = "already-there";
        assert_eq!(pushed(&push), "hello-world 2 is already there (sha256:1f9c)");
    }

    #[test]
    fn versions_and_one_of_them() {
        let stored = Stored {
            version: "2".into(),
            manifest: "sha256:1f9c".into(),
            kind: "artifact".into(),
            bytes: 3_140_000,
            layers: vec![Layer { digest: "sha256:aa".into(), bytes: 3_140_000 }],
        };
        assert_eq!(
            versions(std::slice::from_ref(&stored), usize::MAX, Paint::OFF),
            "VERSION  KIND        SIZE  DIGEST\n2        artifact  3.1 MB  sha256:1f9c\n"
        );
        assert_eq!(
            version("hello-world", &stored, "[web]\nport = 8080\n", Paint::OFF),
            "\
hello-world 2
  kind      artifact
  manifest  sha256:1f9c
  layer     sha256:aa  3.1 MB
  app file  platform.toml
    [web]
    port = 8080
"
        );
    }
}
