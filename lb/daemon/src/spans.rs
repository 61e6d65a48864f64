//! Spans: what is told of requests to a collector of traces, by OTLP over HTTP in its JSON form (OTLP 1.x, `/v1/traces`).
//!
//! A request appends its span to what waits; a task sends that each second. A collector that does not answer holds up nobody:
//! what waits is bounded, and what does not fit is lost and counted.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kit::client::{Client, ClientError};
use kit::{Shutdown, Tasks};
use lb_core::trace::Share;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::account::Line;
use crate::request::End;

/// What waits to be sent: some 2 KiB each.
const WAITING_MAX: usize = 4096;
/// Of them go out together.
const BATCH_MAX: usize = 512;
const INTERVAL: Duration = Duration::from_secs(1);
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// After a failure the next try is so much later, and at most so much.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Spans {
    pub(crate) share: Share,
    waiting: Mutex<Vec<Value>>,
    wake: Notify,
    pub(crate) sent: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Spans {
    /// Starts to send to a collector, as `http://127.0.0.1:4318`. `member`: who says it.
    pub(crate) fn start(collector: &str, share: Share, member: &str, tasks: &Tasks, shutdown: &Shutdown) -> Arc<Self> {
        let spans = Arc::new(Self {
            share,
            waiting: Mutex::default(),
            wake: Notify::new(),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let (sending, client) = (Arc::clone(&spans), Client::new(collector, None));
        let (resource, asked) = (resource(member), shutdown.asked());
        tasks.spawn("lb-spans", async move {
            tokio::select! { () = sending.send_forever(&client, &resource) => {}, () = asked => {} }
            // What is over by now is told once more; what ends later is not.
            let _ = sending.send(&client, &resource, &sending.take()).await;
        });
        spans
    }

    pub(crate) fn append(&self, line: &Line<'_>) {
        let Some(span) = span(line) else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push(span);
        let is_due = waiting.len() == 1 || waiting.len() == BATCH_MAX;
        drop(waiting);
        if is_due {
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Vec<Value> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).collect()
    }

    async fn send_forever(&self, client: &Client, resource: &Value) {
        let mut failing = false;
        loop {
            let batch = self.take();
            if batch.is_empty() {
                self.wake.notified().await;
                // One that is over seldom comes alone.
                let _ = tokio::time::timeout(INTERVAL, self.wake.notified()).await;
                continue;
            }
            let mut wait = BACK_OFF;
            failing = loop {
                let Err(error) = self.send(client, resource, &batch).await else { break false };
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error = %error, "the collector takes no spans");
                }
                // A request that is wrong stays wrong.
                let may_pass = match &error {
                    ClientError::Refused(problem) => matches!(problem.status, 429 | 502..=504),
                    _ => true,
                };
                if !may_pass || wait > BACK_OFF_MAX {
                    self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    break true;
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            };
        }
    }

    async fn send(&self, client: &Client, resource: &Value, batch: &[Value]) -> Result<(), ClientError> {
        if batch.is_empty() {
            return Ok(());
        }
        let scope = json!({"name": "platformer-lb", "version": env!("CARGO_PKG_VERSION")});
        let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": batch}]}]});
        client.call::<_, Value>(kit::client::Method::POST, "/v1/traces", &body, SEND_LIMIT).await?;
        self.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn resource(member: &str) -> Value {
    json!({"attributes": [
        text("service.name", "platformer-lb"),
        text("service.instance.id", member),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ]})
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Integers of 64 bits are text in this form.
fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

/// Names are those of OpenTelemetry's conventions for HTTP servers; what is the platform's own begins with `platformer.`.
fn span(line: &Line<'_>) -> Option<Value> {
    let Line { ended, account, .. } = line;
    let trace = account.trace?;
    let end = u128::from(ended.unix_ms) * 1_000_000;
    let route = account.rule.as_ref().map(|rule| rule.route.path.as_str());
    let method = account.method.as_str();
    let name = route.map_or(Cow::Borrowed(method), |route| format!("{method} {route}").into());
    let version = account.protocol.trim_start_matches("HTTP/").trim_end_matches(".0");
    let (section, instance) = (line.section(), line.instance());
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.scheme", ended.scheme()),
        text("url.path", ended.path),
        text("network.protocol.name", "http"),
        text("network.protocol.version", version),
        text("client.address", &ended.connection.client.to_string()),
        text("platformer.request_id", ended.id),
        text("platformer.end", ended.end()),
        number("http.request.body.size", account.request_bytes),
        number("http.response.body.size", account.response_bytes),
    ];
    let texts = [
        ("http.route", route),
        ("server.address", ended.host),
        ("user_agent.original", account.user_agent.as_deref()),
        ("platformer.environment", section.map(|(environment, _)| environment)),
        ("platformer.app", section.map(|(_, app)| app)),
        ("platformer.instance", instance.map(|(instance, _)| instance)),
        ("platformer.code", ended.code),
    ];
    attributes.extend(texts.into_iter().filter_map(|(key, value)| Some(text(key, value?))));
    let resent = ended.attempts.saturating_sub(1);
    let numbers = [
        ("http.response.status_code", ended.status.map(u64::from)),
        ("platformer.release", instance.map(|(_, release)| release)),
        ("http.request.resend_count", (resent > 0).then_some(u64::from(resent))),
        ("platformer.instance_us", account.instance_took.map(|took| took.as_micros() as u64)),
    ];
    attributes.extend(numbers.into_iter().filter_map(|(key, value)| Some(number(key, value?))));
    let has_failed = ended.status.is_none_or(|status| status >= 500) || ended.end == End::BrokeOff;
    Some(json!({
        "traceId": format!("{:032x}", trace.trace),
        "spanId": format!("{:016x}", trace.span),
        "parentSpanId": trace.parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(),
        "name": name,
        "kind": 2,
        "startTimeUnixNano": end.saturating_sub(ended.took.as_nanos()).to_string(),
        "endTimeUnixNano": end.to_string(),
        "attributes": attributes,
        "status": if has_failed { json!({"code": 2}) } else { json!({}) },
    }))
}
