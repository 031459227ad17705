//! Dividing files into units.
//!
//! ```text
//!   picture ──► decide (pure): which files together, which in pieces, how large
//!                 ├─► cuts (edge): places in a text at which records begin
//!                 └─► payload: units as plain data, and back
//! ```
//!
//! **Invariant:** the units of a plan hold every byte of every file once, and begin and end where records do. A file whose
//! records cannot be told apart without reading it (compressed, in another encoding, JSON documents, Avro, ORC, Arrow) is
//! never cut; a CSV file only where what stands before the cut proves it to be outside of quotes.

mod cuts;
mod decide;
mod payload;
#[cfg(test)]
mod tests;

pub(super) use decide::CUT_FROM;
pub(super) use payload::files;

use super::csv::Dialect;
use super::formats::{ByteRange, Piece};
use super::picture::{self, Picture, SourceFile};
use crate::stores::{Store, StoreKind};
use decide::{Cuttable, Fact, Share};
use futures::stream::{self, StreamExt, TryStreamExt};
use gristmill_model::spec::{Compression, ExtractSpec, FileFormat, UnitStrategy, UnitsSpec, Verify};
use gristmill_model::{ByteSize, Error, ErrorKind, Result, WorkUnit};

/// Files that are looked through at once for places to cut.
const LOOKED_THROUGH: usize = 2;

/// Units, and why they are these.
#[derive(Debug)]
pub(super) struct Divided {
    pub(super) units: Vec<WorkUnit>,
    pub(super) why: String,
}

/// Refuses what `units:` may say of databases only.
///
/// # Errors
/// [`ErrorKind::Config`], naming it.
pub(super) fn supported(spec: &ExtractSpec) -> Result<()> {
    let Some(UnitsSpec { strategy, verify, .. }) = &spec.units else { return Ok(()) };
    let refuse = |what: &str| {
        Err(Error::new(
            ErrorKind::Config,
            format!("`{what}` of `units` is for databases, and `{}` holds files", spec.from),
        )
        .hint("for files, `strategy` may be `auto`, `files`, `byte_range` or `none`, with `target_rows` and `max`"))
    };
    match strategy {
        UnitStrategy::Auto | UnitStrategy::Files | UnitStrategy::ByteRange | UnitStrategy::None => {}
        other => return refuse(&format!("strategy: {}", other.as_str())),
    }
    match verify {
        Some(Verify::Count) => refuse("verify: count"),
        Some(Verify::None) | None => Ok(()),
    }
}

/// Whether the units are to be made here, also where the engine's own scan would do.
pub(super) fn asked(spec: &ExtractSpec) -> bool {
    spec.units
        .as_ref()
        .is_some_and(|units| units.strategy != UnitStrategy::Auto || units.target_rows.is_some() || units.max.is_some())
}

/// Divides the files of a picture for `lanes` readers.
///
/// # Errors
/// A file that cannot be cut where that is asked for; what the store or the disk says while cuts are looked for.
pub(super) async fn divide(roots: &[Store], spec: &ExtractSpec, picture: &Picture, lanes: usize) -> Result<Divided> {
    let units = spec.units.clone().unwrap_or_default();
    let facts: Vec<Fact> =
        picture.files.iter().enumerate().map(|(at, file)| fact(roots, spec, picture, at, file)).collect();
    let decision = decide::decide(&facts, &units, lanes)?;
    let looks: Vec<_> = decision.shares.into_iter().map(|share| cut(roots, spec, picture, share)).collect();
    let pieces: Vec<Vec<Vec<SourceFile>>> = stream::iter(looks).buffered(LOOKED_THROUGH).try_collect().await?;
    let mut made = Vec::new();
    for files in pieces.into_iter().flatten() {
        made.push(payload::unit(made.len(), &files, picture)?);
    }
    let why = why(picture, &facts, &made, &units, decision.note);
    Ok(Divided { units: made, why })
}

/// What deciding needs to know of a file.
fn fact(roots: &[Store], spec: &ExtractSpec, picture: &Picture, at: usize, file: &SourceFile) -> Fact {
    let store = roots.get(file.root);
    let kind = store.map(Store::kind);
    let whole = |why: &'static str| Cuttable::No(why);
    let cuttable = match file.format {
        _ if file.stdin => whole("standard input is read in one go"),
        FileFormat::Parquet => Cuttable::RowGroups(picture.row_groups.get(at).cloned().unwrap_or_default()),
        FileFormat::Csv | FileFormat::Ndjson if file.compression != Compression::None => {
            whole("what is compressed can only be read from its beginning")
        }
        FileFormat::Csv | FileFormat::Ndjson if kind == Some(StoreKind::Http) => {
            whole("a web server may give whole files only")
        }
        FileFormat::Ndjson => Cuttable::Anywhere,
        FileFormat::Csv => match picture::input(roots, spec, file).and_then(|input| Dialect::new(&input.csv)) {
            Ok(dialect) if dialect.encoding.is_some() => whole("only UTF-8 is cut"),
            Ok(dialect) if dialect.quote().is_none() && dialect.comment.is_none() => Cuttable::Anywhere,
            Ok(_) if kind == Some(StoreKind::Local) => Cuttable::Anywhere,
            Ok(_) => Cuttable::AtACost("it would have to be fetched twice, to know where its quotes are"),
            Err(_) => whole("its dialect is unknown"),
        },
        FileFormat::Json | FileFormat::Avro | FileFormat::Orc | FileFormat::Arrow | FileFormat::Delta => {
            whole("files of this format are read whole")
        }
    };
    Fact { name: file.name.clone(), size: file.meta.size, rows: picture.rows.get(at).copied().flatten(), cuttable }
}

/// The files, or the pieces of one, that each unit of a share has.
async fn cut(roots: &[Store], spec: &ExtractSpec, picture: &Picture, share: Share) -> Result<Vec<Vec<SourceFile>>> {
    let piece = |file: &SourceFile, piece: Piece| vec![SourceFile { piece: Some(piece), ..file.clone() }];
    Ok(match share {
        Share::Files(files) => vec![picture.files.get(files).unwrap_or_default().to_vec()],
        Share::RowGroups { file, groups } => {
            let Some(file) = picture.files.get(file) else { return Ok(Vec::new()) };
            groups
                .into_iter()
                .map(|groups| piece(file, Piece::RowGroups { start: groups.start, end: groups.end }))
                .collect()
        }
        Share::Bytes { file, targets } => {
            let Some(file) = picture.files.get(file) else { return Ok(Vec::new()) };
            let found = cuts::find(roots, spec, file, targets).await?;
            if found.cuts.is_empty() {
                return Ok(vec![vec![file.clone()]]);
            }
            let ends = found.cuts.iter().map(|cut| cut.at).chain([file.meta.size]);
            let begins = [(0, Some(0))].into_iter().chain(found.cuts.iter().map(|cut| (cut.at, cut.lines)));
            let ranges = begins.zip(ends).map(|((start, lines_before), end)| {
                let columns = if start == 0 { Vec::new() } else { found.columns.clone() };
                piece(file, Piece::Bytes(ByteRange { start, end, lines_before, columns }))
            });
            ranges.collect()
        }
    })
}

/// Why these units, for people.
fn why(picture: &Picture, facts: &[Fact], units: &[WorkUnit], spec: &UnitsSpec, note: Option<String>) -> String {
    if picture.files.iter().any(|file| file.stdin) {
        return "standard input, from beginning to end".to_owned();
    }
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let bytes = ByteSize(facts.iter().map(|fact| fact.size).sum());
    let mut text = format!("{} of {bytes} in {}", count(facts.len(), "file"), count(units.len(), "unit"));
    let rows = facts.iter().map(|fact| fact.rows).sum::<Option<u64>>();
    if let (Some(rows), 2..) = (rows, units.len()) {
        text.push_str(&format!(" of about {} rows", rows / units.len() as u64));
    }
    let cut = units.iter().filter(|unit| payload::is_piece(unit)).count();
    let whole = units.len() - cut;
    if cut > 0 {
        let between =
            if picture.files.iter().any(|file| file.format == FileFormat::Parquet) { "row groups" } else { "records" };
        text.push_str(&format!(", cut between {between}"));
    }
    if whole > 0 && facts.len() > units.len() {
        text.push_str(", small files together");
    }
    if spec.strategy != UnitStrategy::Auto {
        text.push_str(&format!(", as `strategy: {}` says", spec.strategy.as_str()));
    }
    if let Some(note) = note {
        text.push_str("; ");
        text.push_str(&note);
    }
    text
}
