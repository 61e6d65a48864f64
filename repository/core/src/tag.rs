//! Tags: names of manifests within a repository, and which of them may be moved.
//!
//! `<environment>-live` names what is live and moves; `<environment>-r<N>` names a release and `<version>` what was
//! pushed: both stay what they are for ever.

use std::fmt;

use appbase_core::{Digest, EnvironmentName, ReleaseNumber, Version};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    #[error(
        "tag \"{0}\" is not allowed: 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-', not beginning with '.' or '-'"
    )]
    Form(String),
    #[error(
        "version \"{0}\" cannot be stored: names like \"production-live\" and \"production-r7\" are the platform's own"
    )]
    Reserved(Version),
}

/// The version stands in the repository already, with other bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version exists with other bytes: \"{tag}\" is {existing}, pushed was {pushed}")]
pub struct TagConflict {
    pub tag: Tag,
    pub existing: Digest,
    pub pushed: Digest,
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagKind {
    /// What is live in an environment. The only tag that moves.
    Live(EnvironmentName),
    Release(EnvironmentName, ReleaseNumber),
    /// What somebody pushed.
    Version,
}

/// What storing a manifest under a tag does to the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagChange {
    Create,
    /// The same bytes once more.
    Keep,
    Move,
}

impl Tag {
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let bytes = text.as_bytes();
        let fits = (1..=128).contains(&bytes.len())
            && !matches!(bytes[0], b'.' | b'-')
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !fits {
            let text: String = text.chars().take(136).collect();
            return Err(TagError::Form(text.escape_debug().to_string()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The tag of a pushed version. Refused where it would read as one of the platform's own tags.
    pub fn of_version(version: &Version) -> Result<Self, TagError> {
        let tag = Self(version.as_str().to_owned());
        match tag.kind() {
            TagKind::Version => Ok(tag),
            TagKind::Live(_) | TagKind::Release(..) => Err(TagError::Reserved(version.clone())),
        }
    }

    pub fn of_release(environment: &EnvironmentName, number: ReleaseNumber) -> Self {
        Self(format!("{environment}-r{number}"))
    }

    pub fn of_live(environment: &EnvironmentName) -> Self {
        Self(format!("{environment}-live"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn kind(&self) -> TagKind {
        if let Some(environment) = self.0.strip_suffix("-live").and_then(|text| EnvironmentName::parse(text).ok()) {
            return TagKind::Live(environment);
        }
        if let Some((environment, number)) = self.0.rsplit_once("-r") {
            let number = number.parse::<ReleaseNumber>().ok().filter(|parsed| parsed.to_string() == number);
            if let (Ok(environment), Some(number)) = (EnvironmentName::parse(environment), number) {
                return TagKind::Release(environment, number);
            }
        }
        TagKind::Version
    }

    /// The version this tag names, when it is one: then it has a DNS label as well.
    pub fn version(&self) -> Option<Version> {
        match self.kind() {
            TagKind::Version => Version::parse(&self.0).ok(),
            TagKind::Live(_) | TagKind::Release(..) => None,
        }
    }

    /// Whether this tag may name `pushed` from now on.
    pub fn change(&self, existing: Option<Digest>, pushed: Digest) -> Result<TagChange, TagConflict> {
        match existing {
            None => Ok(TagChange::Create),
            Some(existing) if existing == pushed => Ok(TagChange::Keep),
            Some(existing) => match self.kind() {
                TagKind::Live(_) => Ok(TagChange::Move),
                TagKind::Release(..) | TagKind::Version => Err(TagConflict { tag: self.clone(), existing, pushed }),
            },
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a path names a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::parse(text).expect("a tag")
    }

    #[test]
    fn tags_keep_the_grammar() {
        for good in ["1", "_x", "2.4.1", "production-live", "A-b_c.d", &"t".repeat(128)] {
            assert!(Tag::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", "a:b", &"t".repeat(129)] {
            assert!(Tag::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_is_live_moves() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        for text in ["1", "latest", "production-r7", "-live", "1.0-live", "production-live-2", "PROD-live"] {
            let Ok(tag) = Tag::parse(text) else { continue };
            assert_eq!(tag.change(None, one), Ok(TagChange::Create), "{text}");
            assert_eq!(tag.change(Some(one), one), Ok(TagChange::Keep), "{text}");
            let conflict = tag.change(Some(one), two).expect_err(text);
            assert!(conflict.to_string().starts_with("version exists with other bytes"));
        }
        for text in ["production-live", "staging-live"] {
            assert_eq!(tag(text).change(Some(one), two), Ok(TagChange::Move), "{text}");
        }
    }

    #[test]
    fn kinds_and_versions() {
        let production = EnvironmentName::default_name();
        assert_eq!(Tag::of_release(&production, 7).kind(), TagKind::Release(production.clone(), 7));
        assert_eq!(Tag::of_live(&production).kind(), TagKind::Live(production));
        for version in ["production-r07", "r7", "1-r", "2.4.1"] {
            assert_eq!(tag(version).kind(), TagKind::Version, "{version}");
        }
        assert_eq!(tag("2.4.1").version().map(|version| version.label()), Some("2-4-1-4e103f".to_owned()));
        assert_eq!(tag("_x").version(), None, "not a version: has no DNS label");
        let version = |text: &str| Version::parse(text).expect("a version");
        assert!(Tag::of_version(&version("2")).is_ok());
        assert!(matches!(Tag::of_version(&version("staging-live")), Err(TagError::Reserved(_))));
        assert!(matches!(Tag::of_version(&version("staging-r3")), Err(TagError::Reserved(_))));
    }
}
