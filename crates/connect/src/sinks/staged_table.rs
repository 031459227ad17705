//! Staging tables: rows wait in tables of their own beside the target, which say whose they are in their comment.

use arrow::array::RecordBatch;
use gristmill_model::spec::ExtractSpec;
use gristmill_model::{Error, KeptRows, LoadKey, OwnerId, Result, Staged, TaskKey};
use serde::{Deserialize, Serialize};

/// What every staging table's name begins with.
pub(crate) const PREFIX: &str = "_gristmill_stage_";
/// Rows are sent in pieces of about this many bytes.
pub(crate) const CHUNK: usize = 1 << 20;
/// At most so many rows are encoded at once.
const CHUNK_ROWS: usize = 8192;

/// What a staging table says about itself, as its comment: names are too short for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// The load.
    pub(crate) key: LoadKey,
    /// Who staged it.
    pub(crate) owner: OwnerId,
}

impl Label {
    pub(crate) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal("a label cannot be written").cause(error))
    }
}

/// Where the rows of a writer are until the commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// In a table whose columns are numbered; the commit reads them again.
    #[default]
    Aside,
    /// In the target, in a transaction of this process that is open.
    Held,
    /// In a table like the target, which can take its place.
    Ready,
}

/// What [`Staged::payload`] holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// The schema, or database, of the staging table.
    pub(crate) schema: String,
    /// Its name. Where the rows are held in the target, no table has it, and the transaction goes by it.
    pub(crate) table: String,
    /// Where the rows are.
    #[serde(default)]
    pub(crate) way: Way,
}

impl Payload {
    /// A table whose columns are numbered.
    pub(crate) fn aside(schema: &str, table: String) -> Self {
        Self { schema: schema.to_owned(), table, way: Way::Aside }
    }

    pub(crate) fn of(staged: &Staged) -> Result<Self> {
        let payload: Self = serde_json::from_value(staged.payload.clone())
            .map_err(|error| Error::internal("what was staged is not of this sink").cause(error))?;
        if payload.table.starts_with(PREFIX) {
            return Ok(payload);
        }
        Err(Error::internal(format!("`{}` is not a staging table", payload.table)))
    }

    /// What was staged in it, for the commit.
    pub(crate) fn staged(self, task: &TaskKey, rows: u64, bytes: u64) -> Result<Staged> {
        let payload =
            serde_json::to_value(self).map_err(|error| Error::internal("a payload cannot be written").cause(error))?;
        Ok(Staged { task: task.clone(), rows, bytes, files: Vec::new(), payload })
    }
}

/// How what all writers have staged can be read, given in the database's own SQL what a table of it is called, and its
/// columns with the names that they have in the target.
pub(crate) fn keep(
    staged: &[Staged],
    columns: impl Iterator<Item = String>,
    named: impl Fn(&Payload) -> String,
) -> Result<Option<KeptRows>> {
    let columns = columns.collect::<Vec<_>>().join(", ");
    let each = staged.iter().map(|staged| Ok(format!("SELECT {columns} FROM {}", named(&Payload::of(staged)?))));
    let each: Vec<String> = each.collect::<Result<_>>()?;
    if each.is_empty() {
        return Ok(None);
    }
    let extract = ExtractSpec { query: Some(each.join(" UNION ALL ")), ..ExtractSpec::new("staged".into()) };
    Ok(Some(KeptRows { folder: None, extract }))
}

/// `_gristmill_stage_<load>_<partition>_<attempt>_<owner>`, numbers in hex: at most 60 bytes.
pub(crate) fn table_name(task: &TaskKey) -> String {
    // FNV-1a of the owner, folded to 24 bits; the comment says who it really is.
    let hash = task
        .owner
        .0
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let owner = (hash >> 24) ^ (hash & 0x00ff_ffff);
    format!("{PREFIX}{}_{:x}_{:x}_{owner:06x}", task.load.short(), task.partition, task.attempt)
}

/// A batch in pieces that are small in rows and in bytes.
pub(crate) fn pieces(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    let rows = batch.num_rows();
    let row_bytes = batch.get_array_memory_size() / rows.max(1);
    // Sliced batches report the memory of the whole, which only makes the pieces smaller.
    let step = (4 * CHUNK / row_bytes.max(1)).clamp(16, CHUNK_ROWS);
    (0..rows).step_by(step).map(move |from| batch.slice(from, step.min(rows - from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;
    use gristmill_model::{Interval, RunId, Slot};

    #[test]
    fn the_longest_name_of_a_staging_table_is_not_cut_off() {
        let day = Interval::day(NaiveDate::from_ymd_opt(2024, 1, 15).unwrap());
        let slot = Slot { pipeline: "p".into(), step: "s".into(), interval: day, target: "t:t".to_owned() };
        let task = TaskKey {
            load: LoadKey { slot, generation: u32::MAX },
            owner: OwnerId(RunId::new("019a0000-0000-7000-8000-000000000000")),
            partition: u32::MAX,
            attempt: u32::MAX,
        };
        assert!(table_name(&task).len() <= 63, "{}", table_name(&task));
    }
}
