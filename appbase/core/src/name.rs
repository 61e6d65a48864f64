//! Names: what people type, what labels and DNS carry. A value of these types cannot be wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not the name it should be. Says what, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{kind} name is empty")]
    Empty { kind: &'static str },
    #[error("{kind} name \"{text}\" is longer than {max} characters")]
    TooLong { kind: &'static str, text: String, max: usize },
    #[error(
        "{kind} name \"{text}\" has a character that is not allowed: use a-z, 0-9 and single '-', begin with a letter, end with a letter or digit"
    )]
    Form { kind: &'static str, text: String },
    #[error("{kind} name \"{text}\" is reserved for the platform itself")]
    Reserved { kind: &'static str, text: String },
}

/// Names of the platform's own parts: no app or environment may carry one, because all share one DNS level.
pub const RESERVED: [&str; 5] = ["dns", "lb", "repository", "controller", "core"];

/// `[a-z][a-z0-9-]*[a-z0-9]` (one letter is a name as well), no `--`: a DNS label that needs no quoting anywhere.
fn check_label(kind: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if text.len() > max {
        let text = text.chars().take(max + 8).collect();
        return Err(NameError::TooLong { kind, text, max });
    }
    let bytes = text.as_bytes();
    let allowed = bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let ends = bytes[0].is_ascii_lowercase() && bytes[bytes.len() - 1] != b'-';
    if !allowed || !ends || text.contains("--") {
        return Err(NameError::Form { kind, text: text.escape_debug().to_string() });
    }
    Ok(())
}

fn check_free(kind: &'static str, text: &str) -> Result<(), NameError> {
    if RESERVED.contains(&text) {
        return Err(NameError::Reserved { kind, text: text.to_owned() });
    }
    Ok(())
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a text that keeps the rules, or says which one it breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// Maps keyed by a name are asked with plain text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

text_type!(
    /// A deployable definition, at most 24 characters.
    AppName,
    |text| check_label("app", text, 24).and_then(|()| check_free("app", text))
);
text_type!(
    /// A promotion stage, at most 16 characters.
    EnvironmentName,
    |text| check_label("environment", text, 16).and_then(|()| check_free("environment", text))
);
text_type!(
    /// One kind of process of an app (`web`, `worker`), at most 12 characters.
    ProcessName,
    |text| check_label("process", text, 12)
);
text_type!(
    /// A machine, at most 32 characters.
    ServerName,
    |text| check_label("server", text, 32)
);
text_type!(
    /// All that one controller group manages: 8 to 32 characters of a-z and 0-9, made once by `init`.
    ClusterId,
    |text| check_label("cluster", text, 32)
);
text_type!(
    /// An lb or dns that follows tables (`lb-1`), at most 32 characters.
    MemberId,
    |text| check_label("member", text, 32)
);
text_type!(
    /// An instance's engine name: at most 63 characters, unique in the cluster, never parsed.
    InstanceId,
    |text| check_label("instance", text, 63)
);
text_type!(
    /// A deployment's id (`d-…`), at most 32 characters.
    DeploymentId,
    |text| check_label("deployment", text, 32)
);

impl EnvironmentName {
    /// The environment that commands mean when they name none.
    pub const DEFAULT: &'static str = "production";

    pub fn default_name() -> Self {
        Self(Self::DEFAULT.to_owned())
    }

    pub fn is_default(&self) -> bool {
        self.0 == Self::DEFAULT
    }
}

impl ProcessName {
    /// The process that an app has when its file names none.
    pub const DEFAULT: &'static str = "web";

    pub fn default_name() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl InstanceId {
    /// The engine name of one instance: made of what people want to read, cut to 63 characters with 6 hex digits of
    /// its hash when it would be longer. Labels, never this text, say what an instance is.
    pub fn of(
        environment: &EnvironmentName,
        app: &AppName,
        version_label: &str,
        release: crate::ReleaseNumber,
        process: &ProcessName,
        number: u32,
    ) -> Self {
        let mut text = app.as_str().to_owned();
        if !environment.is_default() {
            text.push('-');
            text.push_str(environment.as_str());
        }
        text.push_str(&format!("-v{version_label}-r{release}-{process}-{number}"));
        Self(crate::version::cut(&text, 63))
    }
}

/// Which part of a table: `environment/app`, or a word of the platform itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SectionKey {
    App {
        environment: EnvironmentName,
        app: AppName,
    },
    /// The platform's own section (`platform`): domain, views, parts.
    Platform,
}

impl SectionKey {
    pub fn app(environment: &EnvironmentName, app: &AppName) -> Self {
        Self::App { environment: environment.clone(), app: app.clone() }
    }
}

impl fmt::Display for SectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App { environment, app } => write!(f, "{environment}/{app}"),
            Self::Platform => f.write_str("platform"),
        }
    }
}

impl From<SectionKey> for String {
    fn from(key: SectionKey) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for SectionKey {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((environment, app)) => {
                Ok(Self::App { environment: EnvironmentName::parse(environment)?, app: AppName::parse(app)? })
            }
            None if text == "platform" => Ok(Self::Platform),
            None => Err(NameError::Form { kind: "section", text: text.escape_debug().to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        for good in ["a", "hello-world", "a1", "x-2-y"] {
            assert!(AppName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "1a", "a_b", "a.b", "ä", "lb", "core", &"a".repeat(25)] {
            assert!(AppName::parse(bad).is_err(), "{bad}");
        }
        assert!(ProcessName::parse("dns").is_ok(), "processes share no name space with the parts");
        assert!(ProcessName::parse(&"p".repeat(13)).is_err());
    }

    #[test]
    fn instance_names_fit_a_dns_label_whatever_they_hold() {
        let environment = EnvironmentName::parse("staging-of-east").expect("a name");
        let app = AppName::parse(&"a".repeat(24)).expect("a name");
        let process = ProcessName::parse("worker-large").expect("a name");
        let id = InstanceId::of(&environment, &app, &"9".repeat(20), 1234, &process, 17);
        assert!(InstanceId::parse(id.as_str()).is_ok(), "{id}");
        let other = InstanceId::of(&environment, &app, &"9".repeat(20), 1234, &process, 18);
        assert_ne!(id, other, "cut names stay different");
        let short = InstanceId::of(
            &EnvironmentName::default_name(),
            &AppName::parse("hello").expect("a name"),
            "2",
            7,
            &ProcessName::default_name(),
            1,
        );
        assert_eq!(short.as_str(), "hello-v2-r7-web-1");
    }

    #[test]
    fn section_keys_round_trip() {
        for text in ["production/hello", "platform"] {
            assert_eq!(SectionKey::try_from(text.to_owned()).expect("a key").to_string(), text);
        }
        assert!(SectionKey::try_from("production/".to_owned()).is_err());
        assert!(SectionKey::try_from("other".to_owned()).is_err());
    }
}
