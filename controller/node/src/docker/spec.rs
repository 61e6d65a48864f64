//! Spec: the container that an instance becomes, as a request to Docker. Pure.
//!
//! Owns: command, mounts, limits and hardening. An artifact runs as 65532 with a read-only root and no capability; an
//! image keeps its user and a writable root. [`super::closed`] checks the result before it goes out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use appbase_core::v1::Source;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountType, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use controller_core::v1::compute::CreateInstance;

use super::labels;
use crate::ComputeError;

/// Who runs an artifact, and owns its volume.
pub(crate) const APP_USER: u32 = 65_532;
/// Where an instance's own volume is: boot unpacks here and reads `instance.json` here.
pub(crate) const INSTANCE_DIRECTORY: &str = "/platformer/instance";
/// boot, in the app-base image and in every other through the volume.
const BASE_BOOT: &str = "/platformer/bin/boot";
/// Where the volume with boot is mounted in images that are not ours; it is the same place.
pub(crate) const BOOT_DIRECTORY: &str = "/platformer/bin";

const PIDS: u64 = 256;
const MEMORY_BYTES: u64 = 128 << 20;
/// Docker refuses less than 6 MiB; an app that gets less than this does not start either.
const MEMORY_BYTES_MIN: u64 = 6 << 20;
const LOG_FILE: &str = "10m";
const LOG_FILES: &str = "3";

/// What the surroundings say, beside the request.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings<'a> {
    pub(crate) base_image: &'a str,
    pub(crate) network: &'a str,
    pub(crate) dns: Option<IpAddr>,
    /// The volume that holds boot; given for every image but the platform's own.
    pub(crate) boot_volume: Option<&'a str>,
    pub(crate) project: &'a str,
    /// The instance's own volume.
    pub(crate) volume: &'a str,
    /// Names of the labels that the image brings along.
    pub(crate) image_labels: Vec<String>,
    /// Entrypoint and command of the image itself, used when the request names no command.
    pub(crate) image_words: Vec<String>,
}

/// The image an instance runs in.
pub(crate) fn image<'a>(request: &'a CreateInstance, base_image: &'a str) -> &'a str {
    match &request.source {
        Source::Image { image, .. } => image,
        Source::Artifact { .. } => request.base.as_deref().unwrap_or(base_image),
    }
}

/// Whether boot must be brought along, because the image is not the platform's own.
pub(crate) fn needs_boot(request: &CreateInstance) -> bool {
    matches!(request.source, Source::Image { .. }) || request.base.is_some()
}

pub(crate) fn container(
    request: &CreateInstance,
    around: &Surroundings<'_>,
) -> Result<ContainerCreateBody, ComputeError> {
    let hardened = matches!(request.source, Source::Artifact { .. });
    // Docker would add the image's own labels, and an image that calls itself a part of the platform would be treated as
    // one.
    let of_others = around.image_labels.iter().filter(|name| labels::is_reserved(name));
    let mut labels: BTreeMap<_, _> = of_others.map(|name| (name.clone(), String::new())).collect();
    labels.extend(labels::render(&request.labels));
    labels.insert(labels::PROJECT.to_owned(), around.project.to_owned());
    let grace_seconds = i64::try_from(request.stop_grace_ms.div_ceil(1_000)).unwrap_or(i64::MAX);
    Ok(ContainerCreateBody {
        hostname: Some(request.id.to_string()),
        image: Some(image(request, around.base_image).to_owned()),
        entrypoint: Some(vec![BASE_BOOT.to_owned()]),
        cmd: Some(command(request, around)?),
        user: hardened.then(|| format!("{APP_USER}:{APP_USER}")),
        env: Some(environment(request)?),
        labels: Some(labels.into_iter().collect()),
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: Some(grace_seconds),
        // lb judges health; a check of the image's own would only cost.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host(request, around, hardened)?),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some([(around.network.to_owned(), endpoint(request.ip))].into_iter().collect()),
        }),
        ..ContainerCreateBody::default()
    })
}

/// `boot run --config …`. boot reads an artifact's command in the release; an image's words are known only here, so they
/// follow after `--`.
fn command(request: &CreateInstance, around: &Surroundings<'_>) -> Result<Vec<String>, ComputeError> {
    let mut words = vec!["run".to_owned(), "--config".to_owned(), format!("{INSTANCE_DIRECTORY}/instance.json")];
    if matches!(request.source, Source::Artifact { .. }) {
        return Ok(words);
    }
    let own = if request.command.is_empty() { &around.image_words } else { &request.command };
    if own.is_empty() {
        return Err(ComputeError::Failed {
            what: format!("create instance {}", request.id),
            reason: "its image has neither entrypoint nor command: name a command in platform.toml".to_owned(),
        });
    }
    words.push("--".to_owned());
    words.extend(own.iter().cloned());
    Ok(words)
}

/// Only what the platform sets; everything else comes to the app through `instance.json` and its release.
fn environment(request: &CreateInstance) -> Result<Vec<String>, ComputeError> {
    let variables = &request.config.environment_variables;
    let ours = variables.iter().filter(|(name, _)| *name == "PORT" || name.starts_with("PLATFORM_"));
    ours.map(|(name, value)| {
        if name.contains(['=', '\0']) || value.contains('\0') {
            let reason = format!("variable {} holds a character that an environment cannot carry", name.escape_debug());
            return Err(ComputeError::Refused { reason });
        }
        Ok(format!("{name}={value}"))
    })
    .collect()
}

fn endpoint(ip: Option<IpAddr>) -> EndpointSettings {
    EndpointSettings {
        ipam_config: ip
            .map(|ip| EndpointIpamConfig { ipv4_address: Some(ip.to_string()), ..EndpointIpamConfig::default() }),
        ..EndpointSettings::default()
    }
}

fn host(request: &CreateInstance, around: &Surroundings<'_>, hardened: bool) -> Result<HostConfig, ComputeError> {
    let limits = &request.limits;
    let memory = limits.memory_bytes.unwrap_or(MEMORY_BYTES);
    if memory < MEMORY_BYTES_MIN {
        let reason = format!("a memory limit of {memory} bytes is too small to start anything: at least 6 MiB");
        return Err(ComputeError::Refused { reason });
    }
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut mounts = vec![mount(around.volume, INSTANCE_DIRECTORY, false)];
    mounts.extend(around.boot_volume.map(|volume| mount(volume, BOOT_DIRECTORY, true)));
    let cap_drop = if hardened { "ALL" } else { "NET_RAW" };
    // The mode of the image's own /tmp wins over the one given here, so the owner is given as well.
    let options = format!("rw,noexec,nosuid,nodev,size=64m,mode=1777,uid={APP_USER},gid={APP_USER}");
    let tmpfs = ("/tmp".to_owned(), options);
    Ok(HostConfig {
        network_mode: Some(around.network.to_owned()),
        dns: around.dns.map(|dns| vec![dns.to_string()]),
        mounts: Some(mounts),
        memory: Some(signed(memory)),
        // Equal to memory: no swap on top of the limit.
        memory_swap: Some(signed(memory)),
        nano_cpus: limits.cpu_millis.map(|millis| signed(millis.saturating_mul(1_000_000))),
        pids_limit: Some(signed(limits.pids.unwrap_or(PIDS).max(1))),
        cap_drop: Some(vec![cap_drop.to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(hardened),
        tmpfs: hardened.then(|| [tmpfs].into_iter().collect()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                [("max-size", LOG_FILE), ("max-file", LOG_FILES)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ),
        }),
        ..HostConfig::default()
    })
}

fn mount(volume: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        target: Some(target.to_owned()),
        source: Some(volume.to_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::docker::fixture;

    fn around() -> Surroundings<'static> {
        Surroundings {
            base_image: "platformer/app-base:1",
            network: "platformer-env-production",
            dns: Some(IpAddr::V4(Ipv4Addr::new(10, 210, 0, 3))),
            boot_volume: None,
            project: "platformer",
            volume: "platformer-x",
            image_labels: Vec::new(),
            image_words: Vec::new(),
        }
    }

    #[test]
    fn an_artifact_is_hardened() {
        let body = container(&fixture::request(), &around()).expect("a container");
        assert_eq!(body.image.as_deref(), Some("platformer/app-base:1"));
        assert_eq!(body.user.as_deref(), Some("65532:65532"));
        let host = body.host_config.expect("host settings");
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!((host.memory, host.memory_swap), (Some(128 << 20), Some(128 << 20)));
        assert_eq!((host.pids_limit, host.nano_cpus), (Some(256), None));
        assert_eq!(body.env, Some(vec!["PLATFORM_APP=hello-world".to_owned(), "PORT=8080".to_owned()]));
    }

    #[test]
    fn an_image_keeps_user_and_root_and_runs_its_own_words() {
        let mut request = fixture::request();
        request.source = Source::Image { archive: appbase_core::Digest::of(b"a"), image: "sha256:1".to_owned() };
        request.command.clear();
        let none = container(&request, &around()).expect_err("nothing to run");
        assert!(none.to_string().contains("neither entrypoint nor command"), "{none}");

        let words = vec!["/app".to_owned(), "serve".to_owned()];
        let around = Surroundings { image_words: words, boot_volume: Some("platformer-boot-1"), ..around() };
        let body = container(&request, &around).expect("a container");
        let end = body.cmd.as_ref().map(|cmd| cmd[2..].join(" "));
        assert_eq!(end.as_deref(), Some("/platformer/instance/instance.json -- /app serve"));
        assert_eq!(body.user, None);
        let host = body.host_config.expect("host settings");
        assert_eq!(host.readonly_rootfs, Some(false));
        assert_eq!(host.cap_drop, Some(vec!["NET_RAW".to_owned()]));
        assert_eq!(host.mounts.map(|mounts| mounts[1].read_only), Some(Some(true)));
    }

    #[test]
    fn an_image_says_nothing_about_the_platform() {
        let names = ["io.platformer.part", "io.platformer.project", "com.docker.compose.project", "maintainer"];
        let around = Surroundings { image_labels: names.map(str::to_owned).into(), ..around() };
        let labels = container(&fixture::request(), &around).expect("a container").labels.expect("labels");
        let of = |name: &str| labels.get(name).map(String::as_str);
        assert_eq!((of("io.platformer.part"), of("com.docker.compose.project")), (Some(""), Some("")));
        assert_eq!((of("io.platformer.project"), of("maintainer")), (Some("platformer"), None));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let mut request = fixture::request();
        request.limits.memory_bytes = Some(1);
        assert!(matches!(container(&request, &around()), Err(ComputeError::Refused { .. })));
        let mut request = fixture::request();
        request.config.environment_variables.insert("PLATFORM_X".to_owned(), "a\0b".to_owned());
        assert!(matches!(container(&request, &around()), Err(ComputeError::Refused { .. })));
    }
}
