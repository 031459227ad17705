//! Old records go, after the commit of a load.
//!
//! A record goes before its mark, and the disk has forgotten the one before the other goes: a record without a mark may be of a load
//! that was not committed, and its files would be taken away. A mark that is left stands for nothing; the next commit sweeps it.

use super::super::place::{Place, blocking, sync_folder};
use super::ledger::{LOADS, Ledger, Name, Record};
use super::table::Table;
use super::{DeltaSink, publish};
use crate::sinks::ledger::limit;
use gristmill_model::{LoadKey, Result};

impl DeltaSink {
    /// Drops what is older than is to be remembered, once a load is committed. It is committed whatever becomes of this, and the
    /// next one tries again.
    pub(super) async fn forget_quietly(&self, record: &Record, name: &Name) {
        if let Err(error) = self.forget_old(record, name).await {
            tracing::warn!(load = %record.key, %error, "old loads could not be forgotten");
        }
    }

    async fn forget_old(&self, record: &Record, name: &Name) -> Result<()> {
        let limit = self.context.ledger_retention.and_then(|retention| limit(record.at, retention));
        let Some(limit) = limit else { return Ok(()) };
        let staged: Option<Vec<LoadKey>> =
            self.all_staged().await?.into_iter().map(|(_, load)| load.map(|load| load.key)).collect();
        // Something is staged that does not say for which load yet: the next commit will do.
        let Some(staged) = staged else { return Ok(()) };
        let table = Table::read(&self.place).await?;
        let (records, marks) = Ledger::list(&self.place, &table).await?.forgotten(name, limit, &staged).await?;
        if !records.is_empty() {
            publish::remove(&self.place, records, &self.faults).await?;
            if let Place::Local(local) = &self.place {
                let folder = local.path(LOADS);
                blocking(move || sync_folder(&folder)).await?;
            }
        }
        if !marks.is_empty() {
            publish::remove(&self.place, marks, &self.faults).await?;
        }
        Ok(())
    }
}
