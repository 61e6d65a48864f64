//! What the repository says of itself on its admin endpoint.

use std::sync::Arc;

use kit::admin::Admin;

use crate::store::Store;

/// With less than this free, pushes will soon fail: the repository says so while pulls still work.
const FREE_BYTES_LOW: u64 = 64 << 20;

pub(crate) struct Health {
    pub(crate) store: Arc<Store>,
}

impl Admin for Health {
    fn ready(&self) -> Result<(), String> {
        if !self.store.is_working() {
            return Err("the catalogue does not answer: see the log, then restart".to_owned());
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        self.store.counters().render(&mut text);
        let free = self.store.free_bytes();
        let gauges = [
            ("uploads_open", self.store.uploads_open() as u64),
            ("disk_free_bytes", free),
            ("disk_low", u64::from(free < FREE_BYTES_LOW)),
        ];
        for (name, value) in gauges {
            text.push_str(&format!("# TYPE platform_repository_{name} gauge\nplatform_repository_{name} {value}\n"));
        }
        text
    }
}
