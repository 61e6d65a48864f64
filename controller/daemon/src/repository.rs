//! The repository as the controller uses it: versions in, release documents and tags out.

use std::time::Duration;

use appbase_core::v1::{Release, VersionDocument, media, unmet_needs};
use appbase_core::{AppName, Digest, Version};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use kit::client::{Client, ClientError};
use kit::problem::Problem;
use repository_core::manifest::{Descriptor, Manifest, manifest};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};

/// The repository's word for a tag that stands for other bytes.
pub(crate) const VERSION_EXISTS: &str = "version-exists";

/// Limit of each small request; blobs of images are streamed without one.
const LIMIT: Duration = Duration::from_secs(15);

/// Of a version's description; it is kept in memory.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Repository {
    client: Client,
}

/// A pushed version: its document and the layers its manifest names.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub document: VersionDocument,
    pub layers: Vec<Descriptor>,
}

impl Repository {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) async fn version(&self, app: &AppName, version: &Version) -> Result<Pushed, Problem> {
        let path = format!("/v2/{app}/manifests/{version}");
        let request = self.client.request(Method::GET, &path).header(ACCEPT, media::MANIFEST).timeout(LIMIT);
        let response = match self.client.send(request).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => {
                return Err(Problem::new(404, "unknown-version", format!("{app} has no version {version}"))
                    .hint(format!("push it first: platformctl artifact push {app} {version} <dir or file>")));
            }
            other => other.map_err(|error| unavailable(&error))?,
        };
        let bytes = response.bytes().await.map_err(|error| lost(&error))?;
        let parsed = Manifest::parse(Some(media::MANIFEST), &bytes).map_err(|error| foreign(app, version, &error))?;
        let config = parsed.config().filter(|_| parsed.artifact_type.as_deref() == Some(media::VERSION));
        let config = config.ok_or_else(|| {
            Problem::new(
                422,
                "not-an-artifact",
                format!("{app} {version} was not pushed as an artifact of the platform"),
            )
            .hint("push it with platformctl artifact push")
        })?;
        if config.size > DOCUMENT_BYTES_MAX {
            return Err(Problem::new(
                422,
                "bad-version",
                format!("{app} {version} is described by {} bytes", config.size),
            )
            .detail(format!("a description has at most {DOCUMENT_BYTES_MAX} bytes"))
            .hint("push it with platformctl artifact push"));
        }
        let document: VersionDocument = serde_json::from_slice(&self.blob(app, config.digest).await?)
            .map_err(|error| foreign(app, version, &error))?;
        let missing = unmet_needs(&document.needs);
        if !missing.is_empty() {
            return Err(Problem::new(422, "unmet-needs", format!("{app} {version} needs {}", missing.join(", ")))
                .hint("upgrade the platform first"));
        }
        Ok(Pushed { document, layers: parsed.layers().to_vec() })
    }

    async fn blob(&self, app: &AppName, digest: Digest) -> Result<Vec<u8>, Problem> {
        let request = self.client.request(Method::GET, &format!("/v2/{app}/blobs/{digest}")).timeout(LIMIT);
        let response = self.client.send(request).await.map_err(|error| unavailable(&error))?;
        let bytes = response.bytes().await.map_err(|error| lost(&error))?.to_vec();
        if Digest::of(&bytes) != digest {
            return Err(Problem::new(
                502,
                "damaged-blob",
                format!("blob {digest} of {app} is damaged in the repository"),
            ));
        }
        Ok(bytes)
    }

    /// A large blob, streamed; silence in the middle ends it.
    pub(crate) async fn stream(
        &self,
        app: &AppName,
        digest: Digest,
    ) -> Result<BoxStream<'static, std::io::Result<bytes::Bytes>>, Problem> {
        let request = self.client.request(Method::GET, &format!("/v2/{app}/blobs/{digest}"));
        let sent = tokio::time::timeout(LIMIT, self.client.send(request)).await.map_err(|_| silent())?;
        let chunks = sent.map_err(|error| unavailable(&error))?.bytes_stream().boxed();
        Ok(futures_util::stream::unfold(Some(chunks), async |chunks| {
            let mut chunks = chunks?;
            match tokio::time::timeout(LIMIT, chunks.next()).await {
                Ok(chunk) => chunk.map(|chunk| (chunk.map_err(std::io::Error::other), Some(chunks))),
                Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
            }
        })
        .boxed())
    }

    /// Puts a release document and its manifest, tagged `<environment>-r<number>`: pinned before anything runs of it.
    pub(crate) async fn pin(&self, release: &Release, layers: &[Descriptor]) -> Result<Digest, Problem> {
        let bytes = serde_json::to_vec(release).map_err(|error| Problem::unexpected(&error))?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let app = &release.app;
        let upload = format!("/v2/{app}/blobs/uploads/?digest={digest}");
        let request = self.client.request(Method::POST, &upload).header(CONTENT_TYPE, "application/octet-stream");
        self.client.send(request.body(bytes).timeout(LIMIT)).await.map_err(|error| unavailable(&error))?;
        let manifest = manifest(media::RELEASE, digest, size, layers);
        self.put_manifest(app, &format!("{}-r{}", release.environment, release.number), manifest).await?;
        Ok(digest)
    }

    /// Moves `<environment>-live` to a release that is pinned.
    pub(crate) async fn mark_live(&self, release: &Release) -> Result<(), Problem> {
        let app = &release.app;
        let path = format!("/v2/{app}/manifests/{}-r{}", release.environment, release.number);
        let request = self.client.request(Method::GET, &path).header(ACCEPT, media::MANIFEST).timeout(LIMIT);
        let response = self.client.send(request).await.map_err(|error| unavailable(&error))?;
        let manifest = response.bytes().await.map_err(|error| lost(&error))?.to_vec();
        self.put_manifest(app, &format!("{}-live", release.environment), manifest).await
    }

    async fn put_manifest(&self, app: &AppName, tag: &str, manifest: Vec<u8>) -> Result<(), Problem> {
        let path = format!("/v2/{app}/manifests/{tag}");
        let request = self.client.request(Method::PUT, &path).header(CONTENT_TYPE, media::MANIFEST);
        self.client.send(request.body(manifest).timeout(LIMIT)).await.map_err(|error| unavailable(&error))?;
        Ok(())
    }
}

fn unavailable(error: &ClientError) -> Problem {
    match error {
        ClientError::Refused(problem) => problem.clone(),
        other => Problem::new(503, "repository-unreachable", "the repository does not answer")
            .detail(other.to_string())
            .hint("see whether it runs: platformctl status"),
    }
}

fn silent() -> Problem {
    Problem::new(503, "repository-unreachable", format!("the repository said nothing for {} s", LIMIT.as_secs()))
}

fn lost(error: &reqwest::Error) -> Problem {
    Problem::new(503, "repository-unreachable", "the repository's answer broke off").detail(error.to_string())
}

fn foreign(app: &AppName, version: &Version, error: &dyn std::error::Error) -> Problem {
    Problem::new(422, "not-an-artifact", format!("{app} {version} cannot be read as an artifact"))
        .detail(kit::problem::chain(error))
}
