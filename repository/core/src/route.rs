//! What a path under `/v2/` asks for. Names may hold slashes, so the path is read from its end.

use appbase_core::Digest;

use crate::name::RepositoryName;
use crate::refusal::{Code, Refusal};
use crate::tag::{Reference, Tag};
use crate::upload::UploadId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: is this a registry, and may I?
    Base,
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, UploadId),
    Manifest(RepositoryName, Reference),
    Tags(RepositoryName),
    Referrers(RepositoryName, Digest),
}

/// What a request needs to be allowed to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Base,
    Pull(RepositoryName),
    Push(RepositoryName),
    Delete(RepositoryName),
}

impl Route {
    /// `path` as it came, undecoded: no valid name holds a percent sign.
    pub fn parse(path: &str) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(Code::Unsupported, "unknown-path", "this path means nothing here").status(404);
        let Some(rest) = path.strip_prefix("/v2") else { return Err(unknown()) };
        if matches!(rest, "" | "/") {
            return Ok(Self::Base);
        }
        let segments: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        let name = |segments: &[&str]| RepositoryName::parse(&segments.join("/"));
        match segments.as_slice() {
            [before @ .., "tags", "list"] => Ok(Self::Tags(name(before)?)),
            [before @ .., "manifests", text] => Ok(Self::Manifest(name(before)?, reference(text)?)),
            [before @ .., "blobs", "uploads"] | [before @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads(name(before)?))
            }
            [before @ .., "blobs", "uploads", id] => {
                let name = name(before)?;
                let id = UploadId::parse(id).ok_or_else(|| no_upload(&name))?;
                Ok(Self::Upload(name, id))
            }
            [before @ .., "blobs", text] => Ok(Self::Blob(name(before)?, digest(text)?)),
            [before @ .., "referrers", text] => Ok(Self::Referrers(name(before)?, digest(text)?)),
            _ => Err(unknown()),
        }
    }

    /// What `method` on this route needs.
    pub fn access(&self, method: &str) -> Access {
        let name = match self {
            Self::Base => return Access::Base,
            Self::Uploads(name) | Self::Upload(name, _) => return Access::Push(name.clone()),
            Self::Blob(name, _) | Self::Manifest(name, _) | Self::Tags(name) | Self::Referrers(name, _) => name.clone(),
        };
        match method {
            "GET" | "HEAD" => Access::Pull(name),
            "DELETE" => Access::Delete(name),
            _ => Access::Push(name),
        }
    }
}

pub fn no_upload(name: &RepositoryName) -> Refusal {
    Refusal::new(Code::BlobUploadUnknown, "upload-unknown", format!("no such upload to \"{name}\""))
        .hint("it was completed, cancelled or given up: begin a new one")
}

pub fn digest(text: &str) -> Result<Digest, Refusal> {
    Digest::parse(text).map_err(|error| Refusal::new(Code::DigestInvalid, "digest-invalid", error.to_string()))
}

fn reference(text: &str) -> Result<Reference, Refusal> {
    if text.contains(':') {
        return Ok(Reference::Digest(digest(text)?));
    }
    Ok(Reference::Tag(Tag::parse(text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_the_end() {
        let name = |text: &str| RepositoryName::parse(text).expect("a name");
        let digest = Digest::of(b"x");
        let id = "ab".repeat(16);
        for (path, route) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            (
                "/v2/a/b/manifests/1".to_owned(),
                Route::Manifest(name("a/b"), Reference::Tag(Tag::parse("1").expect("t"))),
            ),
            (format!("/v2/a/manifests/{digest}"), Route::Manifest(name("a"), Reference::Digest(digest))),
            (format!("/v2/a/blobs/{digest}"), Route::Blob(name("a"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/blobs/uploads/blobs/uploads".to_owned(), Route::Uploads(name("blobs/uploads"))),
            (format!("/v2/a/blobs/uploads/{id}"), Route::Upload(name("a"), UploadId::parse(&id).expect("an id"))),
        ] {
            assert_eq!(Route::parse(&path), Ok(route), "{path}");
        }
    }

    #[test]
    fn bad_paths_say_what_is_bad() {
        for (path, code) in [
            ("/v2/../tags/list", Code::NameInvalid),
            ("/v2/a/../b/tags/list", Code::NameInvalid),
            ("/v2/A/tags/list", Code::NameInvalid),
            ("/v2/a%2fb/tags/list", Code::NameInvalid),
            ("/v2/tags/list", Code::NameInvalid),
            ("/v2/a/blobs/sha256:xyz", Code::DigestInvalid),
            ("/v2/a/blobs/..", Code::DigestInvalid),
            ("/v2/a/manifests/sha512:00", Code::DigestInvalid),
            ("/v2/a/manifests/-", Code::ManifestInvalid),
            ("/v2/a/blobs/uploads/../../x", Code::Unsupported),
            ("/v2/a/blobs/uploads/..", Code::BlobUploadUnknown),
            ("/v2/a", Code::Unsupported),
            ("/v3/", Code::Unsupported),
        ] {
            assert_eq!(Route::parse(path).expect_err(path).code, code, "{path}");
        }
    }

    #[test]
    fn access_follows_the_method() {
        let route = Route::parse("/v2/a/manifests/1").expect("a route");
        let name = RepositoryName::parse("a").expect("a name");
        assert_eq!(route.access("HEAD"), Access::Pull(name.clone()));
        assert_eq!(route.access("PUT"), Access::Push(name.clone()));
        assert_eq!(route.access("DELETE"), Access::Delete(name.clone()));
        let uploads = Route::parse("/v2/a/blobs/uploads/").expect("a route");
        assert_eq!(uploads.access("GET"), Access::Push(name));
    }
}
