//! The HTTP client between the platform's parts: JSON in and out, problems decoded, everything with a time limit.

use std::time::Duration;

pub use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, chain};

/// No answer of another part is larger than this, but for blobs, which are streamed.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer: not running, not reachable, too slow.
    #[error("no answer from {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// It answered that it will not.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// It answered something that is not what was asked for.
    #[error("{url} answered something unreadable: {reason}")]
    Unreadable { url: String, reason: String },
}

/// Talks to one part.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// `base` like `http://127.0.0.1:8081`, without a path; `token` is sent as Bearer.
    pub fn new(base: &str, token: Option<String>) -> Self {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .pool_idle_timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client without TLS has nothing that can fail to load");
        Self { http, base: base.trim_end_matches('/').to_owned(), token }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request that the caller completes; see [`Client::send`].
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends; any status of 400 and above becomes the [`Problem`] it carries.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|error| ClientError::Unreachable {
            url: self.base.clone(),
            reason: chain(&error.without_url()),
        })?;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap_or_default();
        Err(serde_json::from_slice::<Problem>(&body)
            .unwrap_or_else(|_| {
                let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
                Problem::new(status, "refused", format!("{} answered {status}", self.base)).detail(text)
            })
            .into())
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, ClientError> {
        let response = self.send(self.request(reqwest::Method::GET, path).timeout(limit)).await?;
        self.json(response).await
    }

    pub async fn call<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let response = self.send(self.request(method, path).json(body).timeout(limit)).await?;
        self.json(response).await
    }

    /// Decodes a JSON answer; an empty one (204) decodes as `null`.
    pub async fn json<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T, ClientError> {
        let url = self.base.clone();
        let bytes = response
            .bytes()
            .await
            .map_err(|error| ClientError::Unreachable { url: url.clone(), reason: chain(&error.without_url()) })?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| ClientError::Unreadable { url, reason: error.to_string() })
    }
}
