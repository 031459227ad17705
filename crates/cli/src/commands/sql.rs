//! `gristmill sql`: a query over files, tables of connections, and the steps of a pipeline.
//!
//! `FROM 'data/x.parquet'`, `FROM "s3://lake/x/"`, `FROM sales_db.orders` and `FROM '-'` (standard input) are made into
//! extract steps, and the query reads those. So `sql` reads with the same readers, and says the same errors, as a
//! pipeline does.

use super::copy::{folders, plain_extract, surrounding};
use super::staged;
use crate::args::{RowFormat, SqlArgs};
use crate::context;
use crate::exit::Outcome;
use crate::local_engine;
use crate::place::{Place, What};
use crate::printer::Printer;
use crate::rows;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Statement, visit_relations_mut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use gristmill_model::spec::{Defaults, PipelineSpec};
use gristmill_model::yaml::{parse, to_error};
use gristmill_model::{ConnectionName, Error, ErrorKind, Interval, Result, RunId};
use gristmill_orchestrator::Project;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;

/// Answers the query.
pub(crate) async fn run(args: SqlArgs, printer: &Printer) -> Result<Outcome> {
    let text = text(&args).await?;
    let project = surrounding(&args.project.project, args.project.profile.as_deref()).await?;
    let (root, state) = folders(project.as_deref())?;
    let mut connections = project.as_ref().map(|project| project.connections.clone()).unwrap_or_default();
    let interval = match (&args.pipeline, args.date) {
        (Some(_), date) => context::interval(date, printer)?,
        (None, Some(date)) => Interval::day(date),
        (None, None) => Interval::day(chrono::Utc::now().date_naive()),
    };
    let mut pipeline = match (&args.pipeline, &project) {
        (Some(name), Some(project)) => {
            let (project, name) = (project.clone(), name.clone());
            tokio::task::spawn_blocking(move || project.render(&name, &RunId::from("sql"), interval, &BTreeMap::new()))
                .await
                .map_err(|error| Error::internal("rendering the pipeline ended early").cause(error))??
                .0
        }
        (Some(_), None) => {
            return Err(Error::new(ErrorKind::Usage, "`--pipeline` needs a project")
                .hint("run it in a project's folder, or give `--project`"));
        }
        (None, _) => PipelineSpec { name: "sql".into(), file: String::new(), description: None, steps: Vec::new() },
    };
    if let Some(load) = &args.staged {
        let Some(project) = project.as_deref() else {
            return Err(Error::new(ErrorKind::Usage, "`--staged` needs a project")
                .hint("run it in a project's folder, or give `--project`"));
        };
        let staged = staged::find(load, project).await?;
        connections.extend(staged.connection);
        pipeline.steps.push(staged.step);
    }
    let query = tables_to_steps(&text, project.as_deref(), &pipeline)?;
    for place in query.places.values() {
        place.add_to(&mut connections);
    }
    pipeline.steps.extend(query.steps(&connections)?);
    let options = local_engine::Options {
        project_root: root,
        state_dir: state,
        profile: args.project.profile.clone(),
        dead_letters: None,
        ledger: None,
        connections,
        memory: args.memory.or_else(|| project.as_ref().and_then(|project| project.spec.defaults.memory)),
        parallelism: project.as_ref().and_then(|project| project.spec.defaults.parallelism),
        collect: false,
    };
    // The steps that stand for places have names that nobody has written.
    let invented = |context: &str| query.places.keys().any(|name| context.contains(&format!("`{name}`")));
    let rows = local_engine::query(options, &pipeline, &query.text).await;
    let rows = rows.map_err(|error| error.without_contexts(invented))?;
    let format = args.format.unwrap_or(if printer.json() { RowFormat::Json } else { RowFormat::Table });
    rows::print(rows, format, args.limit, printer).await?;
    Ok(Outcome::Done)
}

async fn text(args: &SqlArgs) -> Result<String> {
    if let Some(path) = &args.file {
        return tokio::fs::read_to_string(path)
            .await
            .map_err(|error| Error::io(&error, format!("`{}`", path.display())));
    }
    match args.query.as_deref() {
        Some("-") => tokio::task::spawn_blocking(|| {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        })
        .await
        .map_err(|error| Error::internal("reading the query ended early").cause(error))?
        .map_err(|error| Error::io(&error, "standard input")),
        Some(query) => Ok(query.to_owned()),
        None => Err(Error::new(ErrorKind::Usage, "there is no query").hint("gristmill sql \"SELECT 1\"")),
    }
}

/// A query whose outside tables have become steps.
#[derive(Debug)]
struct Rewritten {
    text: String,
    /// The places, by the names of the steps to make.
    places: BTreeMap<String, Place>,
}

impl Rewritten {
    /// The extract steps the query reads.
    fn steps(
        &self,
        connections: &BTreeMap<ConnectionName, gristmill_model::yaml::Node>,
    ) -> Result<Vec<gristmill_model::spec::Step>> {
        if self.places.is_empty() {
            return Ok(Vec::new());
        }
        let steps: serde_json::Map<String, serde_json::Value> = self
            .places
            .iter()
            .map(|(name, place)| (name.clone(), serde_json::json!({"extract": plain_extract(place)})))
            .collect();
        let text = serde_json::json!({"steps": steps}).to_string();
        let names: Vec<&str> = connections.keys().map(ConnectionName::as_str).collect();
        parse("<command line>", &text)
            .and_then(|node| PipelineSpec::from_node(&node, &names, &Defaults::default()))
            .map(|pipeline| pipeline.steps)
            .map_err(|mistakes| to_error(&mistakes))
    }
}

/// Finds the tables that are places and puts steps into their stead; everything else stays as it is.
fn tables_to_steps(text: &str, project: Option<&Project>, pipeline: &PipelineSpec) -> Result<Rewritten> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, text).map_err(|error| {
        Error::new(ErrorKind::Query, "the query is not valid SQL")
            .cause(error.to_string().replace("sql parser error: ", ""))
    })?;
    let [statement] = statements.as_mut_slice() else {
        return Err(Error::new(ErrorKind::Usage, format!("{} statements; `sql` answers one", statements.len()))
            .hint("run them one after the other"));
    };
    if !matches!(statement, Statement::Query(_) | Statement::Explain { .. } | Statement::ShowTables { .. }) {
        return Err(Error::new(ErrorKind::Usage, "`sql` only answers queries")
            .hint("write rows with `gristmill copy --query` or a load step"));
    }
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let stop = visit_relations_mut(statement, |relation| match place_of(relation, &places, project, pipeline) {
        Ok(Some((name, place))) => {
            *relation = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name.clone()))]);
            places.insert(name, place);
            ControlFlow::Continue(())
        }
        Ok(None) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    if let ControlFlow::Break(error) = stop {
        return Err(error);
    }
    // Without a place the text stays as it was written, so that errors can point into it.
    let text = if places.is_empty() { text.to_owned() } else { statement.to_string() };
    Ok(Rewritten { text, places })
}

fn place_of(
    relation: &ObjectName,
    known: &BTreeMap<String, Place>,
    project: Option<&Project>,
    pipeline: &PipelineSpec,
) -> Result<Option<(String, Place)>> {
    let parts: Vec<&Ident> = relation.0.iter().filter_map(ObjectNamePart::as_ident).collect();
    let name = format!("_table_{}", known.len() + 1);
    let text = match parts.as_slice() {
        // A quoted name that looks like a path or URL, or names something that is there.
        [only] if pipeline.step(&only.value).is_none() => {
            let like_a_place = only.value.contains(['/', '.', '*']) || only.value == "-";
            let quoted = only.quote_style.is_some();
            if !(quoted && (like_a_place || std::path::Path::new(&only.value).exists())) {
                return Ok(None);
            }
            only.value.clone()
        }
        [connection, rest @ ..] if !rest.is_empty() => {
            let is_known = project.is_some_and(|project| project.connections.contains_key(connection.value.as_str()));
            if !is_known {
                let own = ["information_schema", "datafusion", "public"];
                let known = project.into_iter().flat_map(|project| project.connections.keys());
                let names: Vec<&str> = known.map(ConnectionName::as_str).collect();
                if names.is_empty() || own.contains(&connection.value.to_lowercase().as_str()) {
                    return Ok(None);
                }
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("the connection `{}` does not exist", connection.value),
                )
                .hint(gristmill_model::one_of(&connection.value, names)));
            }
            let rest: Vec<&str> = rest.iter().map(|part| part.value.as_str()).collect();
            format!("{}:{}", connection.value, rest.join("."))
        }
        _ => return Ok(None),
    };
    let place = Place::parse(&text, &name, project)?;
    // The same place twice is one step: it is read once where it can be.
    let same = known.iter().find(|(_, other)| match (&other.what, &place.what) {
        (What::Table(a), What::Table(b)) => a == b && other.connection == place.connection,
        (What::Path(a), What::Path(b)) => a == b && other.made == place.made,
        _ => false,
    });
    Ok(Some(match same {
        Some((name, place)) => (name.clone(), place.clone()),
        None => (name, place),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(text: &str) -> Result<Rewritten> {
        let pipeline = PipelineSpec { name: "sql".into(), file: String::new(), description: None, steps: Vec::new() };
        tables_to_steps(text, None, &pipeline)
    }

    #[test]
    fn a_file_becomes_a_step_and_a_plain_name_stays() {
        let query = rewrite("SELECT * FROM '/data/x.parquet' AS x JOIN known ON x.id = known.id").unwrap();
        assert_eq!(query.text, "SELECT * FROM _table_1 AS x JOIN known ON x.id = known.id");
        assert_eq!(query.places["_table_1"].path().as_deref(), Some("x.parquet"));
    }

    #[test]
    fn the_same_file_twice_is_one_step() {
        let query = rewrite("SELECT * FROM '/a/x.csv' UNION ALL SELECT * FROM \"/a/x.csv\"").unwrap();
        assert_eq!(query.places.len(), 1);
    }

    #[test]
    fn a_query_without_places_is_left_as_it_was_written() {
        assert_eq!(rewrite("select  1").unwrap().text, "select  1");
    }

    #[test]
    fn what_writes_is_refused() {
        let error = rewrite("DELETE FROM t").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let error = rewrite("SELECT 1; SELECT 2").unwrap_err();
        assert!(error.message().starts_with("2 statements"), "{error}");
    }

    #[test]
    fn broken_sql_says_where() {
        let error = rewrite("SELEC 1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Query);
    }
}
