//! The compiled table: one set of nodes per view, every existing name included, ready to be looked up.
//!
//! Owns: what a table must be to be taken, and which records each view has. Refuses: a table with any fault, whole.

mod build;
mod private;
mod view;

use std::collections::BTreeMap;
use std::net::IpAddr;

use appbase_core::{ReleaseNumber, SectionKey};

use crate::name::NameError;
use crate::record::SERIAL_FROM_END;
use crate::v1::{NameSection, TableFile};

pub(crate) use view::{Found, View};

/// Views of one table: each is a copy of all names, and one per environment is what is needed.
pub const VIEWS_MAX: usize = 64;
/// Nodes of one view, empty ones included: some 100,000 instances.
pub const NODES_MAX: usize = 1_000_000;

/// Why a table is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("table has no section \"platform\": it says the domain and the views, publish it with the apps")]
    NoPlatform,
    #[error("section \"{key}\" holds the names of {found}: publish each app under <environment>/<app>")]
    Key { key: SectionKey, found: String },
    #[error("domain \"{domain}\" cannot be served: {reason}")]
    Domain { domain: String, reason: String },
    #[error("view \"{view}\" has source \"{source_text}\", which is not an address range: write it like 10.210.0.0/16")]
    Source { view: String, source_text: String },
    #[error("table has {count} views, {VIEWS_MAX} are the limit")]
    Views { count: usize },
    #[error("\"{name}\" is both {first} and {second}: they share one level of names, rename one of them")]
    Collision { name: String, first: &'static str, second: &'static str },
    #[error("instance number {number} of process {process} of {key} stands there twice")]
    Twice { key: SectionKey, process: String, number: u32 },
    #[error("view \"{view}\" has more than {NODES_MAX} names")]
    TooLarge { view: String },
    #[error("a name in section \"{key}\" cannot be made")]
    Name {
        key: SectionKey,
        #[source]
        source: NameError,
    },
}

/// A whole table in its inner form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    views: Vec<View>,
    live: BTreeMap<SectionKey, ReleaseNumber>,
}

impl Table {
    /// Checks and compiles. Equal sections make equal tables.
    pub fn new(sections: &BTreeMap<SectionKey, NameSection>) -> Result<Self, TableError> {
        build::table(sections)
    }

    /// The live release of each app in force, for the status of a member.
    pub fn live(&self) -> &BTreeMap<SectionKey, ReleaseNumber> {
        &self.live
    }

    /// Puts the generation's number into every SOA, so that `dig SOA` shows which table answers.
    pub fn set_serial(&mut self, serial: u32) {
        for view in &mut self.views {
            let at = view.soa.len() - SERIAL_FROM_END;
            view.soa[at..at + 4].copy_from_slice(&serial.to_be_bytes());
        }
    }

    /// Names of all views, empty ones included.
    pub fn nodes(&self) -> usize {
        self.views.iter().map(|view| view.nodes.len()).sum()
    }

    /// The view of an asker: the first whose sources contain it.
    pub(crate) fn view(&self, source: IpAddr) -> Option<&View> {
        let source = source.to_canonical();
        self.views.iter().find(|view| view.sources.iter().any(|prefix| prefix.contains(source)))
    }
}

impl TableFile {
    /// The sections that a controller would have published.
    pub fn sections(self) -> Result<BTreeMap<SectionKey, NameSection>, TableError> {
        let mut sections = BTreeMap::from([(SectionKey::Platform, NameSection::Platform(self.platform))]);
        for app in self.apps {
            let key = SectionKey::app(&app.environment, &app.app);
            if sections.insert(key.clone(), NameSection::App(app)).is_some() {
                return Err(TableError::Key { found: "the same app twice".to_owned(), key });
            }
        }
        Ok(sections)
    }
}
