//! Member: lb as a follower of the controller's route table.

use std::collections::BTreeMap;
use std::sync::Arc;

use appbase_core::v1::{MemberKind, MemberStatus};
use appbase_core::{Generation, SectionKey};
use kit::member::Follower;
use lb_core::Table;
use lb_core::v1::RouteSection;

use crate::balancer::Balancer;
use crate::certificates::Certificates;

pub(crate) struct Member(pub(crate) Arc<Balancer>);

impl Follower for Member {
    type Section = RouteSection;
    type Checked = (Table, Certificates);
    const KIND: MemberKind = MemberKind::Lb;

    fn check(&self, sections: &BTreeMap<SectionKey, RouteSection>) -> Result<Self::Checked, String> {
        let table = Table::new(sections).map_err(|error| error.to_string())?;
        let certificates = self.0.certificates_of(&table).map_err(|error| error.to_string())?;
        Ok((table, certificates))
    }

    fn swap(&self, generation: &Generation, (table, certificates): Self::Checked, presumed: bool) {
        tracing::debug!(generation = %generation, presumed, "route table in force");
        self.0.put(table, certificates, presumed);
        self.0.remaining.table_saved();
    }

    fn report(&self, status: &mut MemberStatus) {
        self.0.report(status);
    }
}
