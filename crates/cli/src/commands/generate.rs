//! `gristmill generate`: made-up rows to a place, or to standard output.

use super::copy::{Job, Target, execute, folders, plain_load, surrounding};
use crate::args::{GenerateArgs, RowFormat};
use crate::exit::Outcome;
use crate::local_engine;
use crate::place::Place;
use crate::printer::Printer;
use crate::rows;
use gristmill_model::spec::{ColumnRule, GenerateSpec, GenerateTable};
use gristmill_model::yaml::{Value, decode, parse, to_error};
use gristmill_model::{CancellationToken, Error, ErrorKind, Result, one_of};
use serde::Deserialize;
use std::path::Path;

/// A file of columns: the keys of a `generate` step that say what the rows look like, or the list alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnsFile {
    columns: Vec<ColumnRule>,
}

/// Generates.
pub(crate) async fn run(args: GenerateArgs, printer: &Printer, cancel: CancellationToken) -> Result<Outcome> {
    let spec = spec(&args)?;
    if let Some(problem) = local_engine::generator_problem(&spec) {
        let of_file = Path::new(&args.table).exists() && !spec.columns.is_empty();
        return Err(if of_file { problem.context(format!("`{}`", args.table)) } else { problem });
    }
    let Some(to) = &args.to else {
        let format = args.format.unwrap_or(if printer.json() { RowFormat::Json } else { RowFormat::Csv });
        let rows = local_engine::generated(&spec)?;
        // A task of its own: rows that are always ready would never let the request to stop be heard.
        let printer = printer.clone();
        let printing = tokio::spawn(async move { rows::print(rows, format, None, &printer).await });
        return super::or_canceled(printing, &cancel).await.map(|()| Outcome::Done);
    };
    let project = surrounding(&args.project.project, args.project.profile.as_deref()).await?;
    folders(project.as_deref())?;
    let target = Place::parse(to, "target", project.as_deref())?.named_by_url();
    let load = plain_load(&Target { place: &target, from: "made_up", format: args.to_format }, args.strategy)?;
    let mut steps = serde_json::Map::new();
    steps.insert("made_up".to_owned(), serde_json::json!({"generate": spec}));
    let places = vec![target.clone()];
    execute(Job { project, places, steps, load, target, given: args.strategy, memory: None }, printer, cancel).await
}

fn spec(args: &GenerateArgs) -> Result<GenerateSpec> {
    let plain = GenerateSpec { rows: args.rows, seed: args.seed, table: None, columns: Vec::new() };
    match args.table.as_str() {
        "people" => return Ok(GenerateSpec { table: Some(GenerateTable::People), ..plain }),
        "transactions" => return Ok(GenerateSpec { table: Some(GenerateTable::Transactions), ..plain }),
        _ => {}
    }
    let path = Path::new(&args.table);
    if !path.exists() {
        return Err(Error::new(ErrorKind::Usage, format!("`{}` is neither a table nor a file of columns", args.table))
            .hint(one_of(&args.table, ["people", "transactions"])));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(&error, format!("`{}`", args.table)))?;
    let node = parse(&args.table, &text).map_err(|mistakes| to_error(&mistakes))?;
    let columns = match &node.value {
        Value::List(_) => decode(&node),
        _ => decode(&node).map(|file: ColumnsFile| file.columns),
    };
    Ok(GenerateSpec { columns: columns.map_err(|mistakes| to_error(&mistakes))?, ..plain })
}
