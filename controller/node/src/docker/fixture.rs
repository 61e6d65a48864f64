//! One request, for the tests of this module.

use appbase_core::v1::{InstanceConfig, Limits, Source};
use appbase_core::{AppName, ClusterId, Digest, EnvironmentName, InstanceId, ProcessName, ServerName, Slot, Version};
use controller_core::v1::compute::{CreateInstance, InstanceLabels};

pub(crate) fn request() -> CreateInstance {
    let (app, environment) = (AppName::parse("hello-world").expect("a name"), EnvironmentName::default_name());
    let (version, process) = (Version::parse("1").expect("a version"), ProcessName::default_name());
    let id = InstanceId::of(&environment, &app, &version.label(), 1, &process, 1);
    let document = Digest::of(b"document");
    CreateInstance {
        id: id.clone(),
        labels: InstanceLabels {
            cluster: ClusterId::parse("cabc123").expect("a name"),
            environment: environment.clone(),
            app: app.clone(),
            version: version.clone(),
            process: process.clone(),
            number: 1,
            release: 1,
            document,
            spec: Digest::of(b"spec"),
            slot: Slot::Blue,
            server: ServerName::parse("local").expect("a name"),
            address: Some("10.210.0.16:8080".parse().expect("an address")),
        },
        source: Source::Artifact { layers: vec![Digest::of(b"layer")] },
        base: None,
        command: Vec::new(),
        ip: Some("10.210.0.16".parse().expect("an address")),
        network: None,
        limits: Limits::default(),
        stop_grace_ms: 10_000,
        config: InstanceConfig {
            needs: Vec::new(),
            instance: id,
            environment,
            app,
            version,
            process,
            number: 1,
            release: 1,
            document,
            repository: "http://10.210.0.4:8082".to_owned(),
            token: "secret".to_owned(),
            environment_variables: [("PORT", "8080"), ("PLATFORM_APP", "hello-world"), ("OTHER", "x")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            restart: false,
        },
    }
}
