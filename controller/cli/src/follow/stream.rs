//! The events of the controller as an endless stream: broken ones are taken up again after the last event seen.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use appbase_core::DeploymentId;
use bytes::Bytes;
use controller_core::v1::api::EventView;
use futures_util::StreamExt;
use kit::client::{Client, ClientError};
use reqwest::Method;

use crate::error::Failure;
use crate::sse::Decoder;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

type Body = Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<Bytes>> + Send>>;

pub(crate) struct Stream<'a> {
    controller: &'a Client,
    /// What is asked for, without `after`.
    query: String,
    after: u64,
    body: Option<Body>,
    decoder: Decoder,
    ready: VecDeque<EventView>,
    pause: Duration,
    lost: bool,
}

impl<'a> Stream<'a> {
    pub(crate) fn of_deployment(controller: &'a Client, id: &DeploymentId) -> Self {
        Self::new(controller, format!("deployment={id}&"), 0)
    }

    /// All events after `after`, and those to come.
    pub(crate) fn of_all(controller: &'a Client, after: u64) -> Self {
        Self::new(controller, String::new(), after)
    }

    fn new(controller: &'a Client, query: String, after: u64) -> Self {
        Self {
            controller,
            query,
            after,
            body: None,
            decoder: Decoder::default(),
            ready: VecDeque::new(),
            pause: PAUSE_FIRST,
            lost: false,
        }
    }

    /// Whether there is no stream at the moment although there should be.
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }

    /// The next event, however long it takes. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<EventView, Failure> {
        loop {
            if let Some(event) = self.step().await? {
                return Ok(event);
            }
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// None: the stream ended or broke.
    async fn step(&mut self) -> Result<Option<EventView>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = self.after.max(event.number);
                return Ok(Some(event));
            }
            if self.body.is_none() && !self.open().await? {
                return Ok(None);
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.next().await {
                Some(Ok(bytes)) => self.take(&bytes)?,
                Some(Err(_)) => {
                    (self.body, self.lost) = (None, true);
                    return Ok(None);
                }
                None => {
                    self.body = None;
                    return Ok(None);
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let unreadable = |reason: String| ClientError::Unreadable { url: self.controller.base().to_owned(), reason };
        for event in self.decoder.push(bytes).map_err(|error| unreadable(error.to_string()))? {
            match serde_json::from_str::<EventView>(&event.data) {
                // What came twice around a break is told once.
                Ok(view) if view.number > self.after => self.ready.push_back(view),
                // An event kind that this version does not know yet is no reason to stop following.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether there is a stream now. Being refused is final; not being reached is not.
    async fn open(&mut self) -> Result<bool, Failure> {
        let path = format!("/v1/events?{}after={}&follow=true", self.query, self.after);
        let mut request = self.controller.request(Method::GET, &path).header("accept", "text/event-stream");
        if self.after > 0 {
            request = request.header("last-event-id", self.after.to_string());
        }
        match self.controller.send(request).await {
            Ok(response) => {
                self.body = Some(Box::pin(response.bytes_stream()));
                self.decoder = Decoder::default();
                (self.pause, self.lost) = (PAUSE_FIRST, false);
                Ok(true)
            }
            Err(ClientError::Refused(problem)) if (502..=504).contains(&problem.status) => {
                self.lost = true;
                Ok(false)
            }
            Err(ClientError::Unreachable { .. }) => {
                self.lost = true;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
