//! A repository in this process, on a directory of its own, and a client for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use appbase_core::Digest;
use kit::{Shutdown, Tasks};
use repository::{Config, Handle};
use repository_core::Descriptor;
use reqwest::{Method, RequestBuilder, Response, StatusCode};

pub(crate) struct World {
    pub(crate) http: reqwest::Client,
    pub(crate) directory: tempfile::TempDir,
    running: Option<(Handle, Shutdown)>,
    change: fn(&mut Config),
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: fn(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
        let mut world = Self { http, directory, running: None, change };
        world.begin().await;
        world
    }

    pub(crate) async fn begin(&mut self) {
        let mut config = Config::on_free_ports(self.data());
        (self.change)(&mut config);
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let handle = repository::run(config, &tasks, &shutdown).await.expect("starts");
        self.running = Some((handle, shutdown));
    }

    pub(crate) async fn stop(&mut self) {
        let (handle, shutdown) = self.running.take().expect("running");
        shutdown.ask();
        handle.finished(Duration::from_secs(10)).await;
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.begin().await;
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.running.as_ref().expect("running").0
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.handle().address))
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request(method, path).body(body).send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let response = self.send(Method::POST, &path, bytes.to_vec()).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{}", response.text().await.unwrap_or_default());
        digest
    }

    /// Begins an upload; answers its path.
    pub(crate) async fn begin_upload(&self, name: &str) -> String {
        let response = self.send(Method::POST, &format!("/v2/{name}/blobs/uploads/"), "").await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        header(&response, "location")
    }

    pub(crate) async fn patch(&self, upload: &str, range: &str, bytes: &[u8]) -> Response {
        let request = self.request(Method::PATCH, upload).header("content-range", range).body(bytes.to_vec());
        request.send().await.expect("an answer")
    }

    pub(crate) async fn put_manifest(&self, name: &str, reference: &str, bytes: &[u8]) -> Response {
        let request = self.request(Method::PUT, &format!("/v2/{name}/manifests/{reference}"));
        let request = request.header("content-type", appbase_core::v1::media::MANIFEST).body(bytes.to_vec());
        request.send().await.expect("an answer")
    }

    /// A manifest of one config and these layers, whose blobs are pushed as well.
    pub(crate) async fn manifest(&self, name: &str, kind: &str, config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
        let digest = self.push_blob(name, config).await;
        let mut described = Vec::new();
        for layer in layers {
            let digest = self.push_blob(name, layer).await;
            let media_type = appbase_core::v1::media::LAYER.to_owned();
            described.push(Descriptor { media_type, digest, size: layer.len() as u64 });
        }
        repository_core::manifest::manifest(kind, digest, config.len() as u64, &described)
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.handle().admin);
        let text = self.http.get(url).send().await.expect("an answer").text().await.expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }
}

pub(crate) fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name).unwrap_or_else(|| panic!("no {name} in {:?}", response.headers()));
    value.to_str().expect("text").to_owned()
}

/// Asserts the status and the OCI code of a refusal, and that it reads as a problem document as well.
pub(crate) async fn refused(response: Response, status: u16, code: &str) -> kit::problem::Problem {
    assert_eq!(response.status().as_u16(), status);
    let body = response.bytes().await.expect("a body");
    let oci: repository_core::v1::ErrorBody = serde_json::from_slice(&body).expect("the OCI form");
    assert_eq!(oci.errors[0].code, code);
    let problem: kit::problem::Problem = serde_json::from_slice(&body).expect("a problem");
    assert_eq!(problem.status, status);
    problem
}

/// Files below `directory`, by name.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("readable");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
