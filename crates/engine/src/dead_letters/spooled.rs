//! Records that a reader of files refused, as files again: each record under the name of the file it stood in, behind the line
//! that names the columns. So the extract reads them as it read the files, with whatever was mended in it since. Records of an
//! API's pages ([`pages`](super::pages)) become files, too. What stood in a database has no file ([`rows`](super::rows)).

use super::pages::{Pages, beside};
use super::read::{Opened, maybe, of, text};
use super::rows::KeptLetters;
use super::source::{blocking, columns};
use async_trait::async_trait;
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::SchemaRef;
use gristmill_connect::types::{parse_type, type_name};
use gristmill_connect::{OpenContext, ReadPlan, ReadRequest, Rows, Scan, Source, SourceStats, registry};
use gristmill_model::spec::{Compression, ExtractSpec, FileFormat, OneOrMany};
use gristmill_model::{Error, ErrorKind, Letters, Result, WorkUnit};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Readers keep so much of a record: a longer one was cut.
const KEPT: usize = 64 << 10;

/// Letters of a reader, as what they came from.
#[derive(Debug)]
pub(super) struct Spooled {
    letters: Letters,
    extract: ExtractSpec,
    open: OpenContext,
    spool: PathBuf,
    files: OnceCell<Read>,
}

/// What the letters are read as.
#[derive(Debug)]
struct Read {
    source: Arc<dyn Source>,
    /// They are of pages.
    is_of_pages: bool,
    /// Where the files are while they are read.
    _folder: Option<TempDir>,
}

impl Spooled {
    pub(super) fn new(letters: Letters, extract: ExtractSpec, open: OpenContext, spool: PathBuf) -> Self {
        Self { letters, extract, open, spool, files: OnceCell::new() }
    }

    /// The source of what they came from; files are written when it is first asked for.
    async fn files(&self) -> Result<&Arc<dyn Source>> {
        let made = self.files.get_or_try_init(|| async {
            let (letters, extract) = (self.letters.clone(), self.extract.clone());
            let (open, spool) = (self.open.clone(), self.spool.clone());
            blocking(move || match KeptLetters::open(&letters, &extract, &open.state)? {
                Some(rows) => Ok(Read { source: Arc::new(rows), is_of_pages: false, _folder: None }),
                None => write(&letters, extract, &open, &spool),
            })
            .await
        });
        Ok(&made.await?.source)
    }
}

fn write(letters: &Letters, mut extract: ExtractSpec, open: &OpenContext, spool: &Path) -> Result<Read> {
    let opened = Opened::new(&open.state, &letters.file)?;
    let known = columns(&opened, letters)?;
    let folder = tempfile::Builder::new().prefix("letters-").tempdir_in(spool);
    let folder = folder.map_err(|error| Error::io(&error, format!("a folder in `{}`", spool.display())))?;
    let mut spool = Spool { folder: folder.path(), names: BTreeSet::new(), open: None };
    let (mut as_lines, mut pages) = (false, Pages::new(&extract));
    for batch in opened.batches(&["step", "refused_by", "record", "place", "file", "header", "how"])? {
        let batch = batch?;
        let (records, places) = (text(&batch, "record")?, text(&batch, "place")?);
        let (files, headers, how) = (text(&batch, "file")?, text(&batch, "header")?, maybe(&batch, "how"));
        for row in of(&batch, &letters.step, letters.by)? {
            let (record, place) = (records.value(row), places.value(row));
            if files.is_null(row) || headers.is_null(row) {
                return Err(cannot(place, "what was kept of it is for people"));
            }
            must_be_whole(record, place)?;
            let columns = how.filter(|how| !how.is_null(row)).map(|how| how.value(row));
            let name = match columns {
                Some(_) => pages.file(files.value(row)),
                None => files.value(row).to_owned(),
            };
            as_lines |= is_json(&extract, &name);
            // Between values, where alone JSON can have them, line breaks are nothing but blanks.
            let mut record =
                if is_json(&extract, &name) { record.replace(['\n', '\r'], " ") } else { record.to_owned() };
            if let Some(columns) = columns.filter(|columns| *columns != "{}") {
                if !pages.can_have_parents() {
                    return Err(cannot(place, "it is of a page of CSV, which has no place for what its parent has"));
                }
                must_be_whole(columns, place)?;
                record = beside(&record, columns);
            }
            spool.add(&name, headers.value(row), &record)?;
        }
    }
    let names = spool.end()?;
    extract.compression = Some(Compression::None);
    if !pages.is_empty() {
        pages.read_by(&mut extract);
    }
    if as_lines {
        (extract.format, extract.json) = (Some(FileFormat::Ndjson), None);
    }
    extract.path = extract.path.map(|paths| OneOrMany(paths.0.into_iter().filter(|path| has(path, &names)).collect()));
    // What was told by all rows of the files cannot be told by these alone. What the pipeline says goes before it.
    for field in known.fields() {
        let name = type_name(field.data_type());
        let is_wanted = extract.columns.is_empty() || extract.columns.contains(field.name());
        if is_wanted && parse_type(&name).is_ok_and(|kind| kind == *field.data_type()) {
            extract.schema.entry(field.name().clone()).or_insert(name);
        }
    }
    let keys = serde_json::json!({"type": "files", "url": folder.path()}).to_string();
    let connection = gristmill_model::yaml::parse("<dead letters>", &keys)
        .and_then(|node| registry::open(&node, open))
        .map_err(|mistakes| gristmill_model::yaml::to_error(&mistakes))?;
    let source = connection.source(&extract)?;
    Ok(Read { source, is_of_pages: !pages.is_empty(), _folder: Some(folder) })
}

/// Refuses a record of which only the beginning was kept; it may have been cut before its last letter.
pub(super) fn must_be_whole(record: &str, place: &str) -> Result<()> {
    if record.len() <= KEPT - 4 {
        return Ok(());
    }
    Err(cannot(place, "only its beginning was kept, since it is longer than 64 KiB"))
}

fn cannot(place: &str, why: &str) -> Error {
    Error::new(ErrorKind::Data, format!("the record at `{place}` cannot be read again: {why}"))
        .hint("mend the source, and run the pipeline again for that date")
}

fn is_json(extract: &ExtractSpec, name: &str) -> bool {
    let format = extract.format.or_else(|| {
        let stem = ["gz", "zst", "bz2", "xz"].iter().find_map(|end| name.strip_suffix(&format!(".{end}")));
        FileFormat::from_extension(stem.unwrap_or(name).rsplit('.').next()?)
    });
    matches!(format, Some(FileFormat::Json | FileFormat::Ndjson))
}

/// Whether a path of the extract, which may be a folder or a pattern, may lead to one of the files.
fn has(path: &str, names: &BTreeSet<String>) -> bool {
    let plain = path.trim_start_matches("./");
    let fixed = plain.find(['*', '?', '[', '{']).map_or(plain, |at| &plain[..at]);
    names.iter().any(|name| name.starts_with(fixed))
}

/// Files that are being written.
struct Spool<'a> {
    folder: &'a Path,
    names: BTreeSet<String>,
    /// The one that the last record was added to: records of a file mostly come together.
    open: Option<(String, BufWriter<File>)>,
}

impl Spool<'_> {
    fn add(&mut self, name: &str, header: &str, record: &str) -> Result<()> {
        let below = Path::new(name);
        if !below.components().all(|part| matches!(part, Component::Normal(_))) {
            let message = format!("a dead letter names the file `{name}`, which is no path below");
            return Err(Error::new(ErrorKind::Data, message));
        }
        let complain = |error: std::io::Error| Error::io(&error, format!("`{}`", self.folder.join(below).display()));
        let is_new = self.names.insert(name.to_owned());
        let file = match &mut self.open {
            Some((open, file)) if open == name => file,
            last => {
                if let Some((_, mut file)) = last.take() {
                    file.flush().map_err(complain)?;
                }
                let path = self.folder.join(below);
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(complain)?;
                }
                let file = OpenOptions::new().create(true).append(true).open(&path).map_err(complain)?;
                &mut last.insert((name.to_owned(), BufWriter::new(file))).1
            }
        };
        let header = Some(header).filter(|header| is_new && !header.is_empty());
        for line in header.into_iter().chain([record]) {
            file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(complain)?;
        }
        Ok(())
    }

    fn end(self) -> Result<BTreeSet<String>> {
        if let Some((name, mut file)) = self.open {
            file.flush().map_err(|error| Error::io(&error, format!("`{}`", self.folder.join(name).display())))?;
        }
        Ok(self.names)
    }
}

#[async_trait]
impl Source for Spooled {
    async fn schema(&self) -> Result<SchemaRef> {
        self.files().await?.schema().await
    }

    async fn plan(&self, want: &ReadRequest) -> Result<ReadPlan> {
        let mut plan = self.files().await?.plan(want).await?;
        plan.why = format!("dead letters of `{}`, refused by a reader", self.letters.step);
        Ok(plan)
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        match self.files.get() {
            Some(Read { source, is_of_pages: true, .. }) => {
                let mut scan = scan.clone();
                // What is beside a record is in it already.
                scan.rejects = scan.rejects.map(|rejects| rejects.beside("{}"));
                source.read(unit, &scan)
            }
            Some(read) => read.source.read(unit, scan),
            None => Rows::failed(scan.schema.clone(), Error::internal("dead letters are read before they are planned")),
        }
    }

    async fn stats(&self) -> SourceStats {
        match self.files().await {
            Ok(source) => source.stats().await,
            Err(_) => SourceStats::default(),
        }
    }
}
