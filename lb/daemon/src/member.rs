//! Member: lb as a follower of the controller's route table.

use std::collections::BTreeMap;
use std::sync::Arc;

use appbase_core::v1::{MemberKind, MemberStatus};
use appbase_core::{Generation, SectionKey};
use kit::member::Follower;
use lb_core::Table;
use lb_core::v1::RouteSection;

use crate::balancer::Balancer;

pub(crate) struct Member(pub(crate) Arc<Balancer>);

impl Follower for Member {
    type Section = RouteSection;
    type Checked = Table;
    const KIND: MemberKind = MemberKind::Lb;

    fn check(&self, sections: &BTreeMap<SectionKey, RouteSection>) -> Result<Table, String> {
        Table::new(sections).map_err(|error| error.to_string())
    }

    fn swap(&self, generation: &Generation, table: Table, presumed: bool) {
        tracing::debug!(generation = %generation, presumed, "route table in force");
        self.0.put(table, presumed);
    }

    fn report(&self, status: &mut MemberStatus) {
        self.0.report(status);
    }
}
