//! Bytes into the repository: what is there is not sent, what was cut is resumed.

mod progress;
mod upload;

use appbase_core::v1::media;
use appbase_core::v1::{Source, VersionDocument};
use appbase_core::{AppName, Digest, EnvironmentName, Version};
use controller_core::resolve::{Defaults, resolve};
use controller_core::v1::state::DesiredApp;
use kit::client::{Client, ClientError};
use repository_core::manifest::{Descriptor, Manifest, manifest};
use reqwest::Method;

use crate::error::{Exit, Failure};
use crate::pack::{Blob, Content, Packed};
use crate::render::artifact::Pushed;
use crate::session::{ANSWER_LIMIT, Session};

/// Stores `packed` as `version` of `app`.
pub(crate) async fn push(
    session: &Session<'_>,
    app: &AppName,
    version: &Version,
    packed: Packed,
) -> Result<Pushed, Failure> {
    let repository = session.repository().await?;
    let Packed { mut blob, content, app_file } = packed;
    let (source, layer_media) = match content {
        Content::Artifact => (Source::Artifact { layers: vec![blob.digest] }, media::LAYER),
        Content::Image(image) => (Source::Image { archive: blob.digest, image }, media::DOCKER_ARCHIVE),
    };
    let document = VersionDocument { needs: Vec::new(), app: app.clone(), version: version.clone(), source, app_file };
    // What could never be deployed takes no version's name.
    let environment = EnvironmentName::default_name();
    resolve(&document, &environment, &DesiredApp::default(), 1, &Defaults::default()).map_err(
        |error| match document.app_file.is_empty() {
            true => Failure::input(format!("no platform.toml: {error}")),
            false => Failure::input(format!("platform.toml: {error}")),
        },
    )?;
    let document = serde_json::to_vec(&document).expect("a version document is plain text");
    let mut config = Blob::of_bytes(&document)?;
    let layer = Descriptor { media_type: layer_media.to_owned(), digest: blob.digest, size: blob.bytes };
    let text = manifest(media::VERSION, config.digest, config.bytes, &[layer]);
    let digest = Digest::of(&text);
    let mut pushed = Pushed {
        app: app.to_string(),
        version: version.to_string(),
        outcome: "already-there",
        manifest: digest.to_string(),
        layers: 1,
        bytes: blob.bytes,
        bytes_sent: 0,
        took_ms: 0,
    };
    let is_there = match stored(&repository, app, version.as_str()).await? {
        Some((there, _)) if there == digest => true,
        Some(_) => return Err(taken(app, version)),
        None => false,
    };
    let progress = progress::Progress::new(&format!("{app} {version}"), blob.bytes, session.output);
    pushed.bytes_sent = upload::send(&repository, app, &mut blob, &progress).await?;
    upload::send(&repository, app, &mut config, &progress::Progress::silent()).await?;
    if is_there {
        // What was lost of it since has been sent again.
        return Ok(pushed);
    }
    let request = repository
        .request(Method::PUT, &format!("/v2/{app}/manifests/{version}"))
        .header("content-type", media::MANIFEST)
        .body(text)
        .timeout(ANSWER_LIMIT);
    match repository.send(request).await {
        Ok(_) => {}
        Err(ClientError::Refused(problem)) if problem.status == 409 => {
            return Err(Failure { message: problem.to_string(), code: problem.code.clone(), ..taken(app, version) });
        }
        Err(error) => return Err(error.into()),
    }
    pushed.outcome = "pushed";
    pushed.took_ms = u64::try_from(session.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(pushed)
}

fn taken(app: &AppName, version: &Version) -> Failure {
    Failure::new(
        Exit::Conflict,
        format!("{app} {version} is there already with other content, and a version never changes"),
    )
    .hint("try", format!("platformctl artifact push {app} NEXT-VERSION …"))
    .hint("or", format!("platformctl artifact show {app} {version}"))
}

/// The manifest behind a tag or digest, with its own digest.
pub(crate) async fn stored(
    repository: &Client,
    app: &AppName,
    reference: &str,
) -> Result<Option<(Digest, Manifest)>, Failure> {
    let request = repository
        .request(Method::GET, &format!("/v2/{app}/manifests/{reference}"))
        .header("accept", media::MANIFEST)
        .timeout(ANSWER_LIMIT);
    let bytes = match repository.send(request).await {
        Ok(response) => response.bytes().await,
        Err(ClientError::Refused(problem)) if problem.status == 404 => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let unreadable = |reason: String| ClientError::Unreadable { url: repository.base().to_owned(), reason };
    let bytes = bytes.map_err(|error| unreadable(error.without_url().to_string()))?;
    let manifest = Manifest::parse(None, &bytes).map_err(|error| unreadable(error.to_string()))?;
    Ok(Some((Digest::of(&bytes), manifest)))
}
