//! Files that DataFusion's own scan reads: pruning, statistics, byte ranges.

use crate::meter::Meter;
use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::avro::AvroFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchemaBuilder;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::StreamExt;
use gristmill_connect::{NativeFile, NativeScan, Source};
use gristmill_model::spec::{Compression, CsvOptions, FileFormat as Format};
use std::sync::{Arc, Mutex};

/// Footers that are read at once, for statistics.
const FOOTERS_AT_ONCE: usize = 8;

/// Files as a table.
#[derive(Debug)]
pub(crate) struct NativeTable {
    scan: NativeScan,
    /// Who offered the files; asked again when a scan fails, to say where.
    pub(crate) source: Arc<dyn Source>,
    schema: SchemaRef,
    file_schema: SchemaRef,
    pub(crate) meter: Arc<Meter>,
    /// The scans that were handed out: their metrics tell, afterwards, how many rows were read.
    handed_out: Mutex<Vec<Arc<dyn ExecutionPlan>>>,
}

impl NativeTable {
    pub(crate) fn new(mut scan: NativeScan, source: Arc<dyn Source>, meter: Arc<Meter>) -> Self {
        if scan.format == Format::Csv {
            scan.schema = one_digit_more(&scan.schema);
        }
        // Their panics end as errors: of the task that reads, or of the query.
        gristmill_connect::sources::files::quiet_decoders();
        let columns = scan.schema.fields().len() - scan.partition_columns.len();
        let file_schema = Arc::new(Schema::new(scan.schema.fields()[..columns].to_vec()));
        Self { schema: scan.schema.clone(), scan, source, file_schema, meter, handed_out: Mutex::default() }
    }

    /// What the plan says about these files.
    pub(crate) fn describe(&self) -> String {
        let bytes: u64 = self.scan.files.iter().map(|file| file.meta.size).sum();
        let files = self.scan.files.len();
        let plural = if files == 1 { "file" } else { "files" };
        format!(
            "{files} {} {plural}, {}, read by the engine's own scan",
            self.scan.format.as_str(),
            gristmill_model::ByteSize(bytes)
        )
    }

    /// The same, and how the lanes share them.
    pub(crate) fn describe_plan(&self) -> String {
        let how = match self.scan.format {
            Format::Parquet => ", by row groups",
            Format::Csv if self.scan.splittable => ", big ones in byte ranges",
            Format::Csv => ", each in one go: there are line breaks in quotes",
            _ => "",
        };
        self.describe() + how
    }

    /// Whether reading the files again costs less than keeping their rows for whoever reads later.
    pub(crate) fn is_cheap_to_read_again(&self) -> bool {
        self.scan.format == Format::Parquet
    }

    pub(crate) fn files(&self) -> usize {
        self.scan.files.len()
    }

    /// Rows that have been read so far, by the scan that read most: a table that is read twice has no more rows.
    pub(crate) fn rows_read(&self) -> Option<u64> {
        let plans = self.handed_out.lock().ok()?;
        let rows: Vec<u64> =
            plans.iter().filter_map(|plan| plan.metrics()?.output_rows().map(|rows| rows as u64)).collect();
        rows.into_iter().max()
    }

    fn format(&self, state: &dyn Session) -> DfResult<Arc<dyn FileFormat>> {
        Ok(match self.scan.format {
            Format::Parquet => Arc::new(ParquetFormat::default().with_options(state.default_table_options().parquet)),
            Format::Csv => Arc::new(csv_format(&self.scan)?),
            Format::Ndjson => {
                Arc::new(JsonFormat::default().with_file_compression_type(compression(self.scan.compression)?))
            }
            Format::Avro => Arc::new(AvroFormat),
            Format::Arrow => Arc::new(ArrowFormat),
            other => {
                return Err(DataFusionError::Internal(format!(
                    "`{}` files have no scan of the engine",
                    other.as_str()
                )));
            }
        })
    }

    /// Leaves out files whose hive values cannot satisfy the filters.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> DfResult<Vec<&NativeFile>> {
        let all: Vec<&NativeFile> = self.scan.files.iter().collect();
        let names: Vec<&str> = self.scan.partition_columns.iter().map(|field| field.name().as_str()).collect();
        let usable: Vec<Expr> = filters
            .iter()
            .filter(|filter| {
                let columns = filter.column_refs();
                !columns.is_empty() && columns.iter().all(|column| names.contains(&column.name.as_str()))
            })
            .cloned()
            .collect();
        let Some(predicate) = conjunction(usable) else { return Ok(all) };
        if all.is_empty() {
            return Ok(all);
        }
        let schema = Arc::new(Schema::new(self.scan.partition_columns.clone()));
        let mut columns: Vec<ArrayRef> = Vec::new();
        for position in 0..names.len() {
            let values: Vec<ScalarValue> =
                all.iter().map(|file| self.partition_value(file, position)).collect::<DfResult<_>>()?;
            columns.push(ScalarValue::iter_to_array(values)?);
        }
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        // The filter's columns carry the table's name; here there is only one table.
        let predicate = unqualified(predicate)?;
        let physical = state.create_physical_expr(predicate, &DFSchema::try_from(schema)?)?;
        let kept = physical.evaluate(&batch)?.into_array(batch.num_rows())?;
        let kept = kept
            .as_any()
            .downcast_ref::<BooleanArray>()
            .ok_or_else(|| DataFusionError::Internal("a filter is not a boolean".to_owned()))?;
        Ok(all
            .into_iter()
            .enumerate()
            .filter(|(row, _)| datafusion::arrow::array::Array::is_valid(kept, *row) && kept.value(*row))
            .map(|(_, file)| file)
            .collect())
    }

    /// Reads the footers, a few at once.
    async fn with_statistics(
        &self,
        state: &dyn Session,
        format: &Arc<dyn FileFormat>,
        files: Vec<PartitionedFile>,
    ) -> DfResult<Vec<PartitionedFile>> {
        let mut read = futures::stream::FuturesOrdered::new();
        let mut waiting = files.into_iter();
        let mut done = Vec::new();
        loop {
            while read.len() < FOOTERS_AT_ONCE
                && let Some(file) = waiting.next()
            {
                let (format, schema) = (format.clone(), self.file_schema.clone());
                read.push_back(async move {
                    let meta = file.object_meta.clone();
                    let statistics = format.infer_stats(state, &self.scan.store, schema, &meta).await?;
                    Ok::<_, DataFusionError>(file.with_statistics(Arc::new(statistics)))
                });
            }
            match read.next().await {
                Some(file) => done.push(file?),
                None => return Ok(done),
            }
        }
    }

    fn partition_value(&self, file: &NativeFile, position: usize) -> DfResult<ScalarValue> {
        let data_type = self.scan.partition_columns[position].data_type();
        match file.partition_values.get(position).and_then(Option::as_ref) {
            Some(text) => ScalarValue::try_from_string(text.clone(), data_type),
            None => ScalarValue::try_from(data_type),
        }
    }
}

/// Decimals with one digit more, see [`NativeScan::csv`].
fn one_digit_more(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Decimal128(precision, scale) => {
            field.as_ref().clone().with_data_type(DataType::Decimal128(precision + 1, scale + 1))
        }
        _ => field.as_ref().clone(),
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

fn unqualified(predicate: Expr) -> DfResult<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    predicate
        .transform(|expr| match expr {
            Expr::Column(column) => {
                Ok(Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(column.name))))
            }
            other => Ok(Transformed::no(other)),
        })
        .map(|transformed| transformed.data)
}

fn csv_format(scan: &NativeScan) -> DfResult<CsvFormat> {
    let options = scan.csv.clone().unwrap_or_default();
    let CsvOptions { delimiter, quote, escape, header, null_text, comment, .. } = options;
    let byte = |text: &Option<String>| text.as_ref().and_then(|text| text.bytes().next());
    let mut format = CsvFormat::default()
        .with_has_header(header.unwrap_or(true))
        .with_delimiter(byte(&delimiter).unwrap_or(b','))
        .with_quote(byte(&quote).unwrap_or(b'"'))
        .with_escape(byte(&escape))
        .with_comment(byte(&comment))
        .with_newlines_in_values(!scan.splittable)
        .with_file_compression_type(compression(scan.compression)?);
    if let Some(texts) = null_text {
        let alternatives: Vec<String> = texts.0.iter().map(|text| regex_escape(text)).collect();
        format = format.with_null_regex(Some(format!("^(?:{})$", alternatives.join("|"))));
    }
    Ok(format)
}

fn regex_escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let special = "\\.+*?()|[]{}^$#&-~".contains(c);
            special.then_some('\\').into_iter().chain(std::iter::once(c))
        })
        .collect()
}

fn compression(compression: Compression) -> DfResult<FileCompressionType> {
    Ok(match compression {
        Compression::None => FileCompressionType::UNCOMPRESSED,
        Compression::Gzip => FileCompressionType::GZIP,
        Compression::Bzip2 => FileCompressionType::BZIP2,
        Compression::Xz => FileCompressionType::XZ,
        Compression::Zstd => FileCompressionType::ZSTD,
        other => {
            return Err(DataFusionError::Internal(format!("`{}` does not compress text files", other.as_str())));
        }
    })
}

#[async_trait]
impl TableProvider for NativeTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters prune files, row groups and pages; what is left over is filtered above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::parse(&self.scan.store_url)?;
        state.runtime_env().register_object_store(url.as_ref(), self.scan.store.clone());
        let files = self.prune(state, filters)?;
        if files.is_empty() {
            let schema = match projection {
                Some(indices) => Arc::new(self.schema.project(indices)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let format = self.format(state)?;
        let with_statistics = self.scan.format == Format::Parquet && state.config().collect_statistics();
        let mut prepared = Vec::with_capacity(files.len());
        for file in files {
            let mut partitioned = PartitionedFile::from(file.meta.clone());
            partitioned.partition_values = (0..self.scan.partition_columns.len())
                .map(|position| self.partition_value(file, position))
                .collect::<DfResult<_>>()?;
            prepared.push(partitioned);
        }
        let mut partitioned =
            if with_statistics { self.with_statistics(state, &format, prepared).await? } else { prepared };
        partitioned.sort_by(|a, b| a.object_meta.location.cmp(&b.object_meta.location));
        let groups = FileGroup::new(partitioned).split_files(state.config().target_partitions());
        let (groups, statistics) = if with_statistics {
            datafusion_datasource::compute_all_files_statistics(groups, self.schema.clone(), true, false)?
        } else {
            (groups, Statistics::new_unknown(&self.schema))
        };
        if let datafusion::common::stats::Precision::Exact(rows) = statistics.num_rows {
            self.meter.expect(rows as u64);
        }
        let table_schema = TableSchemaBuilder::from(&self.file_schema)
            .with_table_partition_cols(self.scan.partition_columns.iter().cloned().map(Arc::new).collect::<Vec<_>>())
            .build();
        let config = FileScanConfigBuilder::new(url, format.file_source(table_schema))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(if filters.is_empty() { limit } else { None })
            .build();
        let plan = format.create_physical_plan(state, config).await?;
        if let Ok(mut handed_out) = self.handed_out.lock() {
            handed_out.push(plan.clone());
        }
        Ok(plan)
    }
}
