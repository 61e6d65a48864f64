//! Repository names: the grammar of OCI Distribution, bounded. Every app name is one.

use std::fmt;

use appbase_core::AppName;

/// Leaves room for host and port within the 255 characters that clients allow for an image reference.
pub const NAME_BYTES_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("repository name is longer than {NAME_BYTES_MAX} characters")]
    TooLong,
    #[error(
        "repository name \"{0}\" is not allowed: use a-z and 0-9, joined by '.', '_', '__' or '-', in parts separated by '/'"
    )]
    Form(String),
}

/// `hello-world`, `team/app`. Holds no `..`, no upper case, nothing that a file name or URL would need quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepositoryName(String);

impl RepositoryName {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if !text.split('/').all(is_component) {
            return Err(NameError::Form(text.escape_debug().to_string()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The repository of an app: its versions, releases and their layers.
    pub fn of_app(app: &AppName) -> Self {
        Self(app.as_str().to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_plain = text.starts_with(is_plain) && text.ends_with(is_plain);
    ends_plain
        && text
            .split(is_plain)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_grammar() {
        for good in ["a", "hello-world", "a/b/c", "a.b", "a_b", "a__b", "a--b", "1", "team/app.x-1"] {
            assert!(RepositoryName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "aB", "..", "a/..", "a..b", ".a", "a-", "a___b", "a._b", "a b", "ä",
            "a%2e",
        ] {
            assert!(RepositoryName::parse(bad).is_err(), "{bad}");
        }
        assert!(RepositoryName::parse(&"a".repeat(NAME_BYTES_MAX)).is_ok());
        assert_eq!(RepositoryName::parse(&"a".repeat(NAME_BYTES_MAX + 1)), Err(NameError::TooLong));
    }

    #[test]
    fn every_app_has_a_repository() {
        let app = AppName::parse("hello-world").expect("a name");
        assert!(RepositoryName::parse(RepositoryName::of_app(&app).as_str()).is_ok());
    }
}
