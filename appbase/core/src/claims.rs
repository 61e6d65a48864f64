//! Claims: what a machine token says, signed by the cluster's key and checked without asking anybody.
//!
//! ```text
//! ptk1.<base64url of the claims as JSON>.<base64url of the ed25519 signature over everything before it>
//! ```
//!
//! Running instances carry such tokens, so the form is frozen for a major version. People's tokens are another thing:
//! opaque, kept by the controller as hashes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::name::{AppName, ClusterId};
use crate::v1::MemberKind;

/// Begins every machine token; the number is the form's.
pub const PREFIX: &str = "ptk1.";
/// Longer than any token of ours: nothing longer is even decoded.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Who may do what, until when, in which cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub cluster: ClusterId,
    /// Whom it was given to, for logs and the change log's author.
    pub subject: String,
    pub scope: Scope,
    /// Seconds since 1970; none for what lies beside the keys or in an instance, and ends with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Everything that changes nothing.
    Read,
    /// Its kind's table, and to put its status.
    Member { member: MemberKind },
    /// Every app in the repository.
    Repository { reach: Reach },
    /// One tag of one app in the repository and what it names: how an instance reads exactly its release.
    Release { app: AppName, tag: String },
}

/// How far a token reaches in the repository; each one holds what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    Pull,
    /// Store versions.
    Push,
    /// Move the tags of releases: the controller's business.
    Pin,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token cannot be read: it is no machine token of the platform")]
    Unreadable,
    #[error("the token was not signed by this cluster's key")]
    Signature,
    #[error("the token is of cluster {theirs}, this is {ours}")]
    Cluster { ours: ClusterId, theirs: ClusterId },
    #[error("the token ended {seconds} s ago by this machine's clock")]
    Expired { seconds: u64 },
}

/// The key that signs. It is shown to nobody: no `Display`, and `Debug` hides it.
#[derive(Clone)]
pub struct ClusterKey(SigningKey);

impl ClusterKey {
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The text of a key file; surrounding white space is not part of it.
    pub fn parse(text: &str) -> Option<Self> {
        let seed: [u8; 32] = URL_SAFE_NO_PAD.decode(text.trim()).ok()?.try_into().ok()?;
        Some(Self::from_seed(seed))
    }

    /// The text of a key file.
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.to_bytes())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The token. The same claims give the same token.
    pub fn sign(&self, claims: &Claims) -> String {
        let json = serde_json::to_vec(claims).expect("claims are texts and numbers");
        let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
        let signature = self.0.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterKey(of {:?})", self.public())
    }
}

/// The key that checks; on the wire its 32 bytes as base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// What this key signed, of whichever cluster, over or not.
    pub fn signed(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX || !token.starts_with(PREFIX) {
            return Err(TokenError::Unreadable);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Unreadable)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Unreadable);
        let signature = Signature::from_slice(&decode(signature)?).map_err(|_| TokenError::Unreadable)?;
        self.0.verify_strict(signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        let json = decode(signed.strip_prefix(PREFIX).ok_or(TokenError::Unreadable)?)?;
        serde_json::from_slice(&json).map_err(|_| TokenError::Unreadable)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || de::Error::custom("no ed25519 public key in base64url");
        let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(text).ok().and_then(|b| b.try_into().ok()).ok_or_else(wrong)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| wrong())
    }
}

/// Whose tokens are believed: public, and given to every part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    pub cluster: ClusterId,
    pub key: PublicKey,
}

impl Trust {
    /// What a token says, if it was signed for this cluster and is not over.
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Claims, TokenError> {
        let claims = self.key.signed(token)?;
        if claims.cluster != self.cluster {
            return Err(TokenError::Cluster { ours: self.cluster.clone(), theirs: claims.cluster });
        }
        match claims.expires_unix_s {
            Some(end) if now_unix_s >= end => Err(TokenError::Expired { seconds: now_unix_s - end }),
            _ => Ok(claims),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> ClusterId {
        ClusterId::parse(text).expect("a name")
    }

    fn claims(scope: Scope) -> Claims {
        Claims { cluster: cluster("c1"), subject: "lb".to_owned(), scope, expires_unix_s: Some(100) }
    }

    fn world() -> (ClusterKey, Trust) {
        let key = ClusterKey::from_seed([7; 32]);
        let trust = Trust { cluster: cluster("c1"), key: key.public() };
        (key, trust)
    }

    #[test]
    fn what_was_signed_is_believed_until_its_end() {
        let (key, trust) = world();
        let scopes = [
            Scope::Admin,
            Scope::Read,
            Scope::Member { member: MemberKind::Dns },
            Scope::Repository { reach: Reach::Push },
            Scope::Release { app: AppName::parse("shop").expect("a name"), tag: "production-r1".to_owned() },
        ];
        for scope in scopes {
            let token = key.sign(&claims(scope.clone()));
            assert!(token.len() < TOKEN_BYTES_MAX / 2, "{token}");
            assert_eq!(trust.verify(&token, 99), Ok(claims(scope)));
            assert_eq!(trust.verify(&token, 103), Err(TokenError::Expired { seconds: 3 }));
        }
    }

    #[test]
    fn nothing_else_is_believed() {
        let (key, trust) = world();
        let token = key.sign(&claims(Scope::Read));
        let other = ClusterKey::from_seed([8; 32]).sign(&claims(Scope::Admin));
        assert_eq!(trust.verify(&other, 0), Err(TokenError::Signature));
        let foreign = key.sign(&Claims { cluster: cluster("c2"), ..claims(Scope::Admin) });
        assert_eq!(trust.verify(&foreign, 0), Err(TokenError::Cluster { ours: cluster("c1"), theirs: cluster("c2") }));
        for text in ["", "ptk1.", "ptk1..", "ptk1.e30.AA", "Bearer x", &token[1..], &token[..token.len() - 4]] {
            assert_eq!(trust.verify(text, 0), Err(TokenError::Unreadable), "{text}");
        }
        let (head, tail) = token.split_at(20);
        let flipped = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
        assert_eq!(trust.verify(&flipped, 0), Err(TokenError::Signature));
        assert_eq!(trust.verify(&"ptk1.".repeat(1000), 0), Err(TokenError::Unreadable));
    }

    #[test]
    fn keys_are_kept_as_text_and_never_shown() {
        let (key, trust) = world();
        let again = ClusterKey::parse(&format!("{}\n", key.expose())).expect("its own text");
        assert_eq!(again.public(), trust.key);
        assert!(!format!("{key:?}").contains(&key.expose()));
        assert!(ClusterKey::parse("short").is_none());
        let text = serde_json::to_string(&trust).expect("JSON");
        assert_eq!(serde_json::from_str::<Trust>(&text).expect("the same"), trust);
    }

    /// Frozen: a running instance's token must be readable by every release of this major version.
    #[test]
    fn the_form_stays() {
        let (key, _) = world();
        let token = key.sign(&claims(Scope::Member { member: MemberKind::Lb }));
        let json = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("three parts")).expect("base64");
        assert_eq!(
            String::from_utf8(json).expect("JSON"),
            r#"{"cluster":"c1","subject":"lb","scope":{"kind":"member","member":"lb"},"expires_unix_s":100}"#
        );
    }
}
