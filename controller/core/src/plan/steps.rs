//! Steps: what must be done to a machine so that it shows what the run record says.

use std::collections::BTreeMap;
use std::time::Duration;

use appbase_core::InstanceId;
use appbase_core::v1::InstanceConfig;

use super::{Draft, Step};
use crate::observed::Seen;
use crate::v1::compute::{CreateInstance, InstanceLabels, InstancePhase};
use crate::v1::state::{EventKind, InstanceRecord, Traffic};

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
    }

    fn plan_running(&mut self, id: &InstanceId, record: &InstanceRecord) {
        match self.observed.instance(&record.server, id) {
            Seen::Unknown => self.waits_for(format!("server {} cannot be seen", record.server)),
            Seen::Absent => match self.create_request(id, record) {
                Some(request) => self.plan.steps.push(Step::Create(Box::new(request))),
                None => self.waits_for(format!("{id} cannot be made: release {} is not recorded", record.release)),
            },
            Seen::Present(seen) if seen.phase != InstancePhase::Running => {
                self.plan.steps.push(Step::Start { id: id.clone(), server: record.server.clone() });
            }
            Seen::Present(_) => {}
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
                let spec = self.release(record.release).and_then(|known| known.release.processes.get(&record.process));
                let grace = Duration::from_millis(spec.map_or(10_000, |spec| spec.stop_grace_ms));
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
