//! `artifact push | ls | show`

use std::path::PathBuf;

use appbase_core::v1::{VersionDocument, media};
use appbase_core::{AppName, Version};
use clap::{Args, Subcommand};
use repository_core::manifest::Manifest;
use reqwest::Method;

use crate::error::{Exit, Failure};
use crate::pack::pack;
use crate::push::{push, stored};
use crate::render::artifact::{self, Layer, Stored};
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Store a directory, a program, a .tar.gz or a docker-archive as a version
    Push {
        app: AppName,
        version: Version,
        path: PathBuf,
        /// The app file [default: platform.toml in the directory]
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Versions of an app
    #[command(alias = "list")]
    Ls { app: AppName },
    /// One version and its app file
    Show { app: AppName, version: Version },
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.verb {
        Verb::Push { app, version, path, file } => {
            let packed = pack(&path, file.as_deref())?;
            let pushed = push(session, &app, &version, packed).await?;
            session.output.show(&pushed, || format!("{}\n", artifact::pushed(&pushed)))?;
        }
        Verb::Ls { app } => list(session, &app).await?,
        Verb::Show { app, version } => show(session, &app, &version).await?,
    }
    Ok(Exit::Done)
}

async fn list(session: &Session<'_>, app: &AppName) -> Result<(), Failure> {
    let repository = session.repository().await?;
    let tags: serde_json::Value = repository.get(&format!("/v2/{app}/tags/list"), ANSWER_LIMIT).await?;
    let tags = tags["tags"].as_array().cloned().unwrap_or_default();
    let mut versions = Vec::new();
    for tag in tags.iter().filter_map(serde_json::Value::as_str) {
        if let Some((digest, manifest)) = stored(&repository, app, tag).await?
            && manifest.artifact_type.as_deref() == Some(media::VERSION)
        {
            versions.push(view(tag, &digest.to_string(), &manifest));
        }
    }
    session.output.show(&versions, || artifact::versions(&versions, session.output.width(), session.output.paint))
}

async fn show(session: &Session<'_>, app: &AppName, version: &Version) -> Result<(), Failure> {
    let repository = session.repository().await?;
    let Some((digest, manifest)) = stored(&repository, app, version.as_str()).await? else {
        return Err(Failure::new(Exit::NotFound, format!("{app} has no version {version}"))
            .hint("try", format!("platformctl artifact ls {app}")));
    };
    let config = manifest.config().filter(|_| manifest.artifact_type.as_deref() == Some(media::VERSION));
    let Some(config) = config else {
        return Err(Failure::input(format!("{app} {version} was not pushed as an artifact of the platform")));
    };
    let blob = format!("/v2/{app}/blobs/{}", config.digest);
    let response = repository.send(repository.request(Method::GET, &blob).timeout(ANSWER_LIMIT)).await?;
    let document: VersionDocument = repository.json(response).await?;
    let stored = view(version.as_str(), &digest.to_string(), &manifest);
    let paint = session.output.paint;
    session.output.show(&stored, || artifact::version(app.as_str(), &stored, &document.app_file, paint))
}

fn view(version: &str, digest: &str, manifest: &Manifest) -> Stored {
    let layers: Vec<Layer> =
        manifest.layers().iter().map(|layer| Layer { digest: layer.digest.to_string(), bytes: layer.size }).collect();
    let image = manifest.layers().iter().any(|layer| layer.media_type == media::DOCKER_ARCHIVE);
    Stored {
        version: version.to_owned(),
        manifest: digest.to_owned(),
        kind: if image { "image" } else { "artifact" }.to_owned(),
        bytes: layers.iter().map(|layer| layer.bytes).sum(),
        layers,
    }
}
