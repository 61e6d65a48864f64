//! The controller's routes that commands ask, as functions.

use std::time::Duration;

use appbase_core::{AppName, DeploymentId};
use controller_core::v1::api::{
    AppStatus, ChangeSetAnswer, ChangeSetRequest, DeployAnswer, DeploymentView, MemberTraffic, PlatformStatus,
};
use controller_core::v1::state::Operation;
use kit::client::{Client, ClientError};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Failure;
use crate::session::{ANSWER_LIMIT, Session};

/// How often a change is sent when no answer comes: its idempotency key makes that harmless.
const SENDS_MAX: u32 = 3;
/// So long a change may take until all lbs act by it; they usually do after some milliseconds.
const IN_FORCE_LIMIT: Duration = Duration::from_secs(5);
/// How often a drain that is waited for is looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(300);

impl Session<'_> {
    /// `path` with the environment as its query.
    pub(crate) fn in_environment(&self, path: &str) -> String {
        format!("{path}?environment={}", self.environment)
    }

    pub(crate) async fn platform(&self) -> Result<PlatformStatus, Failure> {
        Ok(self.controller.get("/v1/status", ANSWER_LIMIT).await?)
    }

    pub(crate) async fn traffic(&self) -> Result<Vec<MemberTraffic>, Failure> {
        Ok(self.controller.get("/v1/traffic", ANSWER_LIMIT).await?)
    }

    pub(crate) async fn app(&self, app: &AppName) -> Result<AppStatus, Failure> {
        Ok(self.controller.get(&self.in_environment(&format!("/v1/apps/{app}")), ANSWER_LIMIT).await?)
    }

    pub(crate) async fn deployment(&self, id: &DeploymentId) -> Result<DeploymentView, ClientError> {
        self.controller.get(&format!("/v1/deployments/{id}"), Duration::from_secs(10)).await
    }

    /// Deploy or roll back: `verb` is the last part of the path.
    pub(crate) async fn start(
        &self,
        app: &AppName,
        verb: &str,
        request: &impl Serialize,
    ) -> Result<DeployAnswer, Failure> {
        change(&self.controller, &self.in_environment(&format!("/v1/apps/{app}/{verb}")), request).await
    }

    /// Sends what starts a deployment; while another one drains whose traffic has moved, again and again for `limit`.
    pub(crate) async fn after_drain<T>(
        &self,
        app: &AppName,
        limit: Duration,
        send: impl AsyncFn() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let until = self.clock.elapsed() + limit;
        let mut told = false;
        loop {
            let failure = match send().await {
                Err(failure) if failure.code == "deployment-running" => failure,
                outcome => return outcome,
            };
            let running = self.app(app).await?.deployment.filter(|running| running.end.is_none());
            let drains = running.as_ref().is_none_or(|running| running.phase == "draining");
            if !drains || self.clock.elapsed() >= until {
                return Err(failure);
            }
            if let Some(running) = running.filter(|_| !told) {
                self.output.talk(&format!("waiting for {}, whose old instances drain", running.id));
                told = true;
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// One change set; `deploy` asks for a deployment of the live version with it.
    pub(crate) async fn change(&self, operations: Vec<Operation>, deploy: bool) -> Result<ChangeSetAnswer, Failure> {
        let path = if deploy { "/v1/change-sets?deploy=true" } else { "/v1/change-sets" };
        self.send_change(path, operations).await
    }

    /// One change set that acts at once: answered when it is in force, with a word where that takes longer.
    pub(crate) async fn change_in_force(&self, operations: Vec<Operation>) -> Result<ChangeSetAnswer, Failure> {
        let path = format!("/v1/change-sets?wait={}", IN_FORCE_LIMIT.as_secs());
        let answer = self.send_change(&path, operations).await?;
        if answer.in_force == Some(false) {
            self.output.talk("not every load balancer has it yet: see platformctl status");
        }
        Ok(answer)
    }

    async fn send_change(&self, path: &str, operations: Vec<Operation>) -> Result<ChangeSetAnswer, Failure> {
        let answer: ChangeSetAnswer = change(&self.controller, path, &ChangeSetRequest { operations }).await?;
        match answer.results.iter().find(|result| result.result != "ok") {
            None => Ok(answer),
            Some(refused) => Err(Failure {
                code: refused.result.clone(),
                ..Failure::input(if refused.output.is_empty() { &refused.result } else { &refused.output })
            }),
        }
    }
}

/// POSTs with an idempotency key, again when no answer came.
pub(crate) async fn change<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let key = kit::random::hex::<16>();
    let mut sends = 0;
    loop {
        sends += 1;
        let request =
            client.request(Method::POST, path).header("idempotency-key", &key).json(body).timeout(ANSWER_LIMIT);
        let outcome = match client.send(request).await {
            Ok(response) => client.json(response).await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(ClientError::Unreachable { .. }) if sends < SENDS_MAX => {
                tokio::time::sleep(Duration::from_millis(150) * sends).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// One operation of a change set.
pub(crate) fn operation(group: &str, command: &str, params: Value) -> Operation {
    Operation { id: String::new(), group: group.to_owned(), command: command.to_owned(), params }
}

/// A text as one part of a URL's query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_url_fits_into_a_query() {
        assert_eq!(super::encode("http://a.b/c?d=é&e"), "http%3A%2F%2Fa.b%2Fc%3Fd%3D%C3%A9%26e");
    }
}
