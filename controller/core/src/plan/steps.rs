//! Steps: what must be done to a machine so that it shows what the run record says.

use std::collections::BTreeMap;
use std::time::Duration;

use appbase_core::v1::InstanceConfig;
use appbase_core::{InstanceId, ProcessName, ReleaseNumber};

use super::{Draft, Step, given_up};
use crate::observed::Seen;
use crate::v1::compute::{CreateInstance, InstanceLabels, InstancePhase, ObservedInstance};
use crate::v1::state::{EventKind, InstanceRecord, Traffic};

/// From SIGTERM to SIGKILL where the release that says it is not known.
const STOP_GRACE: Duration = Duration::from_secs(10);

impl Draft<'_> {
    pub(super) fn plan_steps(&mut self) {
        let records: Vec<_> = self.records().map(|(id, record)| (id.clone(), record.clone())).collect();
        for (id, record) in records {
            if record.state == Traffic::Retiring {
                self.plan_retiring(&id, &record);
            } else {
                self.plan_running(&id, &record);
            }
        }
        self.plan_unrecorded();
    }

    /// What runs of this app and stands in no record: a step that ended after its instance was given up, or an older
    /// state that was put back. It goes once every member has a table without it.
    fn plan_unrecorded(&mut self) {
        let app = self.slice.app.as_str();
        // Every id begins with its app's name: what is looked at is what may be this app's.
        let first = InstanceId::parse(app).expect("an app's name is a name");
        let may_be_ours = |seen: &'_ BTreeMap<InstanceId, ObservedInstance>| {
            let from_first = seen.range(first.clone()..);
            from_first
                .take_while(|(id, _)| id.as_str().starts_with(app))
                .map(|(_, seen)| seen.clone())
                .collect::<Vec<_>>()
        };
        let seen =
            self.observed.servers.iter().filter_map(|(server, seen)| Some((server, may_be_ours(seen.as_ref()?))));
        let strays =
            seen.flat_map(|(server, seen)| seen.into_iter().map(move |seen| (server, seen))).filter(|(_, seen)| {
                let labels = &seen.labels;
                labels.environment == *self.slice.environment
                    && labels.app == *self.slice.app
                    && !self.run.instances.contains_key(&seen.id)
                    && !self.slice.run.instances.contains_key(&seen.id)
            });
        let strays: Vec<_> = strays.map(|(server, seen)| (server.clone(), seen)).collect();
        for (server, seen) in strays {
            let id = seen.id;
            let let_go = |table| self.observed.is_drained(&id, table) && self.observed.names_taken(table);
            if !self.slice.published.is_some_and(let_go) {
                self.waits_for(format!("{id} is recorded nowhere: it stops once no member names it"));
            } else if seen.phase == InstancePhase::Running {
                let grace = self.stop_grace(seen.labels.release, &seen.labels.process);
                self.plan.steps.push(Step::Stop { id, server, grace });
            } else {
                self.plan.steps.push(Step::Remove { id, server });
            }
        }
    }

    fn stop_grace(&self, release: ReleaseNumber, process: &ProcessName) -> Duration {
        let spec = self.release(release).and_then(|known| known.release.processes.get(process));
        spec.map_or(STOP_GRACE, |spec| Duration::from_millis(spec.stop_grace_ms))
    }

    fn plan_running(&mut self, id: &InstanceId, record: &InstanceRecord) {
        match self.observed.instance(&record.server, id) {
            Seen::Unknown => self.waits_for(format!("server {} cannot be seen", record.server)),
            Seen::Absent if given_up(record.state) => {}
            Seen::Absent => self.plan_making(id, record),
            Seen::Present(seen) if seen.labels.address != record.address || seen.labels.spec != record.spec => {
                self.plan_replacing(id, record, seen.phase);
            }
            Seen::Present(seen) => match seen.phase {
                // Never started: its making may have broken off half-way, and is only whole when it is done again.
                InstancePhase::Created => self.plan_making(id, record),
                InstancePhase::Running => {}
                InstancePhase::Ended | InstancePhase::Lost => {
                    self.plan.steps.push(Step::Start { id: id.clone(), server: record.server.clone() });
                }
            },
        }
    }

    /// One of this name that is not the recorded one: of a state that was put back, or made too late. It serves nobody
    /// once the members have the table, which names another address, so it makes way and is made anew.
    fn plan_replacing(&mut self, id: &InstanceId, record: &InstanceRecord, phase: InstancePhase) {
        self.waits_for(format!("{id} is not the recorded one: it is made anew"));
        let (id, server) = (id.clone(), record.server.clone());
        if !self.slice.published.is_some_and(|table| self.observed.is_taken(table)) {
            return;
        }
        self.plan.steps.push(match phase {
            InstancePhase::Running => {
                let grace = self.stop_grace(record.release, &record.process);
                Step::Stop { id, server, grace }
            }
            _ => Step::Remove { id, server },
        });
    }

    fn plan_making(&mut self, id: &InstanceId, record: &InstanceRecord) {
        match self.create_request(id, record) {
            Some(request) => self.plan.steps.push(Step::Create(Box::new(request))),
            None => self.waits_for(format!("{id} cannot be made: release {} is not recorded", record.release)),
        }
    }

    fn plan_retiring(&mut self, id: &InstanceId, record: &InstanceRecord) {
        let server = record.server.clone();
        match self.observed.instance(&server, id) {
            Seen::Unknown => self.waits_for(format!("server {server} cannot be seen: {id} is not removed")),
            Seen::Absent => {
                self.run.instances.remove(id);
                self.happened(EventKind::InstanceRemoved, format!("{id} is removed"));
            }
            Seen::Present(seen) if seen.phase == InstancePhase::Running => {
                let grace = self.stop_grace(record.release, &record.process);
                self.plan.steps.push(Step::Stop { id: id.clone(), server, grace });
            }
            Seen::Present(_) => self.plan.steps.push(Step::Remove { id: id.clone(), server }),
        }
    }

    fn create_request(&self, id: &InstanceId, record: &InstanceRecord) -> Option<CreateInstance> {
        let known = self.release(record.release)?;
        let release = &known.release;
        let spec = release.processes.get(&record.process)?;
        let labels = InstanceLabels {
            cluster: self.setting.cluster.clone(),
            environment: self.slice.environment.clone(),
            app: self.slice.app.clone(),
            version: release.version.clone(),
            process: record.process.clone(),
            number: record.number,
            release: record.release,
            document: known.document,
            spec: record.spec,
            slot: record.slot,
            server: record.server.clone(),
            address: record.address,
        };
        let config = InstanceConfig {
            needs: Vec::new(),
            instance: id.clone(),
            environment: self.slice.environment.clone(),
            app: self.slice.app.clone(),
            version: release.version.clone(),
            process: record.process.clone(),
            number: record.number,
            release: record.release,
            document: known.document,
            repository: self.setting.repository.clone(),
            token: String::new(),
            environment_variables: self.platform_variables(id, record, &release.version),
            restart: self.setting.boot_restarts,
        };
        Some(CreateInstance {
            id: id.clone(),
            labels,
            source: spec.source.clone(),
            base: spec.base.clone(),
            command: spec.command.clone(),
            ip: record.address.map(|address| address.ip()),
            network: self.addresses.networks.get(self.slice.environment).copied(),
            limits: spec.limits.clone(),
            stop_grace_ms: spec.stop_grace_ms,
            config,
        })
    }

    /// What the platform tells every instance about itself.
    fn platform_variables(
        &self,
        id: &InstanceId,
        record: &InstanceRecord,
        version: &appbase_core::Version,
    ) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::from([
            ("PLATFORM_APP".to_owned(), self.slice.app.to_string()),
            ("PLATFORM_ENVIRONMENT".to_owned(), self.slice.environment.to_string()),
            ("PLATFORM_INSTANCE".to_owned(), id.to_string()),
            ("PLATFORM_PROCESS".to_owned(), record.process.to_string()),
            ("PLATFORM_RELEASE".to_owned(), record.release.to_string()),
            ("PLATFORM_VERSION".to_owned(), version.to_string()),
        ]);
        if let Some(address) = record.address {
            variables.insert("PORT".to_owned(), address.port().to_string());
        }
        variables
    }
}
