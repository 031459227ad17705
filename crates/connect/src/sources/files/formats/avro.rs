//! Avro object container files.

mod blocks;
mod frames;
mod walk;

pub(crate) use frames::{Frames, Marker};

use super::bytes::{Purpose, SyncBytes};
use super::decode::{self, Blame, Bridge, Out, distinct_columns};
use super::{FileInput, FileReader, RowCount, Seen};
use crate::{Rows, Scan};
use arrow_avro::reader::{Reader, ReaderBuilder};
use async_trait::async_trait;
use blocks::Blocks;
use gristmill_model::Result;
use std::io::BufReader;

/// How much is given to the decoder at once.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct AvroReader;

#[async_trait]
impl FileReader for AvroReader {
    async fn infer(&self, input: &FileInput) -> Result<Seen> {
        let input = input.clone();
        decode::call(Blame::new(&input, "Avro"), move |bridge| {
            let schema = open(bridge, &input, Purpose::Look, 1)?.schema();
            distinct_columns(&schema, &bridge.blame)?;
            Ok(Seen::new(schema, RowCount::Unknown))
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "Avro"), move |bridge, out| read(bridge, &input, out))
    }
}

fn read(bridge: &Bridge, input: &FileInput, out: &mut Out) -> Result<()> {
    let batches = open(bridge, input, Purpose::Read, out.scan().batch_size.max(1))?;
    for batch in batches {
        out.send(&batch.map_err(|error| bridge.blame.data(error))?)?;
    }
    Ok(())
}

type Checked = BufReader<Blocks<SyncBytes>>;

fn open(bridge: &Bridge, input: &FileInput, purpose: Purpose, batch_size: usize) -> Result<Reader<Checked>> {
    let bytes = SyncBytes::open(bridge, input, purpose)?;
    let blocks = Blocks::open(bytes, bridge.blame.clone()).map_err(|problem| bridge.blame.data(problem))?;
    let checked = BufReader::with_capacity(READ_BYTES, blocks);
    ReaderBuilder::new().with_batch_size(batch_size).build(checked).map_err(|error| bridge.blame.data(error))
}
