//! Images: loading them, asking for them, and the volume that brings boot into images that are not ours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, ImageInspect, Mount, MountType, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, ImportImageOptions, ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions,
};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use appbase_core::v1::label;

use super::spec::BOOT_DIRECTORY;
use super::{DockerEngine, fault, labels};
use crate::ComputeError;

/// A load of the largest image on a slow disk.
const LOAD_MAX: Duration = Duration::from_secs(1800);

impl DockerEngine {
    /// None when this Docker does not have it.
    pub(crate) async fn inspect_image(&self, image: &str) -> Result<Option<ImageInspect>, ComputeError> {
        match self.docker.inspect_image(image).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if fault::is_missing(&error) => Ok(None),
            Err(error) => Err(self.fault(error, || format!("look for image {image}"))),
        }
    }

    /// The answer stream of a load may end with a false error, and may end well without the image: only a look at the
    /// image says how it went.
    pub(crate) async fn load(
        &self,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
        image: &str,
    ) -> Result<(), ComputeError> {
        // One at a time: instances of one release ask for the same image at once, and the first brings it for all.
        let _one_at_a_time = self.loads.lock().await;
        if self.inspect_image(image).await?.is_some() {
            return Ok(());
        }
        // Docker takes an archive that broke off for one that ends there, so the break is remembered here.
        let broken: Arc<Mutex<Option<String>>> = Arc::default();
        let note = Arc::clone(&broken);
        let archive = archive.inspect(move |chunk| {
            if let Err(error) = chunk {
                *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("the archive broke off: {error}"));
            }
        });
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        // The answer begins when all of it was taken.
        let docker = self.docker.clone().with_timeout(LOAD_MAX);
        let mut answers = docker.import_image_stream(options, archive, None).boxed();
        let mut last = None;
        while let Some(answer) = answers.next().await {
            if let Err(error) = answer {
                last = Some(error);
            }
        }
        drop(answers);
        if self.inspect_image(image).await?.is_some() {
            return Ok(());
        }
        let what = || format!("load image {image}");
        let broken = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (broken, last) {
            (Some(reason), _) => Err(ComputeError::Failed { what: what(), reason }),
            (None, Some(error)) => Err(self.fault(error, what)),
            (None, None) => {
                Err(ComputeError::Failed { what: what(), reason: "the archive holds another image".to_owned() })
            }
        }
    }

    /// The volume with the boot of the base image, made at the first call. Its name carries the image's id, so that a
    /// new boot never changes under an instance that runs.
    pub(crate) async fn ensure_boot_volume(&self) -> Result<String, ComputeError> {
        let base = self.config.base_image.as_str();
        let found = self.inspect_image(base).await?.ok_or_else(|| self.no_image(base))?;
        let id = found.id.unwrap_or_default();
        let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
        let name = format!("{}-{}-{short}", self.config.boot_volume, self.config.cluster);
        let mut made = self.boot_volumes.lock().await;
        if made.as_deref() != Some(&name) {
            self.ensure_volume(&name, "boot").await?;
            self.fill_from_base(&name, BOOT_DIRECTORY).await?;
            *made = Some(name.clone());
        }
        Ok(name)
    }

    /// Docker copies what an image has at a place into an empty volume that is mounted there, when a container is made;
    /// the container is never started.
    pub(crate) async fn fill_from_base(&self, volume: &str, target: &str) -> Result<(), ComputeError> {
        let helper = format!("{volume}-filler");
        self.discard(&helper).await?;
        let mount = Mount {
            target: Some(target.to_owned()),
            source: Some(volume.to_owned()),
            typ: Some(MountType::VOLUME),
            ..Mount::default()
        };
        let mut labels = self.own_labels();
        labels.insert(labels::PART.to_owned(), "filler".to_owned());
        let body = ContainerCreateBody {
            image: Some(self.config.base_image.clone()),
            labels: Some(labels.into_iter().collect()),
            network_disabled: Some(true),
            host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptions { name: Some(helper.clone()), ..CreateContainerOptions::default() };
        let created = self.docker.create_container(Some(options), body).await;
        created.map_err(|error| self.fault(error, || format!("fill volume {volume}")))?;
        self.discard(&helper).await
    }

    /// A volume of that name with our labels; one of another owner is refused.
    pub(crate) async fn ensure_volume(&self, name: &str, part: &str) -> Result<(), ComputeError> {
        let mut labels = self.own_labels();
        labels.insert("io.platformer.volume".to_owned(), part.to_owned());
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.into_iter().collect()),
            ..VolumeCreateRequest::default()
        };
        let volume = self.docker.create_volume(request).await;
        let volume = volume.map_err(|error| self.fault(error, || format!("make volume {name}")))?;
        if volume.labels.get(label::CLUSTER).map(String::as_str) != Some(self.config.cluster.as_str()) {
            let reason = format!("a volume {name} exists and is not of cluster {}", self.config.cluster);
            return Err(ComputeError::Refused { reason });
        }
        Ok(())
    }

    /// Takes volumes of instances away that no container has: of a controller that was killed between two steps. Only
    /// before anything is made.
    pub(crate) async fn sweep_volumes(&self) -> Result<(), ComputeError> {
        let label = |(name, value): (String, String)| format!("{name}={value}");
        let mut labels: Vec<String> = self.own_labels().into_iter().map(label).collect();
        labels.push("io.platformer.volume=instance".to_owned());
        let filters = [("dangling".to_owned(), vec!["true".to_owned()]), ("label".to_owned(), labels)];
        let options = ListVolumesOptions { filters: Some(filters.into()) };
        let listed = self.docker.list_volumes(Some(options)).await;
        let listed = listed.map_err(|error| self.fault(error, || "list volumes".to_owned()))?;
        for volume in listed.volumes.unwrap_or_default() {
            match self.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                Ok(()) => tracing::info!(volume = volume.name, "volume without an instance removed"),
                Err(error) if fault::is_missing(&error) => {}
                Err(error) => return Err(self.fault(error, || format!("remove volume {}", volume.name))),
            }
        }
        Ok(())
    }

    pub(crate) fn no_image(&self, image: &str) -> ComputeError {
        let how = if image == self.config.base_image {
            "run `make up`, or `docker load` the archive of the release"
        } else {
            "push it with `platformctl`, or `docker load` it on this server"
        };
        ComputeError::Failed { what: format!("use image {image}"), reason: format!("it is not on this server: {how}") }
    }

    /// Takes a container away, whatever it does; one that is not there is away.
    pub(crate) async fn discard(&self, name: &str) -> Result<(), ComputeError> {
        let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
        match self.docker.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if fault::is_missing(&error) => Ok(()),
            Err(error) => Err(self.fault(error, || format!("remove container {name}"))),
        }
    }
}
