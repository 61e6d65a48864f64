//! A controller in process for tests, on a state that has an app in it, asked over HTTP.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use appbase_core::v1::{Policy, Release, Route, TrafficSpec};
use appbase_core::{AppName, Digest, EnvironmentName, ProcessName, SectionKey, Slot, Version};
use clap::Parser;
use controller_core::v1::api::CertificateView;
use controller_core::v1::state::{Cluster, ReleaseRecord, Run};
use kit::client::Client;

use crate::records::{self, Records, Write};
use crate::store::SqliteStore;

pub(crate) const LIMIT: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    config: crate::Config,
}

pub(crate) struct Controller {
    pub api: Client,
    pub tasks: kit::Tasks,
    pub shutdown: kit::Shutdown,
}

impl Controller {
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(data, |_| {}).await
    }

    pub(crate) async fn start_with(data: &Path, change: impl FnOnce(&mut crate::Config)) -> Self {
        let mut arguments = Arguments::parse_from(["controller", "--controller-listen", "127.0.0.1:0"]);
        arguments.config.data = data.to_path_buf();
        // It is looked for, and nothing here starts it.
        std::fs::write(data.join("boot"), "").expect("written");
        arguments.config.boot = Some(data.join("boot"));
        change(&mut arguments.config);
        let (tasks, shutdown) = (kit::Tasks::new(), kit::Shutdown::new());
        let handle = crate::run(arguments.config, &tasks, &shutdown).await.expect("it runs");
        Self { api: Client::new(&format!("http://{}", handle.api), None), tasks, shutdown }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.ask();
        assert!(self.tasks.finish(LIMIT).await.is_empty());
    }

    pub(crate) async fn list(&self) -> Vec<CertificateView> {
        self.api.get("/v1/certificates", LIMIT).await.expect("a list")
    }
}

pub(crate) fn shop() -> SectionKey {
    let (environment, app) = (EnvironmentName::default_name(), AppName::parse("shop").expect("a name"));
    SectionKey::app(&environment, &app)
}

/// Makes a release with these hosts the live one of a stopped controller's state. It runs nothing.
pub(crate) async fn go_live(data: &Path, number: u64, hosts: &[&str]) {
    let store = SqliteStore::open(data).expect("a store");
    let cluster = || Cluster { id: "c1".parse().expect("a name"), epoch: Cluster::EPOCH_FIRST };
    let records = std::sync::Mutex::new(Records::load(&store, cluster).await.expect("records"));
    let web = ProcessName::default_name();
    let routes = hosts.iter().map(|host| Route::new(Some((*host).to_owned()), "/", web.clone())).collect();
    let release = Release {
        needs: Vec::new(),
        app: AppName::parse("shop").expect("a name"),
        environment: EnvironmentName::default_name(),
        number,
        version: Version::parse("1").expect("a version"),
        processes: BTreeMap::new(),
        traffic: TrafficSpec { routes, processes: BTreeMap::new(), policy: Policy::default() },
    };
    let (document, scale) = (Digest::of(b"document"), BTreeMap::new());
    let record = ReleaseRecord { document, release, scale, made_unix_ms: 0, overlay: Default::default() };
    let slots = BTreeMap::from([(Slot::Blue, number)]);
    let run = Run { live: Some(Slot::Blue), slots, releases_made: number, ..Run::default() };
    let writes = vec![Write::Release(shop(), Box::new(record)), Write::Run(shop(), run)];
    records::commit(&store, &records, writes).await.expect("written");
}
