//! Where errors become answers, once.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kit::problem::{Problem, chain};
use repository_core::{Code, Refusal};

use crate::store::StoreError;

/// An answer that refuses, with the headers that belong to it.
pub(crate) struct Failure {
    refusal: Refusal,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, headers: Vec::new() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        refusal_of(error).into()
    }
}

/// An error of the store as a refusal. What is nobody's fault outside is logged here.
pub(crate) fn refusal_of(error: StoreError) -> Refusal {
    match error {
        StoreError::Refused(refusal) => refusal,
        StoreError::Full => {
            tracing::error!("the disk of the data directory is full: pushes are refused");
            Refusal::new(Code::Unavailable, "disk-full", "the repository's disk is full: nothing was stored")
                .status(507)
                .hint("make room on the disk of the data directory, then push again")
        }
        StoreError::Cut(reason) => {
            Refusal::new(Code::BlobUploadInvalid, "body-cut", format!("the body broke off: {reason}"))
                .hint("ask the upload for its range and go on from there")
        }
        StoreError::Stopped => Refusal::new(Code::Unavailable, "stopping", "the repository is stopping"),
        error => {
            tracing::error!(error = %chain(&error), "request failed");
            let message = match &error {
                StoreError::Damaged { .. } => error.to_string(),
                _ => "the repository could not do it: its log says why".to_owned(),
            };
            Refusal::new(Code::Unavailable, "unexpected", message).status(500)
        }
    }
}

/// The same refusal for people who asked one of the tutorial's paths.
pub(crate) fn problem(refusal: &Refusal) -> Problem {
    Problem::new(refusal.status, refusal.word, refusal.message.clone()).hint(refusal.hint.clone())
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.refusal.body())).into_response();
        response.headers_mut().extend(self.headers);
        if self.refusal.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static("Basic realm=\"platformer\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
