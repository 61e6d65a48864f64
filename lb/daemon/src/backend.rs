//! Backend: one instance as lb knows it, apart from any table. Survives table swaps.
//!
//! Owns: the gate, what is inside it, the health, what requests told of it. An instance whose address changed is a new
//! backend. A backend's gate is open exactly while the table in force lets requests to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use appbase_core::v1::{Balance, DrainReport, Health, Probe, ProbeAnswer, Protocol};
use appbase_core::{InstanceId, ProcessName, ReleaseNumber, SectionKey};
use kit::gate::{Gate, Pass};
use kit::member::InForce;
use lb_core::eject::Ejection;
use lb_core::explain::Seen;
use lb_core::health::HealthMachine;
use lb_core::v1::Drain;
use lb_core::{drain, pick};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::experience::Experience;

/// While something drains it is looked at this often: who became a stream meanwhile is asked to go, who came in at the
/// last moment is cut.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Numbers every backend of this process, so that a pooled connection never serves another instance that got the same
/// address.
static SERIALS: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Backend {
    pub(crate) id: InstanceId,
    pub(crate) serial: u64,
    pub(crate) address: SocketAddr,
    /// Of its name: the same at every lb.
    pub(crate) hash: u64,
    pub(crate) experience: Experience,
    /// Since when it takes requests without a break, in nanoseconds of lb's clock; 0: it does not.
    pub(crate) joined: AtomicU64,
    pub(crate) gate: Arc<Gate>,
    inside: Mutex<BTreeMap<u64, Inside>>,
    streams: AtomicU64,
    cut: AtomicU64,
    /// Requests that went in, and those that failed in there.
    pub(crate) entered: AtomicU64,
    pub(crate) failed: AtomicU64,
    judgement: Mutex<Judgement>,
    draining: Mutex<Option<Draining>>,
    /// A connection failed: ask now.
    pub(crate) probe_now: Notify,
    /// No table names it any more: no further probes.
    pub(crate) retired: CancellationToken,
    in_force: Arc<InForce>,
}

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) section: SectionKey,
    pub(crate) release: ReleaseNumber,
    pub(crate) process: ProcessName,
}

/// Who is inside, and how to end it.
struct Inside {
    connection: Arc<Connection>,
    stream: bool,
    cut: bool,
}

/// What lb thinks of it, and how it asks.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    pub(crate) place: Place,
    pub(crate) machine: HealthMachine,
    pub(crate) probe: Probe,
    pub(crate) protocol: Protocol,
    pub(crate) balance: Balance,
    pub(crate) ejection: Ejection,
    /// The host that traffic will come with; none: its address.
    pub(crate) host: Option<String>,
    pub(crate) tries: u64,
    pub(crate) last: Option<ProbeAnswer>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Draining {
    pub(crate) since: Duration,
    pub(crate) limits: Drain,
    /// How many were inside when it began.
    inside: u64,
    /// Until nobody was any more, as it was seen first; none: somebody is.
    took: Option<Duration>,
}

impl Backend {
    pub(crate) fn new(
        id: &InstanceId,
        address: SocketAddr,
        judgement: Judgement,
        in_force: &Arc<InForce>,
    ) -> Arc<Self> {
        let gate = Gate::new();
        gate.close();
        Arc::new(Self {
            id: id.clone(),
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            address,
            hash: pick::hash(id.as_str().as_bytes()),
            experience: Experience::default(),
            joined: AtomicU64::new(0),
            gate,
            inside: Mutex::default(),
            streams: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            judgement: Mutex::new(judgement),
            draining: Mutex::new(None),
            probe_now: Notify::new(),
            retired: CancellationToken::new(),
            in_force: Arc::clone(in_force),
        })
    }

    pub(crate) fn judgement(&self) -> MutexGuard<'_, Judgement> {
        self.judgement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn health(&self) -> Health {
        self.judgement().machine.health()
    }

    /// How long its answers take; none: it has not answered yet. What is known is forgotten only while nothing is under
    /// way: one that answers nothing any more does not look quicker by that.
    pub(crate) fn latency(&self, now: Duration) -> Option<Duration> {
        let known = self.experience.latency()?;
        Some(if self.requests() > 0 { known.mean } else { known.at(now) })
    }

    /// What is inside, long-lived streams left out.
    pub(crate) fn requests(&self) -> u64 {
        self.gate.inside().saturating_sub(self.streams())
    }

    /// Whether new requests may go to it now.
    pub(crate) fn is_eligible(&self) -> bool {
        self.joined.load(Ordering::Relaxed) > 0 && !self.gate.is_closed()
    }

    /// What people are told of it.
    pub(crate) fn seen(&self, now: Duration) -> Seen {
        let (health, is_out) = {
            let judgement = self.judgement();
            (judgement.machine.health(), judgement.ejection.is_out())
        };
        let eligible = self.is_eligible();
        let latency = self.experience.latency().map(|latency| latency.mean);
        Seen {
            health,
            in_flight: self.gate.inside(),
            eligible,
            ejected: is_out && !eligible,
            backs_off: self.experience.backs_off(now),
            latency_us: latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    pub(crate) fn streams(&self) -> u64 {
        self.streams.load(Ordering::SeqCst)
    }

    pub(crate) fn cut_count(&self) -> u64 {
        self.cut.load(Ordering::SeqCst)
    }

    /// Takes nothing new and has nothing left.
    pub(crate) fn is_empty(&self) -> bool {
        self.gate.is_closed() && self.gate.inside() == 0
    }

    /// Takes requests again. Under the lock of the drain, so that a sweep that saw the drain's end cuts nobody who
    /// comes in afterwards.
    pub(crate) fn open(&self) {
        let mut draining = self.draining();
        *draining = None;
        self.gate.open();
    }

    /// Takes nothing new. What is inside may stay for `limits`, counted from the first close.
    pub(crate) fn close(&self, limits: Drain, now: Duration) {
        let mut draining = self.draining();
        self.gate.close();
        let begun = || Draining { since: now, limits, inside: self.gate.inside(), took: None };
        *draining = Some(Draining { limits, ..draining.unwrap_or_else(begun) });
    }

    /// How its drain goes, as of now.
    pub(crate) fn report_drain(&self, now: Duration) -> Option<DrainReport> {
        let mut draining = self.draining();
        let draining = draining.as_mut()?;
        if self.is_empty() {
            draining.took.get_or_insert(now.saturating_sub(draining.since));
        }
        let took_ms = draining.took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Some(DrainReport { inside: draining.inside, took_ms })
    }

    /// Since when and how long; none while open.
    pub(crate) fn drain(&self) -> Option<Draining> {
        *self.draining()
    }

    fn draining(&self) -> MutexGuard<'_, Option<Draining>> {
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inside(&self) -> MutexGuard<'_, BTreeMap<u64, Inside>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters, or none when the gate closed this instant.
    pub(crate) fn enter(self: &Arc<Self>, connection: &Arc<Connection>, request: u64) -> Option<Entry> {
        let Some(pass) = self.gate.enter() else {
            // For a moment the refused one was counted, and a status may have gone out with it.
            self.tell_when_empty();
            return None;
        };
        let inside = Inside { connection: Arc::clone(connection), stream: false, cut: false };
        self.inside().insert(request, inside);
        self.entered.fetch_add(1, Ordering::Relaxed);
        Some(Entry { backend: Arc::clone(self), pass: Some(pass), request, stream: false })
    }

    /// Carries out what is due of a drain: asks streams to go, ends by force what is over. Answers when to look again;
    /// none when nothing drains here.
    pub(crate) fn sweep(&self, now: Duration) -> Option<Duration> {
        let draining = self.draining();
        let Draining { since, limits, .. } = (*draining).filter(|_| self.gate.inside() > 0)?;
        let elapsed = now.saturating_sub(since);
        let over = drain::over(limits, elapsed);
        for (request, inside) in self.inside().iter_mut() {
            if inside.stream {
                inside.connection.say_goodbye();
            }
            if if inside.stream { over.streams } else { over.requests } {
                inside.cut = true;
                inside.connection.cut_request(*request);
            }
        }
        Some(drain::wait(limits, elapsed).unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL))
    }

    /// Asks a part of the streams to go, in thousandths: the same ones again, and more of them as it grows.
    pub(crate) fn ask_streams_to_go(&self, part: u64) {
        for (request, inside) in self.inside().iter().filter(|(_, inside)| inside.stream) {
            let place = pick::Seeds(*request).draw() % 1_000;
            if place < part {
                inside.connection.say_goodbye();
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn inside_count(&self) -> usize {
        self.inside().len()
    }

    fn tell_when_empty(&self) {
        if self.is_empty() {
            self.in_force.changed();
        }
    }
}

/// Being inside of a backend; leaving is dropping it.
pub(crate) struct Entry {
    backend: Arc<Backend>,
    pass: Option<Pass>,
    request: u64,
    stream: bool,
}

impl Entry {
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// From now on it counts as a long-lived stream.
    pub(crate) fn become_stream(&mut self) {
        if std::mem::replace(&mut self.stream, true) {
            return;
        }
        self.backend.streams.fetch_add(1, Ordering::SeqCst);
        if let Some(inside) = self.backend.inside().get_mut(&self.request) {
            inside.stream = true;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let left = self.backend.inside().remove(&self.request);
        if left.is_some_and(|inside| inside.cut) {
            self.backend.cut.fetch_add(1, Ordering::SeqCst);
        }
        if self.stream {
            self.backend.streams.fetch_sub(1, Ordering::SeqCst);
        }
        drop(self.pass.take());
        self.backend.tell_when_empty();
    }
}
