//! The envelope every table travels in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Generation, SectionKey};

/// A table or what changed in it. `S` is lb's or dns's section type.
///
/// Whole when `base` is none; otherwise it applies on exactly that generation: `sections` replace whole sections,
/// `removed` take them away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableUpdate<S> {
    #[serde(default)]
    pub needs: Vec<String>,
    pub generation: Generation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Generation>,
    #[serde(default = "BTreeMap::new")]
    pub sections: BTreeMap<SectionKey, S>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<SectionKey>,
}

impl<S> TableUpdate<S> {
    pub fn whole(generation: Generation, sections: BTreeMap<SectionKey, S>) -> Self {
        Self { needs: Vec::new(), generation, base: None, sections, removed: Vec::new() }
    }
}
