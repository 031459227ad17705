//! `unique` over one column of whole numbers (or what is stored as such: dates, times, small decimals): a bitmap.
//!
//! A hash table of all values costs some 50 bytes each and most of a job's processor time; a compressed bitmap costs a
//! bit to two bytes where keys are dense, as keys mostly are. Where they are not, and the bitmap outgrows its share of
//! the memory, the values go to files on the disk, divided by their hash, and are sorted share by share at the end.

use super::row::shown;
use super::sample::Sample;
use super::{SAMPLES, Tally};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Int64Type, UInt64Type};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use gristmill_model::spec::CheckKind;
use gristmill_model::{Error, Result};
use roaring::RoaringTreemap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Values between two looks at how large the bitmap has become.
const LOOK_EVERY: u64 = 256 << 10;
/// Shares the values are divided into on the disk; one of them at a time is sorted in memory.
const SHARES: usize = 64;
/// What is gathered for one share before it is written.
const SHARE_BUFFER: usize = 16 << 10;
/// The sign bit: signed numbers keep their order as unsigned ones.
const SIGN: u64 = 1 << 63;

/// Looks for values that occur more than once, while rows pass.
#[derive(Debug)]
pub(crate) struct UniqueNumbers {
    /// The column's position in the view.
    pub(crate) column: usize,
    data_type: DataType,
    tally: Arc<Tally>,
    /// Lanes that still bring rows.
    lanes: AtomicUsize,
    limit: usize,
    spill_dir: PathBuf,
    /// Held while values go to the disk, too, by a thread that may block; the lanes wait for it without blocking theirs.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    reservation: MemoryReservation,
    added: u64,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// Values seen, and those of them seen again.
    Memory { once: RoaringTreemap, again: RoaringTreemap },
    /// One file a share.
    Disk(Vec<BufWriter<File>>),
    /// The verdict is out.
    Done,
}

impl UniqueNumbers {
    /// A check of the column at `column`, of `data_type`, whose rows come in `lanes` streams; `None` where values are not
    /// whole numbers of 64 bits. At most `limit` bytes are kept in memory; the rest goes below `spill_dir`.
    pub(crate) fn new(
        column: usize,
        data_type: &DataType,
        tally: Arc<Tally>,
        lanes: usize,
        limit: usize,
        runtime: &RuntimeEnv,
        spill_dir: PathBuf,
    ) -> Option<Self> {
        is_whole(data_type).then(|| Self {
            column,
            data_type: data_type.clone(),
            lanes: AtomicUsize::new(lanes),
            limit,
            spill_dir,
            seen: Arc::new(Mutex::new(Seen {
                reservation: MemoryConsumer::new(tally.check.name.clone()).register(&runtime.memory_pool),
                added: 0,
                kept: Kept::Memory { once: RoaringTreemap::new(), again: RoaringTreemap::new() },
            })),
            tally,
        })
    }

    /// Takes the column's values in; NULL is no value.
    ///
    /// # Errors
    /// A disk that is full.
    pub(crate) async fn add(self: &Arc<Self>, values: &ArrayRef) -> Result<()> {
        let mut keys = keys(values)?;
        // Neighbours share a page of the bitmap.
        keys.sort_unstable();
        let mut seen = self.seen.clone().lock_owned().await;
        match &mut seen.kept {
            Kept::Memory { once, again } => {
                for key in &keys {
                    if !once.insert(*key) {
                        again.insert(*key);
                    }
                }
                seen.added += keys.len() as u64;
                keys.clear();
                if seen.added < LOOK_EVERY || self.fits(&mut seen) {
                    return Ok(());
                }
            }
            Kept::Disk(_) => {}
            Kept::Done => return Err(Error::internal("a unique check got values after its verdict")),
        }
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || this.write(&mut seen, &keys)).await;
        written.map_err(|error| Error::internal(format!("spilling ended: {error}")))?
    }

    /// Whether the bitmaps may stay in memory as they are now.
    fn fits(&self, seen: &mut Seen) -> bool {
        seen.added = 0;
        let Kept::Memory { once, again } = &seen.kept else { return true };
        let bytes = size(once) + size(again);
        bytes <= self.limit && seen.reservation.try_resize(bytes).is_ok()
    }

    /// Writes values to their shares' files; the first time, what the bitmaps hold goes before them.
    fn write(&self, seen: &mut Seen, keys: &[u64]) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::io(
                &error,
                format!("a spill file of check `{}` below `{}`", self.tally.check.name, self.spill_dir.display()),
            )
        };
        let held = match &mut seen.kept {
            Kept::Memory { once, again } => Some((std::mem::take(once), std::mem::take(again))),
            Kept::Disk(_) => None,
            Kept::Done => return Err(Error::internal("a unique check got values after its verdict")),
        };
        if let Some((once, again)) = held {
            std::fs::create_dir_all(&self.spill_dir).map_err(failed)?;
            // Files without a name: they are gone with the process, however it ends.
            let files = (0..SHARES)
                .map(|_| Ok(BufWriter::with_capacity(SHARE_BUFFER, tempfile::tempfile_in(&self.spill_dir)?)))
                .collect::<std::io::Result<Vec<_>>>();
            let mut files = files.map_err(failed)?;
            for key in once.into_iter().chain(again) {
                files[share_of(key)].write_all(&key.to_le_bytes()).map_err(failed)?;
            }
            seen.kept = Kept::Disk(files);
            // What is left are the files' buffers; where even they do not fit, the rest of the limit has to do.
            drop(seen.reservation.try_resize(SHARES * SHARE_BUFFER));
        }
        if let Kept::Disk(files) = &mut seen.kept {
            for key in keys {
                files[share_of(*key)].write_all(&key.to_le_bytes()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Says that a lane has brought all its rows. The last one gives the verdict.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub(crate) async fn end_lane(self: &Arc<Self>) -> Result<()> {
        if self.lanes.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let (this, seen) = (self.clone(), self.seen.clone().lock_owned().await);
        let ended = tokio::task::spawn_blocking(move || this.judge(seen)).await;
        ended.map_err(|error| Error::internal(format!("a unique check ended: {error}")))?
    }

    fn judge(&self, mut seen: OwnedMutexGuard<Seen>) -> Result<()> {
        match std::mem::replace(&mut seen.kept, Kept::Done) {
            Kept::Memory { again, .. } => self.count(again.len(), again.iter().take(SAMPLES)),
            Kept::Disk(files) => {
                for file in files {
                    let again = repeated(file).map_err(|error| {
                        Error::io(&error, format!("a spill file of check `{}`", self.tally.check.name))
                    })?;
                    self.count(again.len() as u64, again.into_iter().take(SAMPLES));
                }
            }
            Kept::Done => {}
        }
        seen.reservation.free();
        Ok(())
    }

    fn count(&self, again: u64, samples: impl Iterator<Item = u64>) {
        let columns = match &self.tally.check.kind {
            CheckKind::Unique { columns } => columns.as_slice(),
            _ => &[],
        };
        let told = |key| Some(Sample::of_values(columns, vec![shown(&value(key, &self.data_type)?, 0)]));
        self.tally.count(again, samples.filter_map(told));
    }
}

/// The values of one share that occur more than once.
fn repeated(file: BufWriter<File>) -> std::io::Result<Vec<u64>> {
    let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut keys: Vec<u64> = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    drop(bytes);
    keys.sort_unstable();
    Ok(keys.chunk_by(PartialEq::eq).filter(|run| run.len() > 1).map(|run| run[0]).collect())
}

/// Multiplied by a large odd number, neighbours go different ways.
fn share_of(key: u64) -> usize {
    usize::try_from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58).unwrap_or(0)
}

/// What a bitmap takes in memory, about, in bytes.
fn size(bitmap: &RoaringTreemap) -> usize {
    const OF_A_BITMAP: u64 = 96;
    const OF_A_CONTAINER: u64 = 40;
    let bytes = bitmap.bitmaps().fold(0, |bytes, (_, bitmap)| {
        let found = bitmap.statistics();
        bytes
            + OF_A_BITMAP
            + u64::from(found.n_containers) * OF_A_CONTAINER
            + found.n_bytes_array_containers
            + found.n_bytes_run_containers
            + found.n_bytes_bitset_containers
    });
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn is_whole(data_type: &DataType) -> bool {
    match data_type {
        DataType::Decimal128(precision, _) => *precision <= 18,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => true,
        other => other.is_integer(),
    }
}

/// The values as unsigned numbers in the same order, NULLs left out.
fn keys(values: &ArrayRef) -> Result<Vec<u64>> {
    fn present<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, key: impl Fn(T::Native) -> u64) -> Vec<u64> {
        if values.null_count() == 0 {
            values.values().iter().map(|value| key(*value)).collect()
        } else {
            values.iter().flatten().map(key).collect()
        }
    }
    let wrong = |error: datafusion::arrow::error::ArrowError| Error::internal(format!("a key is no number: {error}"));
    match values.data_type() {
        DataType::Decimal128(..) => {
            // At most eighteen digits: the lower half holds them all.
            Ok(present(values.as_primitive::<Decimal128Type>(), |value| (value as u64) ^ SIGN))
        }
        DataType::UInt64 => Ok(present(values.as_primitive::<UInt64Type>(), |value| value)),
        _ => {
            let wide = cast(values, &DataType::Int64).map_err(wrong)?;
            Ok(present(wide.as_primitive::<Int64Type>(), |value| value.cast_unsigned() ^ SIGN))
        }
    }
}

/// The value behind a key, as an array of one.
fn value(key: u64, data_type: &DataType) -> Option<ArrayRef> {
    let signed = (key ^ SIGN).cast_signed();
    match data_type {
        DataType::UInt64 => Some(Arc::new(UInt64Array::from(vec![key]))),
        DataType::Decimal128(precision, scale) => {
            let values = PrimitiveArray::<Decimal128Type>::from(vec![i128::from(signed)]);
            Some(Arc::new(values.with_precision_and_scale(*precision, *scale).ok()?))
        }
        DataType::Date32 => {
            let days = cast(&Int64Array::from(vec![signed]), &DataType::Int32).ok()?;
            cast(&days, data_type).ok()
        }
        other => cast(&Int64Array::from(vec![signed]), other).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Date32Array, Decimal128Array, TimestampMicrosecondArray};
    use gristmill_model::spec::{Check, CheckKind, OnFail};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn tally() -> Arc<Tally> {
        let kind = CheckKind::Unique { columns: vec!["k".to_owned()] };
        Arc::new(Tally::new(Check { name: "unique(k)".to_owned(), on_fail: OnFail::Fail, kind }))
    }

    /// Looks at the batches in two lanes and says what was found.
    fn found(batches: &[ArrayRef], limit: usize, small_looks: bool) -> String {
        let folder = tempfile::tempdir().unwrap();
        let tally = tally();
        let data_type = batches[0].data_type().clone();
        let runtime = RuntimeEnv::default();
        let check =
            UniqueNumbers::new(0, &data_type, tally.clone(), 2, limit, &runtime, folder.path().join("spill")).unwrap();
        let check = Arc::new(check);
        let run = async {
            for (number, batch) in batches.iter().enumerate() {
                if small_looks && number == 1 {
                    check.seen.lock().await.added = LOOK_EVERY;
                }
                check.add(batch).await.unwrap();
            }
            check.end_lane().await.unwrap();
            check.end_lane().await.unwrap();
        };
        tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(run);
        let rows = batches.iter().map(|batch| batch.len() as u64).sum();
        tally.report(rows, rows).observed
    }

    #[test]
    fn every_kind_of_whole_number_is_shown_as_what_it_is() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(19_737), None, Some(19_737), None]));
        assert_eq!(found(&[dates], 1 << 20, false), "1 value more than once among 4 rows, e.g. 2024-01-15");
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1, 5, -1]));
        assert!(found(&[times], 1 << 20, false).ends_with("e.g. 1969-12-31T23:59:59.999999"));
        let decimals = Decimal128Array::from(vec![-150, -150, 150]).with_precision_and_scale(10, 2).unwrap();
        assert!(found(&[Arc::new(decimals)], 1 << 20, false).ends_with("e.g. -1.50"));
        let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1, u64::MAX]));
        assert!(found(&[large], 1 << 20, false).ends_with("e.g. 18446744073709551615"));
    }

    #[test]
    fn text_and_wide_decimals_are_left_to_the_hash_table() {
        assert!(!is_whole(&DataType::Utf8) && !is_whole(&DataType::Decimal128(19, 0)) && !is_whole(&DataType::Float64));
    }

    proptest! {
        /// In memory and on disk alike, as many values are found as a map of counts finds.
        #[test]
        fn what_occurs_twice_is_found(
            values in proptest::collection::vec(
                proptest::option::of(prop_oneof![-20i64..20, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]), 1..200),
            cut in 0usize..200,
            spill in any::<bool>(),
        ) {
            let mut counts = BTreeMap::new();
            for value in values.iter().flatten() {
                *counts.entry(*value).or_insert(0) += 1;
            }
            let twice = counts.values().filter(|count| **count > 1).count();
            let (one, other) = values.split_at(cut.min(values.len()));
            let batches: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(one.to_vec())), Arc::new(Int64Array::from(other.to_vec()))];
            let observed = found(&batches, if spill { 0 } else { 1 << 20 }, spill);
            prop_assert!(observed.starts_with(&format!("{twice} value")), "{observed}, wanted {twice}");
        }
    }
}
