//! What the repository answers when it will not: the error codes of OCI Distribution, and the one place where errors
//! become them.

use crate::manifest::ManifestError;
use crate::name::NameError;
use crate::tag::{TagConflict, TagError};
use crate::upload::UploadError;
use crate::v1::{ErrorBody, ErrorEntry};

/// The codes of the distribution specification, and `Unavailable`, which registries add for their own failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    Unavailable,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    /// The HTTP status unless the refusal says another.
    pub fn status(self) -> u16 {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestBlobUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => 404,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid => 400,
            Self::Unauthorized => 401,
            Self::Denied => 403,
            Self::Unsupported => 405,
            Self::TooManyRequests => 429,
            Self::Unavailable => 503,
        }
    }
}

/// One refusal: a code for registry clients, a stable word for our own, a sentence and a hint for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: Code,
    pub status: u16,
    /// Stable, lower case with dashes: `version-exists`.
    pub word: &'static str,
    pub message: String,
    pub hint: String,
}

impl Refusal {
    pub fn new(code: Code, word: &'static str, message: impl Into<String>) -> Self {
        Self { code, status: code.status(), word, message: message.into(), hint: String::new() }
    }

    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The answer's body: the OCI form, and beside it the members of a problem document, so that registry clients
    /// and our own both find what they know.
    pub fn body(&self) -> ErrorBody {
        let entry = ErrorEntry {
            code: self.code.as_str().to_owned(),
            message: self.message.clone(),
            detail: (!self.hint.is_empty()).then(|| self.hint.clone()),
        };
        ErrorBody {
            errors: vec![entry],
            status: self.status,
            code: self.word.to_owned(),
            title: self.message.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::new(Code::NameInvalid, "name-invalid", error.to_string())
    }
}

impl From<TagError> for Refusal {
    fn from(error: TagError) -> Self {
        Self::new(Code::ManifestInvalid, "tag-invalid", error.to_string())
    }
}

impl From<TagConflict> for Refusal {
    fn from(error: TagConflict) -> Self {
        Self::new(Code::Denied, "version-exists", error.to_string())
            .status(409)
            .hint("a version is never overwritten: push the new bytes under a new version")
    }
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        let message = error.to_string();
        match error {
            ManifestError::TooLarge => Self::new(Code::SizeInvalid, "manifest-too-large", message).status(413),
            ManifestError::Digest(_) => Self::new(Code::DigestInvalid, "digest-invalid", message),
            _ => Self::new(Code::ManifestInvalid, "manifest-invalid", message),
        }
    }
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::OutOfOrder { .. } | UploadError::Length { .. } => {
                Self::new(Code::BlobUploadInvalid, "chunk-out-of-order", message).status(416)
            }
            UploadError::Range(_) => Self::new(Code::BlobUploadInvalid, "content-range-invalid", message),
            UploadError::TooLarge { .. } => Self::new(Code::SizeInvalid, "blob-too-large", message).status(413),
            UploadError::Busy => Self::new(Code::TooManyRequests, "upload-busy", message).hint("try again shortly"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_speak_to_registry_clients_and_to_ours() {
        let refusal = Refusal::new(Code::BlobUnknown, "blob-unknown", "no such blob").hint("push it first");
        let body = serde_json::to_value(refusal.body()).expect("plain text");
        assert_eq!(
            body,
            serde_json::json!({
                "errors": [{"code": "BLOB_UNKNOWN", "message": "no such blob", "detail": "push it first"}],
                "status": 404, "code": "blob-unknown", "title": "no such blob", "hint": "push it first",
            })
        );
    }
}
