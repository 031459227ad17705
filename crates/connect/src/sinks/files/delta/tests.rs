//! The contract; what other programs make of our tables, and we of theirs; what is refused.

use super::super::layout::{INTENTS, STAGING};
use super::super::tests::{Target, context, key, load, owner, rows, task};
use super::table::LOG;
use super::*;
use crate::OpenContext;
use crate::conformance::{SinkTarget, random_loads, scope_suite, sink_suite, sorted_rows};
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use std::path::Path;

mod forget;
mod keyed;
mod options;
mod python;
mod schemas;

/// A Delta table of its own, on local disk or in a bucket.
pub(super) struct Lake(pub(super) Target);

impl Lake {
    pub(super) fn open(&self, mut load: LoadSpec, context: LoadContext) -> Result<DeltaSink> {
        load.path = Some(super::super::tests::PATH.to_owned());
        load.format = Some(FileFormat::Delta);
        DeltaSink::new(self.0.store.clone(), &load, context)
    }

    fn held(&self) -> Place {
        Place::new(&self.0.store, &format!("{}/_gristmill/keyed", super::super::tests::PATH)).unwrap()
    }

    pub(super) async fn table(&self) -> Table {
        Table::read(&self.0.place()).await.unwrap()
    }

    /// Loads rows as a run does.
    pub(super) async fn load(&self, spec: LoadSpec, generation: u32, batch: &RecordBatch) -> Result<Committed> {
        let (key, owner) = (key(generation), owner("run"));
        let sink = self.open(spec, context(&self.0, batch.schema(), key.clone(), owner.clone()))?;
        sink.prepare().await?;
        let rows = Rows::from_batches(batch.schema(), vec![batch.clone()]);
        let staged = vec![sink.stage(&task(&key, &owner, 0), rows).await?];
        sink.commit(&staged, &Checkpoint::default()).await
    }
}

#[async_trait]
impl SinkTarget for Lake {
    fn folders(&self) -> OpenContext {
        self.0.folders()
    }

    fn strategies(&self) -> Vec<Strategy> {
        match self.0.place() {
            Place::Local(_) => Strategy::ALL.to_vec(),
            // What a strategy makes of rows is the same everywhere; here it is how files come and go.
            Place::Remote(_) => vec![Strategy::Append, Strategy::PartitionOverwrite, Strategy::Merge],
        }
    }

    fn is_partitioned(&self) -> bool {
        true
    }

    fn sink(&self, load: LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(self.open(load, context)?))
    }

    async fn rows(&self) -> Result<Vec<RecordBatch>> {
        read(&self.0.place()).await
    }

    async fn leftovers(&self) -> Result<Vec<String>> {
        let place = self.0.place();
        let table = Table::read(&place).await?;
        let mut left = [place.names(STAGING).await?, place.names(INTENTS).await?].concat();
        left.extend(self.0.open_uploads());
        let ledger = Ledger::list(&place, &table).await?;
        left.extend(ledger.undecided().await?.into_iter().map(ledger::Name::path));
        // Files that no version of the table has ever had.
        let held = self.held();
        left.extend([held.names(STAGING).await?, held.names(INTENTS).await?, held.data_files().await?].concat());
        let known = ever(&place).await;
        left.extend(place.data_files().await?.into_iter().filter(|path| !known.contains(path)));
        Ok(left)
    }
}

/// Every file that the log has ever named.
async fn ever(place: &Place) -> std::collections::BTreeSet<String> {
    let mut known = std::collections::BTreeSet::new();
    for name in place.names(LOG).await.unwrap().iter().filter(|name| name.ends_with(".json")) {
        let bytes = place.read(&format!("{LOG}/{name}")).await.unwrap().unwrap();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line).unwrap();
            known.extend(line["add"]["path"].as_str().map(crate::hive::percent_decoded));
        }
    }
    known
}

/// All rows of the table, by its log; partition values as texts.
pub(super) async fn read(place: &Place) -> Result<Vec<RecordBatch>> {
    let table = Table::read(place).await?;
    let mut batches = Vec::new();
    for file in table.files()? {
        let bytes = place.read(&file.path()).await?.unwrap();
        assert_eq!(i64::try_from(bytes.len()).unwrap(), file.size());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            let mut fields: Vec<Arc<Field>> = batch.schema().fields().to_vec();
            let mut columns = batch.columns().to_vec();
            for (name, value) in file.partition_values_map() {
                fields.push(Arc::new(Field::new(&name, DataType::Utf8, true)));
                columns.push(Arc::new(StringArray::from(vec![value.clone(); batch.num_rows()])));
            }
            batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap());
        }
    }
    Ok(batches)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_table_on_local_disk_is_a_sink() {
    sink_suite(|| async { Ok(Lake(Target::local())) }).await.unwrap();
    scope_suite(|| async { Ok(Lake(Target::local())) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_table_on_an_object_store_is_a_sink() {
    sink_suite(|| async { Ok(Lake(Target::s3())) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_loads_leave_what_a_table_in_memory_holds() {
    random_loads(|| async { Ok(Lake(Target::local())) }, 0..4).await.unwrap();
    random_loads(|| async { Ok(Lake(Target::s3())) }, 0..2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_came_into_the_table_for_a_commit_that_was_not_made_are_swept_with_its_owner() {
    for lake in [Lake(Target::local()), Lake(Target::s3())] {
        lake.load(load(Strategy::Append, &["day"]), 1, &rows(&[(1, "a")])).await.unwrap();
        let (next, dead) = (key(2), owner("dead"));
        let batch = rows(&[(2, "a"), (3, "b")]);
        let mut sink = lake
            .open(load(Strategy::Append, &[]), context(&lake.0, batch.schema(), next.clone(), dead.clone()))
            .unwrap();
        sink.faults = Faults(Some(Arc::new(|point| match point {
            gristmill_model::fault::Point::BeforeLog => Err(Error::internal("made to fail")),
            _ => Ok(()),
        })));
        let staged =
            vec![sink.stage(&task(&next, &dead, 0), Rows::from_batches(batch.schema(), vec![batch])).await.unwrap()];
        sink.commit(&staged, &Checkpoint::default()).await.unwrap_err();
        assert!(lake.0.place().data_files().await.unwrap().len() > 1, "files lie there, and nobody reads them");
        assert_eq!(lake.table().await.files().unwrap().len(), 1);

        let other = lake
            .open(load(Strategy::Append, &[]), context(&lake.0, rows(&[]).schema(), key(3), owner("other")))
            .unwrap();
        other.recover(&|_| false).await.unwrap();
        assert!(lake.0.place().data_files().await.unwrap().len() > 1, "a living owner's files stay");
        let recovered = other.recover(&|owner| *owner == dead).await.unwrap();
        assert_eq!(recovered.undone, [next.text()]);
        assert_eq!(lake.leftovers().await.unwrap(), Vec::<String>::new());
        assert_eq!(other.recover(&|owner| *owner == dead).await.unwrap(), Recovered::default());
        // A commit that comes after all finds that it was given up, or that its files are gone.
        sink.faults = Faults::default();
        assert_eq!(sink.commit(&staged, &Checkpoint::default()).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(sorted_rows(&read(&lake.0.place()).await.unwrap()).unwrap().len(), 1);
    }
}

#[tokio::test]
async fn statistics_tell_what_is_in_a_file() {
    let lake = Lake(Target::local());
    let dates: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![Some(19_737), None, Some(19_738)]));
    let times: ArrayRef = Arc::new(
        arrow::array::TimestampNanosecondArray::from(vec![Some(1_500), Some(2_999), None]).with_timezone("Asia/Tokyo"),
    );
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["b", "ä", "a"]));
    let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0, f64::NAN, 2.0]));
    let nothing: ArrayRef = Arc::new(Int64Array::from(vec![None; 3]));
    let columns = [("d", dates), ("t", times), ("s", texts), ("f", floats), ("n", nothing)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
    lake.load(load(Strategy::Append, &[]), 1, &batch).await.unwrap();
    let table = lake.table().await;
    let stats: Value = serde_json::from_str(&table.files().unwrap()[0].stats().unwrap()).unwrap();
    let wanted = json!({
        "numRecords": 3,
        "minValues": {"d": "2024-01-15", "t": "1970-01-01T00:00:00.000001Z", "s": "a"},
        "maxValues": {"d": "2024-01-16", "t": "1970-01-01T00:00:00.000002Z", "s": "ä"},
        "nullCount": {"d": 1, "t": 1, "s": 0, "f": 0, "n": 3},
    });
    assert_eq!(stats, wanted);
}

#[test]
fn what_a_delta_table_cannot_do_is_refused_with_a_way_out() {
    let lake = Lake(Target::local());
    let refuse = |change: &dyn Fn(&mut LoadSpec)| {
        let mut spec = load(Strategy::Append, &[]);
        change(&mut spec);
        lake.open(spec, context(&lake.0, rows(&[]).schema(), key(1), owner("run"))).unwrap_err()
    };
    let keyless = refuse(&|spec| spec.strategy = Strategy::Merge);
    assert!(keyless.message().contains("`merge`") && keyless.hint_text().is_some(), "{keyless:?}");
    assert!(refuse(&|spec| spec.key = OneOrMany(vec!["id".to_owned()])).message().contains("`key`"));
    assert!(refuse(&|spec| spec.csv = Some(Default::default())).message().contains("`csv`"));
    assert!(refuse(&|spec| spec.created_column = Some("id".to_owned())).message().contains("`created_column`"));
    assert!(
        refuse(&|spec| spec.partition_by = OneOrMany(vec!["dai".to_owned()])).hint_text().unwrap().contains("`day`")
    );
    assert!(std::fs::read_dir(lake.0.folder.path()).unwrap().next().is_none(), "opening a sink touches nothing");
    // On disk what is staged can be read anyway.
    for (lake, can) in [(Lake(Target::local()), true), (Lake(Target::s3()), false)] {
        let spec = LoadSpec { readable_staging: true, ..load(Strategy::Append, &[]) };
        let opened = lake.open(spec, context(&lake.0, rows(&[]).schema(), key(1), owner("run")));
        assert!(opened.is_ok() == can);
        if let Err(error) = opened {
            assert!(error.message().contains("`readable_staging`") && error.hint_text().is_some(), "{error:?}");
        }
    }
}

/// The entry of a version.
fn entry_path(lake: &Lake, version: u64) -> std::path::PathBuf {
    lake.0.root().join(LOG).join(format!("{version:020}.json"))
}

/// A path as Python wants it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
