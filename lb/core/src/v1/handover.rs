//! What an lb and the newer one that takes over from it say to each other. The two may be of different releases.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use appbase_core::{Generation, InstanceId};
use serde::{Deserialize, Serialize};

/// The version of these words.
pub const VERSION: u32 = 1;

/// What the newer one says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum SuccessorWord {
    /// It wants the listeners.
    Take {
        /// The versions that it knows.
        speaks: Vec<u32>,
        release: String,
        /// Where it is: the number of its network namespace. None: it does not know.
        #[serde(default)]
        network: Option<u64>,
    },
    /// It could serve, with the table that is saved. Nothing may change that now.
    StandStill,
    /// It serves.
    Serve,
    /// A newer table is in force there, and saved.
    TableSaved,
}

/// What the older one says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum PredecessorWord {
    Refuse {
        reason: String,
    },
    /// The descriptors follow in this order, each with a byte of its own.
    Listeners {
        version: u32,
        release: String,
        listeners: Vec<Offered>,
    },
    /// It follows no table until the newer one serves, or is gone.
    Still {
        in_force: Option<Generation>,
    },
    /// It takes no connections any more.
    Left(Left),
}

/// A listener that changes hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    pub name: String,
    /// None: it is no listener of TCP.
    #[serde(default)]
    pub address: Option<SocketAddr>,
}

/// What the older one still carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The table that holds for it.
    pub in_force: Option<Generation>,
    /// It ends within this time, whatever is under way.
    pub within_ms: u64,
    pub connections: u64,
    /// Instances in which something of it is, or was ended by force.
    pub instances: BTreeMap<InstanceId, Inside>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Requests in flight, streams not counted.
    pub in_flight: u64,
    pub streams: u64,
    /// How many were ended by force.
    pub cut: u64,
}
