//! JSON documents: an array of objects, one object, several objects one after the other, or either at a path inside.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod split;
#[cfg(test)]
mod tests;

use super::bytes::{Purpose, SyncBytes};
use super::decode::{self, Blame, Bridge};
use super::records::{Inference, Problem, Records, Unit, not_rows};
use super::{FileInput, FileReader, RowCount, Seen};
use crate::{Rows, Scan};
use async_trait::async_trait;
use gristmill_model::spec::OnFail;
use gristmill_model::{Error, ErrorKind, Result};
use split::{Item, Splitter};

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct JsonReader;

#[async_trait]
impl FileReader for JsonReader {
    async fn infer(&self, input: &FileInput) -> Result<Seen> {
        let input = input.clone();
        decode::call(Blame::new(&input, "JSON"), move |bridge| {
            let mut seen = Inference::default();
            each_item(bridge, &input, Purpose::Look, |step| {
                match step {
                    Step::Bytes(count) => seen.see_bytes(count),
                    Step::Item(Item::Record(text), number) => seen.see(text, number),
                    Step::Item(Item::NotARow(what), number) => seen.see_problem(number, not_a_row(what)),
                }
                Ok(!seen.enough())
            })?;
            let schema =
                seen.finish().map_err(|(number, problem)| problem.error(&Unit::Record.place(&input.name, number)))?;
            Ok(Seen::new(schema, RowCount::Unknown))
        })
        .await
    }

    fn read(&self, input: FileInput, scan: Scan) -> Rows {
        decode::rows(scan, Blame::new(&input, "JSON"), move |bridge, out| {
            let mut records = Records::new(out.scan(), bridge.blame.clone(), Unit::Record)?;
            let strict = out.scan().on_bad_row == OnFail::Fail;
            let mut first_odd = None;
            each_item(bridge, &input, Purpose::Read, |step| {
                match step {
                    Step::Bytes(_) => {}
                    // Whether the document is JSON at all is said first, so it is read to its end.
                    Step::Item(..) if first_odd.is_some() => {}
                    Step::Item(Item::Record(text), number) => records.push(text, number, out)?,
                    Step::Item(Item::NotARow(what), number) if strict => {
                        first_odd = Some(not_a_row(what).error(&Unit::Record.place(&input.name, number)));
                    }
                    Step::Item(Item::NotARow(what), number) => {
                        records.refuse(what.as_bytes(), number, &not_a_row(what))?;
                    }
                }
                Ok(true)
            })?;
            match first_odd {
                Some(error) => Err(error),
                None => records.flush(out),
            }
        })
    }
}

fn not_a_row(what: &str) -> Problem {
    Problem::NotARow(format!("found {what} where an object was expected"))
}

enum Step<'a> {
    /// So many bytes of the document will have been looked at.
    Bytes(usize),
    /// A record, or what stands in its place, with its number from 1.
    Item(Item<'a>, u64),
}

fn each_item(
    bridge: &Bridge,
    input: &FileInput,
    purpose: Purpose,
    mut visit: impl FnMut(Step<'_>) -> Result<bool>,
) -> Result<()> {
    let mut bytes = SyncBytes::open(bridge, input, purpose)?;
    let mut splitter = Splitter::new(input.json.records.as_deref());
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut number = 0;
    let blame = |problem| match problem {
        split::Problem::Syntax(text) => bridge.blame.data(text),
        split::Problem::Stopped(error) => error,
    };
    loop {
        let read = bytes.take(&mut chunk)?;
        let mut more = visit(Step::Bytes(read))?;
        let mut each = |item: Item<'_>| {
            number += 1;
            more = more && visit(Step::Item(item, number))?;
            Ok(())
        };
        if read == 0 {
            splitter.finish().map_err(blame)?;
            return found(&splitter, input);
        }
        splitter.push(&chunk[..read], &mut each).map_err(blame)?;
        if !more {
            return Ok(());
        }
    }
}

/// A path that leads nowhere is a mistake in the pipeline, not an empty file.
fn found(splitter: &Splitter, input: &FileInput) -> Result<()> {
    let Some(path) = input.json.records.as_deref().filter(|_| !splitter.found()) else {
        return Ok(());
    };
    let keys = splitter.keys_seen();
    if keys.is_empty() {
        return Err(not_rows(&input.name, &format!("there is nothing at `{path}`")));
    }
    let keys = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    Err(Error::new(ErrorKind::Schema, format!("there is nothing at `{path}` in `{}`", input.name))
        .hint(format!("as far as the path leads, there are {keys}; say one with `json: {{records: …}}`")))
}
