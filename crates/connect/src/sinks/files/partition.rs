//! Which partition each row belongs to.
//!
//! Values are coded once per batch and column: small ranges of whole numbers (years, months, dates, flags) by a table,
//! dictionaries by their keys, everything else by a hash of the encoded value. Codes of several columns are combined
//! the same way, so that a row costs a few nanoseconds and a text is made once per partition, not per row.

use super::layout::{join, partition_folder};
use crate::hive::NULL_TEXT;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use gristmill_model::{Error, ErrorKind, Result};
use std::collections::HashMap;

/// A table instead of a hash is used up to so many entries (256 KiB, it is made anew for each batch).
const TABLE: usize = 1 << 16;
/// No row has been seen with this code yet.
const UNSEEN: u32 = u32::MAX;
/// The longest name of a folder on common file systems.
const LONGEST_NAME: usize = 255;

/// The text of a value as it stands in a folder name: dates `2024-01-15`, timestamps `2024-01-15 08:30:00`; `None` for
/// NULL and for the empty text, which Hive does not tell apart.
///
/// # Errors
/// A type that has no text.
pub(super) fn value_text(array: &ArrayRef, row: usize) -> Result<Option<String>> {
    let no_text = |error| {
        Error::new(ErrorKind::Schema, format!("a value of type {} cannot be a folder name", array.data_type()))
            .cause(error)
    };
    if array.is_null(row) || array.data_type().is_null() {
        return Ok(None);
    }
    let options = FormatOptions::new().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).map_err(no_text)?;
    let text = formatter.value(row).try_to_string().map_err(no_text)?;
    Ok((!text.is_empty()).then_some(text))
}

/// Splits batches by the values of the partition columns. Knows all partitions seen so far.
#[derive(Debug)]
pub(super) struct Splitter {
    coders: Vec<Coder>,
    /// For each pair of columns so far combined: codes to one code.
    combined: Vec<HashMap<u64, u32>>,
    /// For each combination of all columns, the partition.
    partitions: Vec<u32>,
    /// Codes of each column of a combination.
    parts: Vec<Vec<u32>>,
    folders: Vec<String>,
    by_folder: HashMap<String, u32>,
}

impl Splitter {
    /// A splitter by the columns at `positions` of `schema`.
    ///
    /// # Errors
    /// A type that cannot be a folder name.
    pub(super) fn new(schema: &SchemaRef, positions: &[usize]) -> Result<Self> {
        let coders = positions
            .iter()
            .map(|&position| Coder::new(position, schema.field(position).name(), schema.field(position).data_type()))
            .collect::<Result<Vec<_>>>()?;
        let combined = vec![HashMap::new(); coders.len().saturating_sub(1)];
        Ok(Self {
            coders,
            combined,
            partitions: Vec::new(),
            parts: Vec::new(),
            folders: Vec::new(),
            by_folder: HashMap::new(),
        })
    }

    /// The folder of a partition, relative to the target.
    pub(super) fn folder(&self, partition: u32) -> &str {
        &self.folders[partition as usize]
    }

    /// How many partitions have been seen.
    pub(super) fn len(&self) -> usize {
        self.folders.len()
    }

    /// The partition of every row, numbered from 0 in order of first sight.
    ///
    /// # Errors
    /// A value that cannot be a folder name.
    pub(super) fn split(&mut self, batch: &RecordBatch) -> Result<Vec<u32>> {
        let mut codes: Vec<Vec<u32>> = Vec::with_capacity(self.coders.len());
        for coder in &mut self.coders {
            codes.push(coder.code(batch.column(coder.position))?);
        }
        let mut ids = codes.first().cloned().unwrap_or_default();
        let mut known = self.coders.first().map_or(0, |coder| coder.texts.len());
        for (at, combined) in self.combined.iter_mut().enumerate() {
            let column = &codes[at + 1];
            combine(&mut ids, known, column, self.coders[at + 1].texts.len(), combined);
            known = combined.len();
        }
        // Rows of a new combination tell what its parts are.
        if known > self.parts.len() {
            self.parts.resize(known, Vec::new());
            self.partitions.resize(known, UNSEEN);
        }
        for row in 0..ids.len() {
            let id = ids[row] as usize;
            if self.partitions[id] == UNSEEN {
                self.parts[id] = codes.iter().map(|codes| codes[row]).collect();
                self.partitions[id] = self.partition_of(id)?;
            }
            ids[row] = self.partitions[id];
        }
        Ok(ids)
    }

    fn partition_of(&mut self, id: usize) -> Result<u32> {
        let mut folder = String::new();
        for (coder, &code) in self.coders.iter().zip(&self.parts[id]) {
            let level = partition_folder(&coder.name, coder.texts[code as usize].as_deref());
            if level.len() > LONGEST_NAME {
                let shown: String = level.chars().take(60).collect();
                return Err(Error::new(
                    ErrorKind::Data,
                    format!("a value of partition column `{}` is too long for a folder name: `{shown}…`", coder.name),
                )
                .hint("partition by a column of short values"));
            }
            folder = join(&folder, &level);
        }
        // Two values may have one folder: -0 and 0 of floats, say.
        let next = u32::try_from(self.folders.len()).map_err(|_| Error::internal("more than 2^32 partitions"))?;
        Ok(*self.by_folder.entry(folder).or_insert_with_key(|folder| {
            self.folders.push(folder.clone());
            next
        }))
    }
}

/// Makes one code of two: `ids` (of `known` kinds) with `codes` (of `count` kinds).
fn combine(ids: &mut [u32], known: usize, codes: &[u32], count: usize, combined: &mut HashMap<u64, u32>) {
    let mut resolve = |id: u32, code: u32| {
        let next = u32::try_from(combined.len()).unwrap_or(UNSEEN - 1);
        *combined.entry((u64::from(id) << 32) | u64::from(code)).or_insert(next)
    };
    if known.saturating_mul(count) <= TABLE {
        let mut table = vec![UNSEEN; known * count];
        for (id, &code) in ids.iter_mut().zip(codes) {
            let slot = &mut table[*id as usize * count + code as usize];
            if *slot == UNSEEN {
                *slot = resolve(*id, code);
            }
            *id = *slot;
        }
    } else {
        for (id, &code) in ids.iter_mut().zip(codes) {
            *id = resolve(*id, code);
        }
    }
}

/// Numbers the values of one column.
#[derive(Debug)]
struct Coder {
    position: usize,
    name: String,
    texts: Vec<Option<String>>,
    whole: HashMap<i64, u32>,
    other: HashMap<Box<[u8]>, u32>,
    null: Option<u32>,
    converter: Option<RowConverter>,
}

/// Types whose values are whole numbers underneath.
fn is_whole(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::Date32
            | DataType::Date64
    )
}

impl Coder {
    fn new(position: usize, name: &str, data_type: &DataType) -> Result<Self> {
        let values = match data_type {
            DataType::Dictionary(_, values) => values,
            other => other,
        };
        let converter = if is_whole(values) || values.is_null() {
            None
        } else {
            Some(RowConverter::new(vec![SortField::new(values.clone())]).map_err(|error| {
                Error::new(ErrorKind::Schema, format!("column `{name}` of type {data_type} cannot be a folder name"))
                    .cause(error)
            })?)
        };
        Ok(Self {
            position,
            name: name.to_owned(),
            texts: Vec::new(),
            whole: HashMap::new(),
            other: HashMap::new(),
            null: None,
            converter,
        })
    }

    /// The code of every row.
    fn code(&mut self, array: &ArrayRef) -> Result<Vec<u32>> {
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            if dictionary.values().is_empty() {
                let null = self.null_code();
                return Ok(vec![null; array.len()]);
            }
            let values = self.code(dictionary.values())?;
            let keys = dictionary.normalized_keys();
            let mut codes = Vec::with_capacity(keys.len());
            for (row, key) in keys.into_iter().enumerate() {
                let code = if array.is_null(row) { self.null_code() } else { values[key] };
                codes.push(code);
            }
            return Ok(codes);
        }
        if array.data_type().is_null() {
            let null = self.null_code();
            return Ok(vec![null; array.len()]);
        }
        if is_whole(array.data_type()) { self.code_whole(array) } else { self.code_other(array) }
    }

    /// The text of a value that is not NULL, as it stands in a folder's name.
    ///
    /// # Errors
    /// A text that would come back as NULL: the empty one and Hive's word for NULL.
    fn name_of(&self, array: &ArrayRef, row: usize) -> Result<Option<String>> {
        let text = value_text(array, row)?;
        let shown = match text.as_deref() {
            None => "the empty text",
            Some(NULL_TEXT) => "the text `__HIVE_DEFAULT_PARTITION__`",
            Some(_) => return Ok(text),
        };
        Err(Error::new(
            ErrorKind::Data,
            format!("partition column `{}` holds {shown}, which every reader of the folder takes for NULL", self.name),
        )
        .hint(format!("give it a name or make it NULL in a `sql` step: `nullif({}, '')`", self.name)))
    }

    fn null_code(&mut self) -> u32 {
        if let Some(code) = self.null {
            return code;
        }
        let code = next_code(&mut self.texts, None);
        self.null = Some(code);
        code
    }

    fn code_whole(&mut self, array: &ArrayRef) -> Result<Vec<u32>> {
        let bad = |error| Error::internal("a partition column cannot be counted").cause(error);
        // Dates are cast by way of their day or millisecond count.
        let numbers = match array.data_type() {
            DataType::Date32 => cast(&cast(array, &DataType::Int32).map_err(bad)?, &DataType::Int64).map_err(bad)?,
            _ => cast(array, &DataType::Int64).map_err(bad)?,
        };
        let numbers = numbers.as_primitive::<Int64Type>();
        let range = arrow::compute::min(numbers).zip(arrow::compute::max(numbers));
        let table_of = range.and_then(|(least, most)| {
            let width = usize::try_from(most.checked_sub(least)?).ok()?.checked_add(1)?;
            (width <= TABLE).then_some((least, width))
        });
        let mut codes = Vec::with_capacity(numbers.len());
        let mut table = table_of.map(|(_, width)| vec![UNSEEN; width]);
        let least = table_of.map_or(0, |(least, _)| least);
        let mut last: Option<(i64, u32)> = None;
        for row in 0..numbers.len() {
            if numbers.is_null(row) {
                codes.push(self.null_code());
                continue;
            }
            let value = numbers.value(row);
            if let Some((same, code)) = last
                && same == value
            {
                codes.push(code);
                continue;
            }
            // In the table's range by construction, so the subtraction neither overflows nor is negative.
            let place = usize::try_from(value.wrapping_sub(least)).unwrap_or_default();
            let code = match table.as_ref().map(|table| table[place]) {
                Some(code) if code != UNSEEN => code,
                _ => {
                    let code = match self.whole.get(&value) {
                        Some(code) => *code,
                        None => {
                            let text = self.name_of(array, row)?;
                            let code = next_code(&mut self.texts, text);
                            self.whole.insert(value, code);
                            code
                        }
                    };
                    if let Some(table) = &mut table {
                        table[place] = code;
                    }
                    code
                }
            };
            last = Some((value, code));
            codes.push(code);
        }
        Ok(codes)
    }

    fn code_other(&mut self, array: &ArrayRef) -> Result<Vec<u32>> {
        let bad = |error| Error::internal("a partition column cannot be compared").cause(error);
        let Some(converter) = &self.converter else {
            return Err(Error::internal("a partition column has changed its type"));
        };
        let rows = converter.convert_columns(std::slice::from_ref(array)).map_err(bad)?;
        let mut codes: Vec<u32> = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            if array.is_null(row) {
                codes.push(self.null_code());
                continue;
            }
            let value = rows.row(row);
            if row > 0 && !array.is_null(row - 1) && rows.row(row - 1) == value {
                codes.push(codes[row - 1]);
                continue;
            }
            let code = match self.other.get(value.as_ref()) {
                Some(code) => *code,
                None => {
                    let text = self.name_of(array, row)?;
                    let code = next_code(&mut self.texts, text);
                    self.other.insert(value.as_ref().into(), code);
                    code
                }
            };
            codes.push(code);
        }
        Ok(codes)
    }
}

fn next_code(texts: &mut Vec<Option<String>>, text: Option<String>) -> u32 {
    let code = u32::try_from(texts.len()).unwrap_or(UNSEEN - 1);
    texts.push(text);
    code
}
