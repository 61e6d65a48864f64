//! Version: what was pushed, by the name its author gave it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "version \"{text}\" is not allowed: 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
)]
pub struct VersionError {
    text: String,
}

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let bytes = text.as_bytes();
        let fits = (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !fits {
            let text: String = text.chars().take(72).collect();
            return Err(VersionError { text: text.escape_debug().to_string() });
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version as part of a DNS label: lower case, other characters as `-`, cut to 20 characters with 6 hex digits
    /// of its hash whenever that changed it, so that different versions have different labels.
    pub fn label(&self) -> String {
        let mut plain: String =
            self.0.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        while plain.contains("--") {
            plain = plain.replace("--", "-");
        }
        let plain = plain.trim_end_matches('-');
        if plain == self.0 && plain.len() <= 20 {
            return plain.to_owned();
        }
        let hash = Digest::of(self.0.as_bytes());
        let kept: String = plain.chars().take(13).collect();
        format!("{}-{}", kept.trim_end_matches('-'), &hash.hex()[..6])
    }
}

/// `text` when it fits `max` characters, else its beginning and 6 hex digits of its hash.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max - 7).collect();
    format!("{}-{}", kept.trim_end_matches('-'), &Digest::of(text.as_bytes()).hex()[..6])
}

impl TryFrom<String> for Version {
    type Error = VersionError;
    fn try_from(text: String) -> Result<Self, VersionError> {
        Self::parse(&text)
    }
}

impl std::str::FromStr for Version {
    type Err = VersionError;
    fn from_str(text: &str) -> Result<Self, VersionError> {
        Self::parse(text)
    }
}

impl AsRef<str> for Version {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_dns_safe_and_different() {
        let label = |text: &str| Version::parse(text).expect("a version").label();
        assert_eq!(label("2"), "2");
        assert_eq!(label("2024-11-05"), "2024-11-05");
        assert!(label("2.4.1").starts_with("2-4-1-"));
        assert_ne!(label("2.4.1"), label("2_4_1"));
        assert_ne!(label("A"), label("a"));
        for text in ["1", "2.4.1", "V.", "a__b", &"x".repeat(64), "9...", "1.-_"] {
            let label = label(text);
            assert!(label.len() <= 20 && !label.contains("--") && !label.ends_with('-'), "{text} -> {label}");
        }
    }

    #[test]
    fn versions_keep_their_rules() {
        for bad in ["", ".1", "-1", "1/2", "a b", "ü", &"1".repeat(65)] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }
}
