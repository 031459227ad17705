//! Reading a CSV file as batches.

use super::column::{self, Column};
use super::dialect::Dialect;
use super::record::{self, Fields, Step, Texts};
use super::text::Text;
use super::{MAX_RECORD, names, numbered};
use crate::sources::files::formats::FileInput;
use crate::sources::files::formats::bytes::Purpose;
use crate::types::type_name;
use crate::{Reject, RejectSink, Rows, Scan};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field};
use futures::stream;
use gristmill_model::spec::OnFail;
use gristmill_model::{Error, ErrorKind, Result, ResultExt};

/// A batch is given away when its text reaches this size, however few rows it has.
const BATCH_BYTES: usize = 16 << 20;

/// As much of a refused record is kept.
const RECORD_KEPT: usize = 64 << 10;

/// The rows of a file.
pub(super) fn rows(input: FileInput, scan: Scan) -> Rows {
    let schema = scan.schema.clone();
    let batches = stream::try_unfold(State::Closed(Box::new((input, scan))), |state| async move {
        let mut reading = match state {
            State::Closed(inside) => Reading::open(inside.0, inside.1).await?,
            State::Open(reading) => reading,
        };
        Ok(reading.batch().await?.map(|batch| (batch, State::Open(reading))))
    });
    Rows::new(schema, batches)
}

enum State {
    Closed(Box<(FileInput, Scan)>),
    Open(Box<Reading>),
}

struct Reading {
    text: Text,
    dialect: Dialect,
    /// The file, and the byte of it that lines are counted from.
    file: String,
    /// The file alone.
    name: String,
    scan: Scan,
    /// Where each column of the scan stands in a record; `None`: the file has not got it.
    columns: Vec<(Option<usize>, Box<dyn Column>)>,
    /// Columns of the file that the scan has not, where somebody wants to know.
    beyond: Vec<(usize, String)>,
    /// Fields in a good record; known after the first one.
    width: Option<usize>,
    /// The line that the rest of the text begins on, from 1.
    line: u64,
    fields: Fields,
    done: bool,
}

/// Why a row is refused.
struct Refusal {
    error: String,
    hint: Option<String>,
}

impl Reading {
    async fn open(input: FileInput, scan: Scan) -> Result<Box<Self>> {
        let dialect = Dialect::new(&input.csv)?;
        let fields = scan.schema.fields();
        let columns = fields.iter().map(|field| Ok((None, column::column(field)?))).collect::<Result<_>>()?;
        let mut reading = Box::new(Self {
            text: Text::open(&input, dialect.encoding, Purpose::Read).await?,
            dialect,
            file: input.place(),
            name: input.name.clone(),
            scan,
            columns,
            beyond: Vec::new(),
            width: None,
            line: 1 + input.lines_before(),
            fields: Fields::default(),
            done: false,
        });
        // The header, or the first row, stands in another piece of the file.
        if let Some(piece) = input.byte_range().filter(|piece| piece.start > 0) {
            reading.expect(&piece.columns);
        }
        Ok(reading)
    }

    /// Says which columns a record has.
    fn expect(&mut self, columns: &[String]) {
        for ((place, _), field) in self.columns.iter_mut().zip(self.scan.schema.fields()) {
            *place = columns.iter().position(|name| name == field.name());
        }
        if self.scan.rejects.as_ref().is_some_and(RejectSink::wants_fields) {
            let unknown =
                columns.iter().enumerate().filter(|(_, name)| self.scan.schema.column_with_name(name).is_none());
            self.beyond = unknown.map(|(index, name)| (index, name.clone())).collect();
        }
        if let Some(rejects) = self.scan.rejects.take() {
            let header = if self.dialect.header { header(&self.dialect, columns) } else { String::new() };
            self.scan.rejects = Some(rejects.of_file(&self.name, header));
        }
        self.width = Some(columns.len());
    }

    /// The next batch; `None` at the end.
    async fn batch(&mut self) -> Result<Option<RecordBatch>> {
        let (mut rows, mut bytes) = (0, 0);
        let most = self.scan.batch_size.max(1);
        while rows < most && bytes < BATCH_BYTES && !self.done {
            let (rest, last) = self.text.rest();
            match record::next(&self.dialect, rest, last, &mut self.fields) {
                Step::End => self.done = true,
                Step::More { start, lines_before } if rest.len() - start <= MAX_RECORD => {
                    self.line += lines_before;
                    self.text.advance(start);
                    self.text.more().await?;
                }
                Step::More { start, lines_before } => {
                    self.line += lines_before;
                    self.skip_line(start, &too_long()).await?;
                }
                // However the file came in, and wherever the reading of it began: the same records are too long.
                Step::Record { start, end, lines_before, .. } if end - start > MAX_RECORD => {
                    self.line += lines_before;
                    self.skip_line(start, &too_long()).await?;
                }
                Step::Record { start, end, lines_before, lines, open: false } => {
                    self.line += lines_before;
                    let row = self.row(start, end)?;
                    rows += usize::from(row);
                    bytes += end - start;
                    self.line += lines;
                    self.text.advance(end);
                }
                Step::Record { start, lines_before, .. } => {
                    self.line += lines_before;
                    self.skip_line(start, "a quote is opened here and never closed").await?;
                }
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        if let Some(rejects) = &self.scan.rejects {
            // Those that are left out for them were looked at one by one.
            for _ in (0..rows).filter(|_| !self.beyond.is_empty() && !rejects.leaves_out()) {
                rejects.note_fields(self.beyond.iter().map(|(_, name)| name.as_str())).context(|| self.file.clone())?;
            }
        }
        let arrays = self.columns.iter_mut().zip(self.scan.schema.fields()).map(|((place, column), field)| {
            if place.is_some() { column.finish() } else { column::missing(field, rows) }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.scan.schema.clone(), arrays.collect(), &options);
        batch.map(Some).map_err(|error| {
            Error::internal(format!("the rows of `{}` do not fit their schema", self.file)).cause(error)
        })
    }

    /// Takes one record of the rest; false when it is the header or was refused.
    fn row(&mut self, start: usize, end: usize) -> Result<bool> {
        if self.width.is_none() {
            let (rest, _) = self.text.rest();
            // Without its header nothing of the file can be read: this is no matter of one row.
            let columns =
                columns(&self.dialect, &self.fields, rest).ok_or_else(|| self.error(&not_text("the header")))?;
            self.expect(&columns);
            if self.dialect.header {
                return Ok(false);
            }
        }
        let (rest, _) = self.text.rest();
        let texts = self.fields.text(rest);
        let width = self.width.unwrap_or_default();
        let refusal = match texts {
            _ if self.fields.len() != width => Some(Refusal {
                error: format!("{} where the header or first row has {width}", counted(self.fields.len())),
                hint: None,
            }),
            Err(field) => Some(not_text(&format!("field {}", field + 1))),
            Ok(texts) => {
                let mut refusal = None;
                for ((place, column), field) in self.columns.iter_mut().zip(self.scan.schema.fields()) {
                    let Some(index) = place else { continue };
                    let text = value(&self.dialect, &texts, *index, field);
                    if !column.take(text) {
                        refusal = Some(wrong_type(field, text.unwrap_or_default()));
                        break;
                    }
                }
                let leaves_out = self.scan.rejects.as_ref().filter(|rejects| rejects.leaves_out());
                if let Some(rejects) = leaves_out.filter(|_| refusal.is_none() && !self.beyond.is_empty()) {
                    let there = self.beyond.iter().filter(|(index, _)| !self.dialect.is_null(texts.get(*index)));
                    if rejects.note_fields(there.map(|(_, name)| name.as_str())).context(|| self.file.clone())? {
                        return Ok(false);
                    }
                }
                if refusal.is_none() {
                    for ((place, column), field) in self.columns.iter_mut().zip(self.scan.schema.fields()) {
                        let Some(index) = place else { continue };
                        column.keep(value(&self.dialect, &texts, *index, field));
                    }
                }
                refusal
            }
        };
        match refusal {
            None => Ok(true),
            Some(refusal) => {
                self.refuse(&refusal, start, end)?;
                Ok(false)
            }
        }
    }

    /// Refuses the line that begins at `start` and goes on with the one after it.
    async fn skip_line(&mut self, start: usize, error: &str) -> Result<()> {
        let (rest, _) = self.text.rest();
        let found = memchr::memchr(b'\n', &rest[start..]);
        let end = found.map_or(rest.len(), |length| start + length + 1);
        let refusal = Refusal { error: error.to_owned(), hint: None };
        // The first line decides what the others must look like.
        if self.width.is_none() {
            return Err(self.error(&refusal));
        }
        self.refuse(&refusal, start, end)?;
        self.line += 1;
        self.text.advance(end);
        if found.is_none() {
            self.text.skip_line().await?;
        }
        Ok(())
    }

    fn refuse(&self, refusal: &Refusal, start: usize, end: usize) -> Result<()> {
        if self.scan.on_bad_row == OnFail::Fail {
            return Err(self.error(refusal));
        }
        if let Some(rejects) = &self.scan.rejects {
            let (rest, _) = self.text.rest();
            let kept = end.min(start + RECORD_KEPT);
            let record = String::from_utf8_lossy(&rest[start..kept]).trim_end_matches(['\r', '\n']).to_owned();
            rejects.send(Reject { record, error: refusal.error.clone(), place: self.place() });
        }
        Ok(())
    }

    fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    fn error(&self, refusal: &Refusal) -> Error {
        let hint = refusal.hint.clone();
        Error::new(ErrorKind::Data, format!("`{}`: {}", self.place(), refusal.error)).hint(hint.unwrap_or_else(|| {
            "correct the file, or say `on_bad_row: dead_letter` to go on without such rows".to_owned()
        }))
    }
}

/// A first line that names these columns.
fn header(dialect: &Dialect, columns: &[String]) -> String {
    let special = |letter: char| {
        let byte = u8::try_from(letter).ok();
        matches!(letter, '\n' | '\r') || byte == Some(dialect.delimiter) || byte.is_some() && byte == dialect.quote
    };
    let is_comment = |name: &String| dialect.comment.is_some_and(|comment| name.starts_with(char::from(comment)));
    let field = |name: &String| match dialect.quote.map(char::from) {
        Some(quote) if name.contains(special) || is_comment(name) => {
            format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")))
        }
        _ => name.clone(),
    };
    columns.iter().map(field).collect::<Vec<_>>().join(&char::from(dialect.delimiter).to_string())
}

/// The columns that the first record of a file tells; none where it is a header that is not text.
fn columns(dialect: &Dialect, first: &Fields, input: &[u8]) -> Option<Vec<String>> {
    if !dialect.header {
        return Some(numbered(first.len()));
    }
    first.text(input).ok().map(|texts| names(texts.iter()))
}

/// The columns of a file, read from its first record; none where there is none that can be read.
///
/// # Errors
/// What the store or the disk says.
pub(in crate::sources::files) async fn first_columns(input: &FileInput) -> Result<Option<Vec<String>>> {
    let dialect = Dialect::new(&input.csv)?;
    let mut text = Text::open(input, dialect.encoding, Purpose::Look).await?;
    let mut fields = Fields::default();
    loop {
        let (rest, last) = text.rest();
        match record::next(&dialect, rest, last, &mut fields) {
            Step::More { start, .. } if rest.len() - start <= MAX_RECORD => {
                text.advance(start);
                text.more().await?;
            }
            Step::Record { start, end, open: false, .. } if end - start <= MAX_RECORD => {
                return Ok(columns(&dialect, &fields, rest));
            }
            Step::More { .. } | Step::Record { .. } | Step::End => return Ok(None),
        }
    }
}

/// The text of a field; `None` for NULL. A text in quotes is never NULL, as in PostgreSQL's COPY; of other types nothing
/// that means NULL could be a value, so that quotes around it change nothing.
fn value<'a>(dialect: &Dialect, texts: &Texts<'a>, index: usize, field: &Field) -> Option<&'a str> {
    let text = texts.get(index);
    let null = dialect.is_null(text) && !(texts.is_quoted(index) && can_be_any_text(field.data_type()));
    (!null).then_some(text)
}

/// Whether every text is a value of the type.
pub(in crate::sources::files) fn can_be_any_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary)
}

fn too_long() -> String {
    format!("a record of more than {} MiB; is a quote never closed?", MAX_RECORD >> 20)
}

fn counted(fields: usize) -> String {
    if fields == 1 { "1 field".to_owned() } else { format!("{fields} fields") }
}

fn not_text(what: &str) -> Refusal {
    Refusal {
        error: format!("{what} is not text in the file's encoding"),
        hint: Some(
            "say how it is written, e.g. `csv: {encoding: windows-1252}`, or `on_bad_row: dead_letter`".to_owned(),
        ),
    }
}

fn wrong_type(field: &Field, text: &str) -> Refusal {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Refusal {
        error: format!("`{shown}` in the column `{}` is not of type {}", field.name(), type_name(field.data_type())),
        hint: Some(format!(
            "correct it, declare `schema: {{{}: text}}`, or say `on_bad_row: dead_letter`",
            field.name()
        )),
    }
}
