//! Instances: made, started, stopped and removed as containers.
//!
//! Owns: one container and one volume per instance. Refuses: to touch a container without this cluster's labels.

use std::time::Duration;

use appbase_core::InstanceId;
use appbase_core::v1::label;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptions, DownloadFromContainerOptions, InspectContainerOptions, RemoveVolumeOptions,
    StartContainerOptions, StopContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use controller_core::v1::compute::CreateInstance;
use futures_util::StreamExt;

use super::closed::{self, Allowed};
use super::spec::{self, APP_USER, INSTANCE_DIRECTORY, Surroundings};
use super::{DockerEngine, config_archive, fault, labels, user};
use crate::ComputeError;

/// How much longer than the grace Docker may take to answer a stop.
const STOP_SLACK: Duration = Duration::from_secs(30);
/// `/etc/passwd` and `/etc/group` of an image are not larger.
const USER_FILE_BYTES_MAX: usize = 1 << 20;

impl DockerEngine {
    pub(crate) async fn make(&self, request: &CreateInstance) -> Result<(), ComputeError> {
        let what = || format!("create instance {}", request.id);
        if request.labels.cluster != self.config.cluster || request.labels.server != self.config.server {
            let reason = format!("instance {} is of another cluster or server", request.id);
            return Err(ComputeError::Refused { reason });
        }
        let name = self.name_of(&request.id);
        let image = spec::image(request, &self.config.base_image);
        let environment = self.ensure_environment(&request.labels.environment, request.ip, request.network);
        let (existing, found, network) = tokio::join!(self.inspect(&name), self.inspect_image(image), environment);
        let (existing, found) = (existing?, found?);
        if let Some(existing) = existing {
            return self.adopt(request, &existing).await;
        }
        let found = found.ok_or_else(|| self.no_image(image))?;
        let of_image = found.config.unwrap_or_default();
        let network = network?;
        let boot_volume = if spec::needs_boot(request) { Some(self.ensure_boot_volume().await?) } else { None };
        let around = Surroundings {
            base_image: &self.config.base_image,
            network: &network.name,
            dns: network.dns,
            boot_volume: boot_volume.as_deref(),
            project: self.project(),
            volume: &name,
            image_labels: of_image.labels.iter().flatten().map(|(name, _)| name.clone()).collect(),
            image_words: of_image.entrypoint.into_iter().flatten().chain(of_image.cmd.into_iter().flatten()).collect(),
        };
        let body = spec::container(request, &around)?;
        let allowed = Allowed { network: &network.name, volume: &name, boot_volume: boot_volume.as_deref() };
        closed::check(&body, allowed)?;

        self.ensure_volume(&name, "instance").await?;
        if request.base.is_some() {
            // Another base has no place for the volume; from ours it gets its owner.
            self.fill_from_base(&name, INSTANCE_DIRECTORY).await?;
        }
        let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => {
                tracing::info!(instance = %request.id, image, "instance made");
                let user = of_image.user.unwrap_or_default();
                self.put_config(request, &user).await
            }
            Err(error) if fault::is_conflict(&error) => match self.inspect(&name).await? {
                Some(existing) => self.adopt(request, &existing).await,
                None => Err(self.fault(error, what)),
            },
            Err(error) => {
                // Nobody would look for it: no container names it.
                let _ = self.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await;
                Err(self.fault(error, what))
            }
        }
    }

    /// An existing container is this instance when all its labels say so.
    async fn adopt(&self, request: &CreateInstance, found: &ContainerInspectResponse) -> Result<(), ComputeError> {
        let existing = found.config.as_ref().and_then(|config| config.labels.as_ref());
        let read = labels::parse(|name| existing.and_then(|labels| labels.get(name)).map(String::as_str));
        if read.as_ref() != Ok(&request.labels) {
            let why = match read {
                Ok(other) if other.cluster != self.config.cluster => format!("it is of cluster {}", other.cluster),
                Ok(_) => "its labels differ".to_owned(),
                Err(error) => error.to_string(),
            };
            let reason = format!(
                "a container {} exists and is not this instance ({why}): remove or rename it",
                self.name_of(&request.id)
            );
            return Err(ComputeError::Refused { reason });
        }
        // Made, perhaps without its config; a running one read its config long ago.
        let state = found.state.as_ref().and_then(|state| state.status);
        if state == Some(ContainerStateStatusEnum::CREATED) {
            let image = found.config.as_ref().and_then(|config| config.user.clone()).unwrap_or_default();
            return self.put_config(request, &image).await;
        }
        Ok(())
    }

    /// `instance.json`, 0600, for the user that boot runs as, into the instance's own volume.
    async fn put_config(&self, request: &CreateInstance, image_user: &str) -> Result<(), ComputeError> {
        let what = || format!("write the config of instance {}", request.id);
        let failed = |reason: String| ComputeError::Failed { what: what(), reason };
        let id = self.name_of(&request.id);
        let id = id.as_str();
        let artifact = matches!(request.source, appbase_core::v1::Source::Artifact { .. });
        let (uid, gid) = if artifact {
            (APP_USER, APP_USER)
        } else {
            let (passwd, group) = if user::needs_files(image_user) {
                (self.read_file(id, "/etc/passwd").await, self.read_file(id, "/etc/group").await)
            } else {
                (String::new(), String::new())
            };
            user::resolve(image_user, &passwd, &group).ok_or_else(|| {
                failed(format!("its image runs as \"{image_user}\", which its /etc/passwd does not name"))
            })?
        };
        let json = serde_json::to_vec(&request.config).map_err(|error| failed(error.to_string()))?;
        // A read-only root lets Docker write below the volume only; there the volume's owner is right already.
        let (path, archive) = if artifact {
            (INSTANCE_DIRECTORY, config_archive::file_only(&json, uid, gid))
        } else {
            ("/", config_archive::with_directory(&json, uid, gid))
        };
        let archive = archive.map_err(|error| failed(error.to_string()))?;
        let options = UploadToContainerOptions { path: path.to_owned(), ..UploadToContainerOptions::default() };
        let put = self.docker.upload_to_container(id, Some(options), bollard::body_full(Bytes::from(archive))).await;
        put.map_err(|error| self.fault(error, what))
    }

    /// A small file of a container; empty when there is none.
    async fn read_file(&self, container: &str, path: &str) -> String {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        let mut chunks = self.docker.download_from_container(container, Some(options)).boxed();
        let mut tar = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            tar.extend_from_slice(&chunk);
            if tar.len() > USER_FILE_BYTES_MAX {
                return String::new();
            }
        }
        config_archive::first_file(&tar).unwrap_or_default()
    }

    /// None when there is no such container.
    pub(crate) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, ComputeError> {
        match self.docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if fault::is_missing(&error) => Ok(None),
            Err(error) => Err(self.fault(error, || format!("look at container {name}"))),
        }
    }

    /// The instance's container; none when there is none, refused when it is somebody else's.
    pub(crate) async fn own(&self, id: &InstanceId) -> Result<Option<ContainerInspectResponse>, ComputeError> {
        let Some(found) = self.inspect(&self.name_of(id)).await? else { return Ok(None) };
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        let cluster = labels.and_then(|labels| labels.get(label::CLUSTER)).map(String::as_str);
        if cluster != Some(self.config.cluster.as_str()) {
            let reason = format!("container {id} is not of cluster {}: it is left alone", self.config.cluster);
            return Err(ComputeError::Refused { reason });
        }
        Ok(Some(found))
    }

    pub(crate) async fn start_instance(&self, id: &InstanceId) -> Result<(), ComputeError> {
        if self.own(id).await?.is_none() {
            return Err(ComputeError::Unknown(id.clone()));
        }
        match self.docker.start_container(&self.name_of(id), None::<StartContainerOptions>).await {
            Ok(()) => Ok(()),
            Err(error) if fault::is_missing(&error) && self.inspect(&self.name_of(id)).await?.is_none() => {
                Err(ComputeError::Unknown(id.clone()))
            }
            Err(error) => Err(self.fault(error, || format!("start instance {id}"))),
        }
    }

    pub(crate) async fn stop_instance(&self, id: &InstanceId, grace: Duration) -> Result<(), ComputeError> {
        if self.own(id).await?.is_none() {
            return Ok(());
        }
        let seconds = i32::try_from(grace.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX);
        let docker = self.docker.clone().with_timeout(grace.saturating_add(STOP_SLACK));
        let options = StopContainerOptions { t: Some(seconds), ..StopContainerOptions::default() };
        match docker.stop_container(&self.name_of(id), Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if fault::is_missing(&error) => Ok(()),
            Err(error) => Err(self.fault(error, || format!("stop instance {id}"))),
        }
    }

    pub(crate) async fn remove_instance(&self, id: &InstanceId) -> Result<(), ComputeError> {
        if self.own(id).await?.is_some() {
            self.discard(&self.name_of(id)).await?;
        }
        let volume = self.name_of(id);
        let what = || format!("remove volume {volume}");
        // A crash between two steps may have left the volume alone.
        let found = match self.docker.inspect_volume(&volume).await {
            Ok(found) => found,
            Err(error) if fault::is_missing(&error) => return Ok(()),
            Err(error) => return Err(self.fault(error, what)),
        };
        if found.labels.get(label::CLUSTER).map(String::as_str) != Some(self.config.cluster.as_str()) {
            return Ok(());
        }
        match self.docker.remove_volume(&volume, None::<RemoveVolumeOptions>).await {
            Ok(()) => Ok(()),
            Err(error) if fault::is_missing(&error) => Ok(()),
            Err(error) => Err(self.fault(error, what)),
        }
    }
}
