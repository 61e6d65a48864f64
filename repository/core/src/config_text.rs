//! The text that `GET /config/<app>/<app>.config` answers: lines that a shell can source.
//!
//! Secrets are never in it. What cannot be a shell variable is named in a comment instead of being lost silently.

use appbase_core::ProcessName;
use appbase_core::v1::{InstanceSpec, Release, Value};

/// The variable that holds the command.
pub const COMMAND: &str = "STARTUP_COMMAND";

/// The process the text is about: `web`, or the first one by name where there is no `web`.
pub fn main_process(release: &Release) -> Option<(&ProcessName, &InstanceSpec)> {
    let web = release.processes.iter().find(|(name, _)| name.as_str() == ProcessName::DEFAULT);
    web.or_else(|| release.processes.iter().next())
}

/// `STARTUP_COMMAND="…"`, then one `KEY="value"` line for each plain value.
pub fn render_config(spec: &InstanceSpec) -> String {
    let words: Vec<String> = spec.command.iter().map(|word| quote_word(word)).collect();
    let mut text = format!("{COMMAND}={}\n", quote_value(&words.join(" ")));
    for (key, value) in &spec.values {
        let line = match value {
            Value::Secret { .. } => format!("# {} is a secret: it is given to instances only\n", key.escape_debug()),
            Value::Plain(value) if is_variable(key) && !value.contains('\0') => {
                format!("{key}={}\n", quote_value(value))
            }
            Value::Plain(_) => format!("# {} cannot be a shell variable\n", key.escape_debug()),
        };
        text.push_str(&line);
    }
    text
}

/// One word of a command so that a shell reads it as exactly this word.
pub fn quote_word(word: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A value in double quotes in which a shell expands nothing.
pub fn quote_value(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

fn is_variable(key: &str) -> bool {
    let starts = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && key != COMMAND && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use appbase_core::v1::{Limits, Source};

    fn spec(command: &[&str], values: &[(&str, Value)]) -> InstanceSpec {
        InstanceSpec {
            source: Source::Artifact { layers: Vec::new() },
            base: None,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            values: values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            port: None,
            limits: Limits::default(),
            overlap: false,
            stop_grace_ms: 0,
        }
    }

    #[test]
    fn text_of_the_tutorial() {
        let plain = |text: &str| Value::Plain(text.to_owned());
        let secret = Value::Secret { version: "s1".to_owned() };
        let values =
            [("GREETING", plain("hello $USER")), ("KEY", secret), ("a-b\n", plain("x")), (COMMAND, plain("no"))];
        assert_eq!(
            render_config(&spec(&["node", "server.js", "--say", "it's"], &values)),
            "STARTUP_COMMAND=\"node server.js --say 'it'\\\\''s'\"\n\
             GREETING=\"hello \\$USER\"\n\
             # KEY is a secret: it is given to instances only\n\
             # STARTUP_COMMAND cannot be a shell variable\n\
             # a-b\\n cannot be a shell variable\n"
        );
    }

    /// A real shell is the judge: it sources the text and hands back exactly what was put in.
    #[test]
    fn a_shell_reads_back_what_was_written() {
        let nasty = "a\"b'c$(id)`id`\\ \n$HOME *;#!~ü&|<>()";
        let text = render_config(&spec(&["printf", "%s|", nasty, "", "*"], &[("V", Value::Plain(nasty.to_owned()))]));
        let script = format!("{text}printf '%s\\n' \"$V\"; eval \"$STARTUP_COMMAND\"");
        let output = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{nasty}\n{nasty}||*|"));
    }
}
