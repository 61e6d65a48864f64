//! Admin: health, metrics and route explanations.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use appbase_core::SectionKey;
use appbase_core::v1::Health;
use appbase_core::v1::status::DURATION_BUCKETS_MS;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use kit::problem::Problem;
use lb_core::explain::{Explanation, Question, explain};
use lb_core::http1::RequestHead;
use serde::Deserialize;

use crate::account::Listeners;
use crate::balancer::Balancer;

struct Admin {
    balancer: Arc<Balancer>,
    listeners: Listeners,
}

pub(crate) fn router(balancer: &Arc<Balancer>, listeners: &Listeners) -> Router {
    let own = Router::new().route("/v1/route", get(explain_route)).with_state(Arc::clone(balancer));
    let admin = Admin { balancer: Arc::clone(balancer), listeners: listeners.clone() };
    kit::admin::router(Arc::new(admin)).merge(own)
}

#[derive(Deserialize)]
struct RouteQuery {
    host: Option<String>,
    #[serde(default = "root")]
    path: String,
    #[serde(default = "get_method")]
    method: String,
    /// Lines of a head, each `Name: value`.
    #[serde(default)]
    headers: String,
}

fn get_method() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

async fn explain_route(
    State(balancer): State<Arc<Balancer>>,
    Query(query): Query<RouteQuery>,
) -> Result<Json<Explanation>, Problem> {
    let snapshot = balancer.snapshot.load();
    let no_table = || Problem::new(503, "no-table", "no route table is in force yet");
    let table = snapshot.table.as_ref().ok_or_else(no_table)?;
    let now = balancer.clock.elapsed();
    let seen = |id: &appbase_core::InstanceId| {
        let backend = balancer.backends.get(id)?;
        Some(backend.seen(now))
    };
    let mut head = RequestHead::default();
    let lines: String = query.headers.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    let read = head.read(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes());
    read.map_err(|error| Problem::new(400, "bad-headers", format!("headers: {error}")))?;
    let (host, target) = (query.host.as_deref(), query.path.as_str());
    let question = Question { host, target, method: &query.method, fields: &head.fields };
    Ok(Json(explain(table, &question, seen)))
}

impl kit::admin::Admin for Admin {
    fn ready(&self) -> Result<(), String> {
        match self.balancer.snapshot.load().table {
            Some(_) => Ok(()),
            None => Err("no route table is in force yet".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        let mut out = String::with_capacity(4 << 10);
        // Writing to a String cannot fail.
        let _ = self.write_requests(&mut out).and_then(|()| self.write_edge(&mut out));
        let _ = self.write_instances(&mut out).and_then(|()| self.write_told(&mut out));
        out
    }
}

impl Admin {
    fn write_requests(&self, out: &mut String) -> std::fmt::Result {
        let counters = self.balancer.counters();
        writeln!(out, "# TYPE platform_lb_requests_total counter")?;
        writeln!(out, "# TYPE platform_lb_failed_total counter")?;
        writeln!(out, "# TYPE platform_lb_copies_total counter")?;
        writeln!(out, "# TYPE platform_lb_copies_failed_total counter")?;
        writeln!(out, "# TYPE platform_lb_request_duration_seconds histogram")?;
        for (key, releases) in &counters {
            let SectionKey::App { environment, app } = key else { continue };
            for (release, counters) in releases {
                let labels = format!("app=\"{app}\",environment=\"{environment}\",release=\"{release}\"");
                for (class, count) in counters.classes().into_iter().filter(|(_, count)| *count > 0) {
                    writeln!(out, "platform_lb_requests_total{{{labels},code_class=\"{class}\"}} {count}")?;
                }
                let report = counters.report();
                if report.copies > 0 {
                    writeln!(out, "platform_lb_copies_total{{{labels}}} {}", report.copies)?;
                    writeln!(out, "platform_lb_copies_failed_total{{{labels}}} {}", report.copies_failed)?;
                }
                writeln!(out, "platform_lb_failed_total{{{labels}}} {}", report.failed)?;
                let name = "platform_lb_request_duration_seconds";
                let mut sum = 0;
                for (count, limit) in report.durations.iter().zip(DURATION_BUCKETS_MS) {
                    sum += count;
                    let seconds = std::time::Duration::from_millis(limit).as_secs_f64();
                    writeln!(out, "{name}_bucket{{{labels},le=\"{seconds}\"}} {sum}")?;
                }
                let count: u64 = report.durations.iter().sum();
                writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
                writeln!(out, "{name}_sum{{{labels}}} {}", counters.duration_seconds())?;
                writeln!(out, "{name}_count{{{labels}}} {count}")?;
            }
        }
        Ok(())
    }

    fn write_edge(&self, out: &mut String) -> std::fmt::Result {
        let edge = &self.balancer.edge;
        for (name, kind, value) in [
            ("platform_lb_connections_total", "counter", &edge.connections),
            ("platform_lb_connections_open", "gauge", &edge.connections_open),
            ("platform_lb_retries_total", "counter", &edge.retries),
            ("platform_lb_retries_denied_total", "counter", &edge.retries_denied),
            ("platform_lb_ejections_total", "counter", &edge.ejections),
            ("platform_lb_table_swaps_total", "counter", &edge.swaps),
            ("platform_lb_late_heads_total", "counter", &edge.late_heads),
            ("platform_lb_not_proxied_total", "counter", &edge.not_proxied),
            ("platform_lb_handshakes_total", "counter", &edge.handshakes),
            ("platform_lb_http2_errors_total", "counter", &edge.http2_errors),
        ] {
            writeln!(out, "# TYPE {name} {kind}\n{name} {}", value.load(Ordering::Relaxed))?;
        }
        let left = self.balancer.remaining.left().unwrap_or_default();
        writeln!(out, "# TYPE platform_lb_predecessor_connections gauge")?;
        writeln!(out, "platform_lb_predecessor_connections {}", left.connections)?;
        for (name, label, counts) in [
            ("platform_lb_refused_total", "code", &edge.refused),
            ("platform_lb_handshakes_failed_total", "reason", &edge.handshakes_failed),
        ] {
            writeln!(out, "# TYPE {name} counter")?;
            let counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            for (word, count) in counts {
                writeln!(out, "{name}{{{label}=\"{word}\"}} {count}")?;
            }
        }
        Ok(())
    }

    /// What became of the lines of the access log, and of spans.
    fn write_told(&self, out: &mut String) -> std::fmt::Result {
        let counter = |out: &mut String, name, value: &AtomicU64| {
            writeln!(out, "# TYPE {name} counter\n{name} {}", value.load(Ordering::Relaxed))
        };
        if let Some(log) = &self.listeners.log {
            counter(out, "platform_lb_access_lines_lost_total", &log.lost)?;
        }
        if let Some(spans) = &self.listeners.spans {
            counter(out, "platform_lb_spans_sent_total", &spans.sent)?;
            counter(out, "platform_lb_spans_lost_total", &spans.lost)?;
        }
        Ok(())
    }

    fn write_instances(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# TYPE platform_lb_instance_up gauge")?;
        writeln!(out, "# TYPE platform_lb_instance_in_flight gauge")?;
        writeln!(out, "# TYPE platform_lb_instance_streams gauge")?;
        writeln!(out, "# TYPE platform_lb_instance_ejected gauge")?;
        writeln!(out, "# TYPE platform_lb_instance_panic gauge")?;
        writeln!(out, "# TYPE platform_lb_instance_latency_seconds gauge")?;
        let now = self.balancer.clock.elapsed();
        for backend in self.balancer.all_backends() {
            let (id, seen) = (&backend.id, backend.seen(now));
            let up = u8::from(seen.health == Health::Up);
            let ejected = u8::from(seen.ejected);
            let panic = u8::from(seen.health == Health::Down && seen.eligible);
            let streams = backend.streams();
            writeln!(out, "platform_lb_instance_up{{instance=\"{id}\"}} {up}")?;
            let requests = backend.requests();
            writeln!(out, "platform_lb_instance_in_flight{{instance=\"{id}\"}} {requests}")?;
            writeln!(out, "platform_lb_instance_streams{{instance=\"{id}\"}} {streams}")?;
            writeln!(out, "platform_lb_instance_ejected{{instance=\"{id}\"}} {ejected}")?;
            writeln!(out, "platform_lb_instance_panic{{instance=\"{id}\"}} {panic}")?;
            if let Some(latency) = seen.latency_us {
                let seconds = std::time::Duration::from_micros(latency).as_secs_f64();
                writeln!(out, "platform_lb_instance_latency_seconds{{instance=\"{id}\"}} {seconds:.6}")?;
            }
        }
        Ok(())
    }
}
