//! The closed list: what an instance's container may ask of Docker. Everything else is refused, whatever built the
//! request. Pure.
//!
//! It works by taking out what is allowed, after a look at each value, and demanding that nothing is left: a field that
//! this list has never heard of (privileged, devices, host namespaces, …) is refused because it is set.

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, RestartPolicyNameEnum};

use super::spec::{BOOT_DIRECTORY, INSTANCE_DIRECTORY};
use crate::ComputeError;

/// The names this very request may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed<'a> {
    pub(crate) network: &'a str,
    pub(crate) volume: &'a str,
    pub(crate) boot_volume: Option<&'a str>,
}

pub(crate) fn check(body: &ContainerCreateBody, allowed: Allowed<'_>) -> Result<(), ComputeError> {
    let host = body.host_config.clone().unwrap_or_default();
    if host.network_mode.as_deref() != Some(allowed.network) {
        return Err(refused("a network other than its environment's"));
    }
    let networks = body.networking_config.as_ref().and_then(|config| config.endpoints_config.as_ref());
    if networks.is_some_and(|networks| networks.keys().any(|name| name != allowed.network)) {
        return Err(refused("a second network"));
    }
    for mount in host.mounts.iter().flatten() {
        check_mount(mount, allowed)?;
    }
    let dropped = host.cap_drop.as_deref().unwrap_or_default();
    if !dropped.iter().any(|name| name == "ALL" || name == "NET_RAW") {
        return Err(refused("raw sockets"));
    }
    if host.security_opt.as_deref() != Some(&["no-new-privileges".to_owned()]) {
        return Err(refused("security options other than no-new-privileges"));
    }
    if host.pids_limit.is_none_or(|limit| limit < 1) || host.memory.is_none_or(|limit| limit < 1) {
        return Err(refused("no limit of memory or processes"));
    }
    if host.tmpfs.as_ref().is_some_and(|tmpfs| tmpfs.keys().any(|path| path != "/tmp")) {
        return Err(refused("a tmpfs elsewhere than /tmp"));
    }
    let policy = host.restart_policy.as_ref().and_then(|policy| policy.name);
    if policy != Some(RestartPolicyNameEnum::UNLESS_STOPPED) {
        return Err(refused("a restart policy other than unless-stopped"));
    }
    nothing_else(body, host)
}

fn check_mount(mount: &Mount, allowed: Allowed<'_>) -> Result<(), ComputeError> {
    let Mount { target, source, typ, read_only, .. } = mount.clone();
    let plain = Mount { target, source, typ, read_only, ..Mount::default() };
    let (source, target) = (mount.source.as_deref(), mount.target.as_deref());
    let own = source == Some(allowed.volume) && target == Some(INSTANCE_DIRECTORY);
    let boot = source.is_some()
        && source == allowed.boot_volume
        && target == Some(BOOT_DIRECTORY)
        && mount.read_only == Some(true);
    if *mount != plain || mount.typ != Some(MountType::VOLUME) || !(own || boot) {
        return Err(refused("a mount other than its own volume and boot"));
    }
    Ok(())
}

/// Takes the known fields out; what is left must be nothing.
fn nothing_else(body: &ContainerCreateBody, host: HostConfig) -> Result<(), ComputeError> {
    let rest = HostConfig {
        network_mode: None,
        dns: None,
        mounts: None,
        memory: None,
        memory_swap: None,
        nano_cpus: None,
        pids_limit: None,
        cap_drop: None,
        security_opt: None,
        readonly_rootfs: None,
        tmpfs: None,
        restart_policy: None,
        log_config: None,
        ..host
    };
    if rest != HostConfig::default() {
        return Err(refused(
            "a host setting that instances may not have (privileges, devices, host namespaces, ports)",
        ));
    }
    let rest = ContainerCreateBody {
        hostname: None,
        image: None,
        entrypoint: None,
        cmd: None,
        user: None,
        env: None,
        labels: None,
        stop_signal: None,
        stop_timeout: None,
        healthcheck: None,
        host_config: None,
        networking_config: None,
        ..body.clone()
    };
    if rest != ContainerCreateBody::default() {
        return Err(refused("a setting that instances may not have"));
    }
    Ok(())
}

fn refused(what: &str) -> ComputeError {
    ComputeError::Refused { reason: format!("an instance may not ask for {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::fixture;
    use crate::docker::spec::{Surroundings, container};

    fn spoil(change: impl FnOnce(&mut ContainerCreateBody, &mut HostConfig)) -> Result<(), ComputeError> {
        let request = fixture::request();
        let around = Surroundings {
            base_image: "base",
            network: "platformer-env-production",
            dns: None,
            boot_volume: Some("platformer-boot-1"),
            project: "platformer",
            volume: "platformer-x",
            image_labels: Vec::new(),
            image_words: Vec::new(),
        };
        let mut body = container(&request, &around).expect("a container");
        let mut host = body.host_config.take().expect("host settings");
        change(&mut body, &mut host);
        body.host_config = Some(host);
        check(&body, Allowed { network: around.network, volume: around.volume, boot_volume: around.boot_volume })
    }

    #[test]
    fn what_spec_builds_passes() {
        spoil(|_, _| {}).expect("allowed");
    }

    #[test]
    fn everything_else_is_refused() {
        let bind = || Mount {
            typ: Some(MountType::BIND),
            source: Some("/".to_owned()),
            target: Some(INSTANCE_DIRECTORY.to_owned()),
            ..Mount::default()
        };
        let text = |text: &str| Some(text.to_owned());
        type Change<'a> = (&'a str, Box<dyn FnOnce(&mut ContainerCreateBody, &mut HostConfig) + 'a>);
        let changes: Vec<Change<'_>> = vec![
            ("privileged", Box::new(|_, host| host.privileged = Some(true))),
            ("host network", Box::new(|_, host| host.network_mode = text("host"))),
            ("host pid", Box::new(|_, host| host.pid_mode = text("host"))),
            ("host ipc", Box::new(|_, host| host.ipc_mode = text("host"))),
            ("host uts", Box::new(|_, host| host.uts_mode = text("host"))),
            ("binds", Box::new(|_, host| host.binds = Some(vec!["/:/host".to_owned()]))),
            ("bind mount", Box::new(|_, host| host.mounts = Some(vec![bind()]))),
            ("foreign volume", Box::new(|_, host| host.mounts.as_mut().expect("mounts")[0].source = text("other"))),
            ("writable boot", Box::new(|_, host| host.mounts.as_mut().expect("mounts")[1].read_only = Some(false))),
            ("capability", Box::new(|_, host| host.cap_add = Some(vec!["SYS_ADMIN".to_owned()]))),
            ("raw sockets", Box::new(|_, host| host.cap_drop = None)),
            ("unconfined", Box::new(|_, host| host.security_opt = Some(vec!["seccomp=unconfined".to_owned()]))),
            ("devices", Box::new(|_, host| host.devices = Some(Vec::new()))),
            ("ports", Box::new(|_, host| host.publish_all_ports = Some(true))),
            ("volumes from", Box::new(|_, host| host.volumes_from = Some(vec!["x".to_owned()]))),
            ("no limit", Box::new(|_, host| host.memory = None)),
            ("tmpfs", Box::new(|_, host| host.tmpfs = Some([("/etc".to_owned(), String::new())].into()))),
            ("restart", Box::new(|_, host| host.restart_policy = None)),
            ("volumes", Box::new(|body, _| body.volumes = Some(vec!["/x".to_owned()]))),
            ("tty", Box::new(|body, _| body.tty = Some(true))),
        ];
        for (name, change) in changes {
            assert!(matches!(spoil(change), Err(ComputeError::Refused { .. })), "{name} was let through");
        }
    }
}
