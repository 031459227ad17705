//! Between DataFusion's errors and ours.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use gristmill_model::{Error, ErrorKind, one_of};

/// Says which step an error is of. The innermost one is at fault; those that only read from it are not named.
#[must_use]
pub(crate) fn in_step(error: Error, step: &str) -> Error {
    if blamed(&error).is_some() { error } else { error.context(format!("step `{step}`")) }
}

/// The step an error is of.
pub(crate) fn blamed(error: &Error) -> Option<&str> {
    error.contexts().iter().find_map(|context| context.strip_prefix("step `")?.strip_suffix('`'))
}

/// Carries one of our errors through DataFusion. A transient one becomes an I/O error, the kind a cluster retries.
#[must_use]
pub fn to_datafusion(error: Error) -> DataFusionError {
    if error.is_retryable() {
        DataFusionError::IoError(std::io::Error::other(error))
    } else {
        DataFusionError::External(Box::new(error))
    }
}

/// Understands an error that comes out of DataFusion: ours come back unchanged, its own are classified.
#[must_use]
pub fn from_datafusion(error: DataFusionError) -> Error {
    classify(&error)
}

fn classify(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => from_dyn(inner.as_ref()),
        DataFusionError::IoError(inner) => match inner.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => error.clone(),
            None => Error::io(inner, "a file"),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => classify(inner),
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => classify(first),
            None => Error::internal("an empty list of errors"),
        },
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::ParquetError(inner) => {
            Error::new(ErrorKind::Data, "a Parquet file cannot be read").cause(inner)
        }
        DataFusionError::ObjectStore(inner) => from_object_store(inner),
        DataFusionError::SQL(inner, _) => {
            Error::new(ErrorKind::Query, format!("the SQL cannot be parsed: {}", strip_parser(&inner.to_string())))
        }
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::ResourcesExhausted(message) => {
            // Who held how much stands in further lines: good for the log, too much for a person.
            tracing::debug!("memory: {message}");
            let first = first_line(message);
            let first = first.split(" with top memory consumers").next().unwrap_or_default();
            Error::new(ErrorKind::Memory, format!("the memory limit was reached: {first}")).hint(
                "raise `--memory`, or let the query keep less at once (fewer columns before a join, a smaller build side)",
            )
        }
        DataFusionError::ExecutionJoin(inner) => {
            Error::internal(format!("a task of the query ended unexpectedly: {inner}"))
        }
        DataFusionError::Plan(message) | DataFusionError::Configuration(message) => plan_error(message),
        DataFusionError::NotImplemented(message) => {
            Error::new(ErrorKind::Query, format!("not supported: {}", first_line(message)))
        }
        DataFusionError::Execution(message) => Error::new(ErrorKind::Data, first_line(message)),
        other => {
            let text = first_line(&other.to_string());
            wrong_types(&text).unwrap_or_else(|| Error::internal(text))
        }
    }
}

/// A function that is given what it does not take is a mistake in the query, whatever the planner calls it.
fn wrong_types(text: &str) -> Option<Error> {
    let (before, after) = text.split_once("Function '")?;
    let (name, rest) = after.split_once('\'')?;
    if !rest.contains("failed to match any signature") || before.contains('`') {
        return None;
    }
    let got = rest.split("but received ").nth(1).and_then(|got| got.split([' ', '.', ',']).next());
    let given = got.map_or_else(String::new, |got| format!(", but is given {got}"));
    Some(
        Error::new(ErrorKind::Query, format!("the function `{name}` does not take values of these types{given}"))
            .hint("change the type first: `try_cast(x AS double)`"),
    )
}

fn from_dyn(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = current {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.clone();
        }
        if let Some(theirs) = inner.downcast_ref::<DataFusionError>() {
            return classify(theirs);
        }
        if let Some(arrow) = inner.downcast_ref::<ArrowError>() {
            return from_arrow(arrow);
        }
        if let Some(store) = inner.downcast_ref::<object_store::Error>() {
            return from_object_store(store);
        }
        current = inner.source();
    }
    Error::new(ErrorKind::Data, first_line(&error.to_string()))
}

fn from_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => from_dyn(inner.as_ref()),
        ArrowError::IoError(_, inner) => Error::io(inner, "a file"),
        ArrowError::DivideByZero => {
            Error::new(ErrorKind::Data, "a division by zero").hint("guard it: `x / nullif(y, 0)`")
        }
        ArrowError::CastError(message) | ArrowError::ParseError(message) => {
            Error::new(ErrorKind::Data, format!("a value does not fit its type: {}", first_line(message))).hint(
                "use `try_cast` to get NULL instead, or a check with `on_fail: dead_letter` to keep such rows aside",
            )
        }
        other => Error::new(ErrorKind::Data, first_line(&other.to_string())),
    }
}

fn from_object_store(error: &object_store::Error) -> Error {
    gristmill_connect::stores::explain(error, "the object store")
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            Error::new(ErrorKind::Schema, format!("column `{}` does not exist", field.flat_name()))
                .hint(one_of(&field.name, names))
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(ErrorKind::Query, format!("column `{}` is in more than one table", field.name))
                .hint("write `table.column`")
        }
        other => Error::new(ErrorKind::Query, first_line(&other.to_string())),
    }
}

fn plan_error(message: &str) -> Error {
    let text = first_line(message);
    if let Some(rest) = text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
        let name = rest.rsplit('.').next().unwrap_or(rest);
        return Error::new(ErrorKind::NotFound, format!("table `{name}` does not exist"))
            .hint("name a step of the pipeline, or a file in quotes: `'data/x.parquet'`");
    }
    wrong_types(&text).unwrap_or_else(|| Error::new(ErrorKind::Query, lower_first(&text)))
}

fn strip_parser(message: &str) -> String {
    let text = message.strip_prefix("sql parser error: ").unwrap_or(message);
    text.strip_prefix("ParserError(\"").and_then(|text| text.strip_suffix("\")")).unwrap_or(text).to_owned()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Library messages may carry a stack trace; people need the first line.
fn first_line(message: &str) -> String {
    message.split("\n\nbacktrace").next().unwrap_or(message).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn our_errors_pass_through_datafusion_unchanged() {
        for retryable in [false, true] {
            let error = Error::new(ErrorKind::Data, "x").hint("y").retryable(retryable);
            let wrapped = DataFusionError::Shared(Arc::new(DataFusionError::Context(
                "c".to_owned(),
                Box::new(to_datafusion(error.clone())),
            )));
            assert_eq!(from_datafusion(wrapped), error);
        }
    }

    #[test]
    fn a_function_that_is_given_the_wrong_type_is_a_mistake_of_the_query() {
        let text = "Function 'sum' failed to match any signature, errors: Error during planning: Function 'sum' requires \
                    Int64, but received String (DataType: Utf8).";
        let planned = DataFusionError::Plan(format!("Internal error: {text}"));
        for error in [DataFusionError::Internal(text.to_owned()), planned] {
            let error = from_datafusion(error);
            assert_eq!(error.kind(), ErrorKind::Query);
            assert_eq!(error.message(), "the function `sum` does not take values of these types, but is given String");
        }
        assert_eq!(from_datafusion(DataFusionError::Internal("x".to_owned())).kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_memory_error_says_what_to_do() {
        let error = from_datafusion(DataFusionError::ResourcesExhausted("no".to_owned()));
        assert_eq!(error.kind(), ErrorKind::Memory);
        assert!(error.hint_text().unwrap().contains("--memory"));
    }
}
