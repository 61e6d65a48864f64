//! Generation: which table is newer. Compared as (cluster, epoch, number).

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ClusterId;

/// The stamp of everything that is published. `number` is the store revision of the transaction that recorded the
/// publication; restore and failover raise `epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation {
    pub cluster: ClusterId,
    pub epoch: u64,
    pub number: u64,
}

/// Why a receiver does not take a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    #[error("table is of cluster {offered}, this member follows {mine}")]
    OtherCluster { mine: ClusterId, offered: ClusterId },
    #[error(
        "table {offered} is older than {mine}, which is in force: raise the epoch if an older state was restored on purpose"
    )]
    Older { mine: Generation, offered: Generation },
}

impl Generation {
    /// Newer, equal or older; generations of different clusters have no order.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        (self.cluster == other.cluster).then(|| (self.epoch, self.number).cmp(&(other.epoch, other.number)))
    }

    /// Whether a receiver that has `self` in force may take `offered`: same cluster and not older.
    pub fn admits(&self, offered: &Self) -> Result<(), GenerationError> {
        match self.compare(offered) {
            None => Err(GenerationError::OtherCluster { mine: self.cluster.clone(), offered: offered.cluster.clone() }),
            Some(Ordering::Greater) => Err(GenerationError::Older { mine: self.clone(), offered: offered.clone() }),
            Some(Ordering::Equal | Ordering::Less) => Ok(()),
        }
    }

    /// Whether this one is `other` or newer, of the same cluster.
    pub fn reaches(&self, other: &Self) -> bool {
        matches!(self.compare(other), Some(Ordering::Equal | Ordering::Greater))
    }
}

/// `epoch.number`, the form people read (`1.118`); the cluster is implied.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(cluster: &str, epoch: u64, number: u64) -> Generation {
        Generation { cluster: ClusterId::parse(cluster).expect("a name"), epoch, number }
    }

    #[test]
    fn epoch_beats_number_and_clusters_do_not_mix() {
        let mine = generation("a1", 2, 5);
        assert!(mine.admits(&generation("a1", 2, 5)).is_ok());
        assert!(mine.admits(&generation("a1", 3, 1)).is_ok());
        assert!(matches!(mine.admits(&generation("a1", 2, 4)), Err(GenerationError::Older { .. })));
        assert!(matches!(mine.admits(&generation("a1", 1, 99)), Err(GenerationError::Older { .. })));
        assert!(matches!(mine.admits(&generation("b1", 9, 9)), Err(GenerationError::OtherCluster { .. })));
        assert!(mine.reaches(&generation("a1", 1, 99)) && !mine.reaches(&generation("a1", 3, 0)));
    }
}
