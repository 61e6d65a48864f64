//! Fetch: a release document and its artifact from the repository, verified before anything of it counts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use appbase_core::v1::{InstanceConfig, InstanceSpec, Release, Source, Value, media, unmet_needs};
use appbase_core::{AppName, Digest, EnvironmentName, InstanceId, ProcessName};
use kit::client::{Client, ClientError};
use kit::problem::chain;
use reqwest::Method;
use sha2::Digest as _;

use crate::backoff::Backoff;
use crate::directory::{Directory, remove_tree};
use crate::marker::{self, Marker};
use crate::unpack::{BYTES_MAX, Budget, UnpackError, unpack};

/// A release document holds values and routes, never files.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// From request to the head of the answer, and between two pieces of a body: a silent repository is an unreachable one.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What this boot is to run.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Instance(Box<InstanceConfig>),
    Live { app: AppName, repository: String },
}

/// Verified and unpacked: ready to start.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) config: InstanceConfig,
    pub(crate) spec: InstanceSpec,
    /// None: it was here.
    pub(crate) fetched: Option<Fetched>,
}

/// What came from the repository and is not durable yet: no start needs that but the next one.
#[derive(Debug)]
pub(crate) struct Fetched {
    marker: Marker,
    document: Vec<u8>,
}

impl Fetched {
    pub(crate) fn keep(&self, directory: &Directory) -> Result<(), FetchError> {
        marker::write(directory, &self.marker, &self.document).map_err(|source| disk(&directory.marker(), source))
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot fetch {what}")]
    Repository { what: String, source: Box<ClientError> },
    #[error("cannot fetch {what}: it has digest {got} instead; the repository or the way to it is damaged")]
    Digest { what: String, got: Digest },
    #[error("cannot fetch {what}: it is larger than {max} bytes")]
    TooLarge { what: String, max: u64 },
    #[error("cannot fetch {what}: it is unreadable: {reason}")]
    Unreadable { what: String, reason: String },
    #[error("cannot unpack layer {layer} of {app}")]
    Unpack { app: AppName, layer: Digest, source: Box<UnpackError> },
    #[error("cannot write to {path}")]
    Disk { path: String, source: io::Error },
    #[error("release {release} of {app} {reason}")]
    Refused { app: AppName, release: u64, reason: String },
}

impl FetchError {
    /// Whether trying again can help: never when verified bytes themselves are the reason.
    fn passes(&self) -> bool {
        match self {
            Self::Repository { .. } | Self::Digest { .. } | Self::Disk { .. } => true,
            Self::Unpack { source, .. } => matches!(**source, UnpackError::Write { .. }),
            Self::TooLarge { .. } | Self::Unreadable { .. } | Self::Refused { .. } => false,
        }
    }
}

/// Makes what is wanted ready, trying again until it succeeds or cannot. `report` gets each problem once per change.
pub(crate) fn prepare(
    wanted: &Wanted,
    directory: &Directory,
    report: &mut dyn FnMut(&str),
) -> Result<Prepared, FetchError> {
    let here = marker::read(directory);
    if let (Wanted::Instance(config), Some((marker, release))) = (wanted, &here)
        && marker.document == config.document
        && marker.process == config.process
    {
        return checked(config, release);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| FetchError::Disk { path: "the kernel's event queue".to_owned(), source })?;
    let mut backoff = Backoff::fetches();
    let mut said = String::new();
    loop {
        let error = match runtime.block_on(attempt(wanted, directory)) {
            Ok(prepared) => return Ok(prepared),
            Err(error) if !error.passes() => return Err(error),
            Err(error) => error,
        };
        let problem = chain(&error);
        if problem != said {
            report(&problem);
            said = problem;
        }
        if let (Wanted::Live { app, .. }, Some((marker, release))) = (wanted, &here)
            && marker.app == *app
        {
            report("starting what was fetched before");
            let config = live_config(release, marker.document, &marker.process, "");
            return checked(&config, release);
        }
        thread::sleep(backoff.pause());
    }
}

async fn attempt(wanted: &Wanted, directory: &Directory) -> Result<Prepared, FetchError> {
    let (source, known) = match wanted {
        Wanted::Instance(config) => {
            let token = Some(config.token.clone()).filter(|token| !token.is_empty());
            let source = Repository { client: Client::new(&config.repository, token), app: config.app.clone() };
            (source, Some(config.as_ref().clone()))
        }
        Wanted::Live { app, repository } => {
            (Repository { client: Client::new(repository, None), app: app.clone() }, None)
        }
    };
    let document = match &known {
        Some(config) => config.document,
        None => source.live_document().await?,
    };
    let bytes = source.document(document).await?;
    let what = || format!("release document {document} of {}", source.app);
    let unreadable = |error: serde_json::Error| FetchError::Unreadable { what: what(), reason: error.to_string() };
    let release: Release = serde_json::from_slice(&bytes).map_err(unreadable)?;
    let config =
        known.unwrap_or_else(|| live_config(&release, document, &ProcessName::default_name(), source.client.base()));
    let prepared = checked(&config, &release)?;
    source.unpack_all(&prepared.spec, directory).await?;
    let layers = marker::layers(&prepared.spec).to_vec();
    let marker = Marker { app: config.app.clone(), process: config.process.clone(), document, layers };
    Ok(Prepared { fetched: Some(Fetched { marker, document: bytes }), ..prepared })
}

/// What this boot can run of a release, or why it will not.
fn checked(config: &InstanceConfig, release: &Release) -> Result<Prepared, FetchError> {
    let refused = |reason: String| FetchError::Refused { app: release.app.clone(), release: release.number, reason };
    let unmet = [unmet_needs(&release.needs), unmet_needs(&config.needs)].concat();
    if !unmet.is_empty() {
        return Err(refused(format!("needs {}, which this boot does not know: update the platform", unmet.join(", "))));
    }
    if release.app != config.app {
        return Err(refused(format!("is not of {}, which this instance is to run", config.app)));
    }
    let Some(spec) = release.processes.get(&config.process) else {
        let known: Vec<&str> = release.processes.keys().map(ProcessName::as_str).collect();
        return Err(refused(format!("has no process {}, only: {}", config.process, known.join(", "))));
    };
    if let Some((name, _)) = spec.values.iter().find(|(_, value)| matches!(value, Value::Secret { .. })) {
        return Err(refused(format!("has the secret {name}: this boot cannot open secrets")));
    }
    Ok(Prepared { config: config.clone(), spec: spec.clone(), fetched: None })
}

/// The config of an instance that no controller made.
fn live_config(release: &Release, document: Digest, process: &ProcessName, repository: &str) -> InstanceConfig {
    let label = release.version.label();
    InstanceConfig {
        needs: Vec::new(),
        instance: InstanceId::of(&release.environment, &release.app, &label, release.number, process, 1),
        environment: release.environment.clone(),
        app: release.app.clone(),
        version: release.version.clone(),
        process: process.clone(),
        number: 1,
        release: release.number,
        document,
        repository: repository.to_owned(),
        token: String::new(),
        environment_variables: Default::default(),
        restart: false,
    }
}

fn disk(path: &Path, source: io::Error) -> FetchError {
    FetchError::Disk { path: path.display().to_string(), source }
}

struct Repository {
    client: Client,
    app: AppName,
}

impl Repository {
    /// The release that the default environment's live tag names.
    async fn live_document(&self) -> Result<Digest, FetchError> {
        let tag = format!("{}-live", EnvironmentName::DEFAULT);
        let what = format!("manifest {tag} of {}", self.app);
        let path = format!("/v2/{}/manifests/{tag}", self.app);
        let mut bytes = Vec::new();
        self.read(&what, &path, DOCUMENT_BYTES_MAX, &mut bytes).await?;
        #[derive(serde::Deserialize)]
        struct Manifest {
            config: Descriptor,
        }
        #[derive(serde::Deserialize)]
        struct Descriptor {
            digest: Digest,
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| FetchError::Unreadable { what, reason: error.to_string() })?;
        Ok(manifest.config.digest)
    }

    async fn document(&self, digest: Digest) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        self.blob("release document", digest, DOCUMENT_BYTES_MAX, &mut bytes).await?;
        Ok(bytes)
    }

    /// All layers into one new directory, which takes the place of `app/` only when it is whole.
    async fn unpack_all(&self, spec: &InstanceSpec, directory: &Directory) -> Result<(), FetchError> {
        let Source::Artifact { layers } = &spec.source else { return Ok(()) };
        let unfinished = directory.unfinished();
        let new = unfinished.join("app");
        remove_tree(&unfinished).and_then(|()| fs::create_dir_all(&new)).map_err(|source| disk(&unfinished, source))?;
        let result = self.unpack_into(layers, &unfinished, &new).await.and_then(|()| {
            marker::remove(directory)
                .and_then(|()| remove_tree(&directory.app()))
                .and_then(|()| fs::rename(&new, directory.app()))
                .map_err(|source| disk(&directory.app(), source))
        });
        // Nothing half-unpacked stays; what cannot be removed now is removed by the next attempt.
        let _ = remove_tree(&unfinished);
        result
    }

    async fn unpack_into(&self, layers: &[Digest], unfinished: &Path, new: &Path) -> Result<(), FetchError> {
        let packed = unfinished.join("layer");
        let fail = |source| disk(&packed, source);
        let mut budget = Budget::default();
        for layer in layers {
            let mut file = File::create(&packed).map_err(fail)?;
            self.blob("layer", *layer, BYTES_MAX, &mut file).await?;
            let packed = io::BufReader::new(File::open(&packed).map_err(fail)?);
            unpack(packed, new, &mut budget).map_err(|source| FetchError::Unpack {
                app: self.app.clone(),
                layer: *layer,
                source: Box::new(source),
            })?;
        }
        Ok(())
    }

    /// One blob, streamed; an error when what came is not what the digest says.
    async fn blob(&self, noun: &str, digest: Digest, max: u64, into: &mut impl Write) -> Result<(), FetchError> {
        let what = format!("{noun} {digest} of {}", self.app);
        let path = format!("/v2/{}/blobs/{digest}", self.app);
        let got = self.read(&what, &path, max, into).await?;
        if got != digest {
            return Err(FetchError::Digest { what, got });
        }
        Ok(())
    }

    async fn read(&self, what: &str, path: &str, max: u64, into: &mut impl Write) -> Result<Digest, FetchError> {
        let silent = || ClientError::Unreachable {
            url: self.client.base().to_owned(),
            reason: format!("silent for {} s", SILENCE_MAX.as_secs()),
        };
        let repository = |source| FetchError::Repository { what: what.to_owned(), source: Box::new(source) };
        let request = self.client.request(Method::GET, path).header("accept", format!("{}, */*", media::MANIFEST));
        let head = tokio::time::timeout(SILENCE_MAX, self.client.send(request)).await;
        let mut answer = head.map_err(|_| repository(silent()))?.map_err(repository)?;
        let mut hash = sha2::Sha256::new();
        let mut bytes = 0;
        loop {
            let piece = tokio::time::timeout(SILENCE_MAX, answer.chunk()).await.map_err(|_| repository(silent()))?;
            let piece = piece.map_err(|error| {
                let reason = chain(&error.without_url());
                repository(ClientError::Unreachable { url: self.client.base().to_owned(), reason })
            })?;
            let Some(piece) = piece else { return Ok(Digest::from_bytes(hash.finalize().into())) };
            bytes += piece.len() as u64;
            if bytes > max {
                return Err(FetchError::TooLarge { what: what.to_owned(), max });
            }
            hash.update(&piece);
            into.write_all(&piece).map_err(|source| FetchError::Disk { path: what.to_owned(), source })?;
        }
    }
}
