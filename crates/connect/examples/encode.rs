//! What encoding costs: the same batches by arrow's Parquet writer, and by a load into a folder.
//!
//! `encode bare|gristmill FILE FOLDER`, FILE a Parquet file. The rows are decoded first, and the time of writing them is
//! printed. `bench/run encode` compares both on one core.

use arrow::array::RecordBatch;
use chrono::NaiveDate;
use gristmill_connect::{LoadContext, OpenContext, Rows, registry};
use gristmill_model::spec::LoadSpec;
use gristmill_model::yaml::{decode, parse, to_error};
use gristmill_model::{Checkpoint, Error, ErrorKind, Interval, LoadKey, OwnerId, Result, RunId, Slot, TaskKey};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [way @ ("bare" | "gristmill"), file, folder] => encode(way, Path::new(file), Path::new(folder)).await,
        _ => Err(Error::new(ErrorKind::Usage, "three words are needed").hint("encode bare|gristmill FILE FOLDER")),
    };
    match done {
        Ok(seconds) => {
            say(&format!("{seconds:.3} s"));
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error: {error}"));
            std::process::ExitCode::from(error.kind().exit_code())
        }
    }
}

#[expect(clippy::print_stdout, reason = "an example has no printer")]
fn say(text: &str) {
    println!("{text}");
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Data, "the rows cannot be read or written").cause(error)
}

async fn encode(way: &str, file: &Path, folder: &Path) -> Result<f64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).map_err(failed)?).map_err(failed)?;
    let reader = reader.with_batch_size(8192).build().map_err(failed)?;
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    std::fs::create_dir_all(folder).map_err(failed)?;
    let started = Instant::now();
    if way == "bare" {
        bare(&batches, folder)?
    } else {
        gristmill(batches, folder).await?
    }
    Ok(started.elapsed().as_secs_f64())
}

fn bare(batches: &[RecordBatch], folder: &Path) -> Result<()> {
    let Some(first) = batches.first() else { return Ok(()) };
    let compression = Compression::ZSTD(ZstdLevel::try_new(1).map_err(failed)?);
    // Row groups about as large as ours are.
    let properties =
        WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(500_000)).build();
    let file = File::create(folder.join("bare.parquet")).map_err(failed)?;
    let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    let file = writer.into_inner().map_err(failed)?;
    file.sync_all().map_err(failed)
}

async fn gristmill(batches: Vec<RecordBatch>, folder: &Path) -> Result<()> {
    let Some(first) = batches.first() else { return Ok(()) };
    let schema = first.schema();
    let mistakes = |mistakes: Vec<_>| to_error(&mistakes);
    let folders = OpenContext { project: folder.to_owned(), state: folder.join(".gristmill") };
    let files = parse("encode", "{type: files, url: .}").map_err(mistakes)?;
    let connection = registry::open(&files, &folders).map_err(mistakes)?;
    let load = "{from: rows, to: files, path: ours/, format: parquet, strategy: replace, compression: zstd, compression_level: 1}";
    let load: LoadSpec = decode(&parse("encode", load).map_err(mistakes)?).map_err(mistakes)?;
    let interval = Interval::day(NaiveDate::default());
    let slot = Slot { pipeline: "encode".into(), step: "load".into(), interval, target: "files:ours".to_owned() };
    let (key, owner) = (LoadKey { slot, generation: 1 }, OwnerId(RunId::new("encode")));
    let context = LoadContext {
        key: key.clone(),
        owner: owner.clone(),
        schema: schema.clone(),
        source_key: Vec::new(),
        alone: true,
        open: folders,
        ledger_retention: None,
    };
    let sink = connection.sink(&load, context)?;
    sink.prepare().await?;
    let task = TaskKey { load: key, owner, partition: 0, attempt: 1 };
    let staged = sink.stage(&task, Rows::from_batches(schema, batches)).await?;
    sink.commit(&[staged], &Checkpoint::default()).await?;
    Ok(())
}
