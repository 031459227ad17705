//! Reading only what is new: the condition, and how far it goes.

use super::connect::{Session, server_error};
use super::names::{Postgres, literal, quoted};
use super::units::keys::KeyKind;
use super::units::share::Slice;
use super::wanted::{Known, Wanted, unknown_column};
use crate::increment::{narrowed, wrong_lag};
use crate::{Increment, Narrowed};
use gristmill_model::spec::{ExtractSpec, Lag};
use gristmill_model::{Error, ErrorKind, Result};
use serde_json::Value;
use tokio_postgres::error::SqlState;

impl Wanted {
    /// Fixes the upper bound, and narrows the extract to the rows between it and the cursor.
    pub(super) async fn narrow(&self, extract: &ExtractSpec, increment: &Increment, known: &Known) -> Result<Narrowed> {
        let name = &increment.column;
        let names = || known.schema.fields().iter().map(|field| field.name().as_str());
        if !names().any(|known| known == name) {
            return Err(unknown_column(name, &self.label(), names()).context("incremental_key"));
        }
        let session = Session::open_to_read(&self.config).await?;
        let key = self.key(&session, name).await?;
        let column = quoted(name);
        let from = match &increment.since {
            Some(since) => Some(format!("{column} >= {}", lower(name, &key.name, key.kind, since, increment.lag)?)),
            None => None,
        };
        let filter = match (&self.filter, &from) {
            (Some(filter), Some(from)) => Some(format!("(\n{filter}\n) AND {from}")),
            (filter, from) => filter.clone().or_else(|| from.clone()),
        };
        let max =
            Slice::Whole.select(&Postgres, &format!("max({column})::text"), &self.relation_sql(), filter.as_deref());
        let row = match session.query_one(&max, &[]).await {
            Ok(row) => row,
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_FUNCTION) => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("`{name}` is {}, which has no greatest value", key.name),
                )
                .hint("take a number, a time, a date or a text as `incremental_key`"));
            }
            Err(error) => return Err(self.cannot_read(&session, &error).await),
        };
        let next: Option<String> = row
            .try_get(0)
            .map_err(|error| server_error(&error, &self.config, "the greatest value was not understood"))?;
        session.close().await;
        if let Some(end) = next.as_deref().filter(|next| matches!(*next, "NaN" | "infinity" | "Infinity")) {
            return Err(Error::new(ErrorKind::Data, format!("the greatest `{name}` of `{}` is {end}", self.label()))
                .cause("nothing could ever come after it")
                .hint(format!("leave such rows out: `where: \"{name} < '{end}'\"`")));
        }
        let next = next.map(|next| (literal(&next), Value::String(next)));
        Ok(narrowed(extract, increment, &column, from, next))
    }
}

/// The least value that is read, in SQL.
fn lower(column: &str, type_name: &str, kind: KeyKind, since: &Value, lag: Option<Lag>) -> Result<String> {
    let since = since.as_str().map_or_else(|| since.to_string(), str::to_owned);
    let typed = format!("CAST({} AS {type_name})", literal(&since));
    Ok(match (lag, kind) {
        (None, _) => literal(&since),
        (Some(Lag::Time(lag)), KeyKind::Date) => format!("{typed} - {}", lag.0.as_millis().div_ceil(86_400_000)),
        (Some(Lag::Time(lag)), KeyKind::Timestamp { .. }) => {
            format!("{typed} - INTERVAL '{} milliseconds'", lag.0.as_millis())
        }
        (Some(Lag::Number(lag)), KeyKind::Integer) => {
            let since: i128 = since.parse().map_err(|_| Error::internal(format!("`{since}` is no whole number")))?;
            // In the column's own range, so that the comparison stays one an index can answer.
            literal(&(since - i128::from(lag)).max(least(type_name)).to_string())
        }
        (Some(Lag::Number(lag)), KeyKind::Numeric) => format!("{typed} - {lag}"),
        (Some(lag), _) => return Err(wrong_lag(lag, column, &format!("is {type_name}"))),
    })
}

/// The least value of a type of whole numbers.
fn least(type_name: &str) -> i128 {
    match type_name {
        "smallint" => i16::MIN.into(),
        "integer" => i32::MIN.into(),
        "oid" => 0,
        _ => i64::MIN.into(),
    }
}
