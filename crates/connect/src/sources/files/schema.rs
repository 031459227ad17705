//! One schema for many files.
//!
//! Columns are matched by name. Under `schema_contract: evolve` new columns are added and types widened where nothing
//! is lost: integers to wider integers or to floats, dates to timestamps, decimals to more digits, and in text formats
//! (whose types are guesses) anything to text. Under `freeze` any difference is an error.

use super::formats::settle;
use crate::types::type_name as name;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use gristmill_model::spec::SchemaContract;
use gristmill_model::{Error, ErrorKind, Result, one_of};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Unifies the schemas of files; `text` says that types are guesses from text. A column of type Null says nothing
/// about its type; if no file says more, it is text.
///
/// # Errors
/// [`ErrorKind::Schema`], naming the column and the files, for what cannot be one.
pub(crate) fn unify(files: &[(&str, SchemaRef)], contract: SchemaContract, text: bool) -> Result<Schema> {
    // A file without any column is an empty file: it has nothing to say.
    let mut speaking = files.iter().filter(|(_, schema)| !schema.fields().is_empty());
    let Some((first_file, first)) = speaking.next() else { return Ok(Schema::empty()) };
    let mut columns: Vec<Field> = first.fields().iter().map(|field| nullable(field)).collect();
    let mut places: HashMap<String, (usize, &str)> =
        columns.iter().enumerate().map(|(index, field)| (field.name().clone(), (index, *first_file))).collect();
    for (file, schema) in speaking {
        let missing = columns.iter().find(|field| schema.column_with_name(field.name()).is_none());
        if let (SchemaContract::Freeze, Some(missing)) = (contract, missing) {
            return Err(frozen(format!("`{file}` has no column `{}`, which `{first_file}` has", missing.name())));
        }
        for field in schema.fields() {
            match places.get(field.name()) {
                None if contract == SchemaContract::Freeze => {
                    return Err(frozen(format!(
                        "`{file}` has a column `{}`, which `{first_file}` has not",
                        field.name()
                    )));
                }
                None => {
                    places.insert(field.name().clone(), (columns.len(), file));
                    columns.push(nullable(field));
                }
                Some((index, from)) => {
                    let old = &columns[*index];
                    let (a, b) = (old.data_type(), field.data_type());
                    let unknown = *a == DataType::Null || *b == DataType::Null;
                    if contract == SchemaContract::Freeze && a != b && !unknown {
                        return Err(frozen(format!(
                            "the column `{}` is {} in `{from}` but {} in `{file}`",
                            old.name(),
                            name(a),
                            name(b)
                        )));
                    }
                    let joined = join(a, b, text).ok_or_else(|| {
                        Error::new(
                            ErrorKind::Schema,
                            format!(
                                "the column `{}` is {} in `{from}` but {} in `{file}`, and no type holds both",
                                old.name(),
                                name(a),
                                name(b)
                            ),
                        )
                        .hint(format!("read them apart, or declare a type: `schema: {{{}: text}}`", old.name()))
                    })?;
                    // Messages name the file that the type is from.
                    let from = if joined == *a { *from } else { *file };
                    let index = *index;
                    columns[index] = Field::new(field.name(), joined, true);
                    places.insert(field.name().clone(), (index, from));
                }
            }
        }
    }
    Ok(Schema::new(columns))
}

/// A column of a path, as wide as it was before.
///
/// # Errors
/// As [`unify`].
pub(crate) fn widened(before: &Field, now: &Field) -> Result<Field> {
    let schema = |field: &Field| Arc::new(Schema::new(vec![field.clone()]));
    let both = [("what was loaded before", schema(before)), ("the new files", schema(now))];
    let unified = unify(&both, SchemaContract::Evolve, true)?;
    Ok(unified.field(0).clone())
}

fn frozen(message: String) -> Error {
    Error::new(ErrorKind::Schema, message)
        .hint("make the files alike, or say `schema_contract: evolve` to add columns and widen types")
}

/// Any column may be missing from the next file. The field's metadata is one file's own matter and is dropped, except
/// what an extension type needs.
fn nullable(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), true)
}

/// The type in which a column of two Parquet files is read, if there is one.
pub(crate) fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    join(a, b, false)
}

/// The type that holds the values of both without loss.
fn join(a: &DataType, b: &DataType, text: bool) -> Option<DataType> {
    use DataType as T;
    if a == b {
        return Some(a.clone());
    }
    let joined = match (a, b) {
        (T::Null, other) | (other, T::Null) => Some(other.clone()),
        (T::Utf8 | T::LargeUtf8 | T::Utf8View, T::Utf8 | T::LargeUtf8 | T::Utf8View) => Some(T::Utf8),
        (T::Binary | T::LargeBinary | T::BinaryView, T::Binary | T::LargeBinary | T::BinaryView) => Some(T::Binary),
        (T::Decimal128(p, s) | T::Decimal256(p, s), T::Decimal128(q, t) | T::Decimal256(q, t)) => {
            decimals((*p, *s), (*q, *t))
        }
        (T::Date32, T::Timestamp(unit, None)) | (T::Timestamp(unit, None), T::Date32) => {
            Some(T::Timestamp(*unit, None))
        }
        (T::Timestamp(u, zone), T::Timestamp(v, other)) if zone == other => {
            Some(T::Timestamp(finer(*u, *v), zone.clone()))
        }
        (T::Struct(one), T::Struct(two)) => structs(one, two, text),
        (T::List(one), T::List(two)) => {
            let item = join(one.data_type(), two.data_type(), text)?;
            Some(T::List(Arc::new(Field::new(one.name(), item, true))))
        }
        _ if a.is_integer() && b.is_integer() => integers(a, b),
        _ if a.is_numeric() && b.is_numeric() && (a.is_floating() || b.is_floating()) => floats(a, b),
        _ => None,
    };
    // Text formats have no types of their own: the text is always there to fall back on, but not for what is nested.
    joined.or_else(|| (text && !a.is_nested() && !b.is_nested()).then_some(T::Utf8))
}

fn decimals((p, s): (u8, i8), (q, t): (u8, i8)) -> Option<DataType> {
    let scale = s.max(t);
    let whole = (i16::from(p) - i16::from(s)).max(i16::from(q) - i16::from(t));
    let precision = u8::try_from(whole + i16::from(scale)).ok()?;
    match precision {
        0..=38 => Some(DataType::Decimal128(precision, scale)),
        39..=76 => Some(DataType::Decimal256(precision, scale)),
        _ => None,
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(&a) >= rank(&b) { a } else { b }
}

fn integers(a: &DataType, b: &DataType) -> Option<DataType> {
    let width = |data_type: &DataType| data_type.primitive_width().unwrap_or(8);
    match (a.is_signed_integer(), b.is_signed_integer()) {
        (true, true) | (false, false) => Some(if width(a) >= width(b) { a.clone() } else { b.clone() }),
        (signed, _) => {
            let (signed, unsigned) = if signed { (a, b) } else { (b, a) };
            // One more bit than the unsigned one has; above 64 bits there is only decimal.
            match width(signed).max(width(unsigned) * 2) {
                2 => Some(DataType::Int16),
                4 => Some(DataType::Int32),
                8 => Some(DataType::Int64),
                _ => Some(DataType::Decimal128(20, 0)),
            }
        }
    }
}

fn floats(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    match (a, b) {
        // A decimal has exact digits, which a float would lose.
        _ if [a, b].iter().any(|t| matches!(t, T::Decimal128(..) | T::Decimal256(..))) => None,
        (T::Float16 | T::Float32, T::Float16 | T::Float32) => Some(T::Float32),
        _ => Some(T::Float64),
    }
}

fn structs(one: &Fields, two: &Fields, text: bool) -> Option<DataType> {
    let mut fields: Vec<Field> = one.iter().map(|field| nullable(field)).collect();
    for field in two {
        match fields.iter_mut().find(|old| old.name() == field.name()) {
            Some(old) => *old = Field::new(old.name(), join(old.data_type(), field.data_type(), text)?, true),
            None => fields.push(nullable(field)),
        }
    }
    Some(DataType::Struct(fields.into()))
}

/// Replaces the types of declared columns, and the unknown ones by text. Columns that are declared but in no file are
/// added where the format has optional columns (`open`).
///
/// # Errors
/// [`ErrorKind::Schema`] for a declared column that no file has.
pub(crate) fn declared(found: &Schema, overrides: &BTreeMap<String, DataType>, open: bool) -> Result<Schema> {
    let settled = settle(found);
    let mut fields: Vec<Field> = settled
        .fields()
        .iter()
        .map(|field| {
            let data_type = overrides.get(field.name()).cloned().unwrap_or_else(|| field.data_type().clone());
            Field::new(field.name(), data_type, true)
        })
        .collect();
    for (column, data_type) in overrides {
        if found.column_with_name(column).is_some() {
            continue;
        }
        if !open {
            let names = found.fields().iter().map(|field| field.name().as_str());
            return Err(Error::new(ErrorKind::Schema, format!("`schema:` declares `{column}`, which no file has"))
                .hint(one_of(column, names)));
        }
        fields.push(Field::new(column, data_type.clone(), true));
    }
    Ok(Schema::new(fields))
}

/// Only these columns, in this order.
///
/// # Errors
/// [`ErrorKind::Schema`] for a column that is not there.
pub(crate) fn only(schema: &Schema, columns: &[String]) -> Result<Schema> {
    let chosen = columns.iter().map(|column| {
        schema.field_with_name(column).cloned().map_err(|_| {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            Error::new(ErrorKind::Schema, format!("there is no column `{column}`")).hint(one_of(column, names))
        })
    });
    Ok(Schema::new(chosen.collect::<Result<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>()))
    }

    fn types(schema: &Schema) -> Vec<(String, DataType)> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    }

    #[test]
    fn evolve_adds_columns_and_widens_types() {
        let a = schema(&[("id", DataType::Int32), ("x", DataType::Int64), ("n", DataType::Null)]);
        let b = schema(&[
            ("x", DataType::Float64),
            ("id", DataType::Int64),
            ("n", DataType::Date32),
            ("new", DataType::Boolean),
        ]);
        let all = unify(&[("a", a), ("b", b)], SchemaContract::Evolve, false).unwrap();
        let expected =
            [("id", DataType::Int64), ("x", DataType::Float64), ("n", DataType::Date32), ("new", DataType::Boolean)];
        assert_eq!(types(&all), expected.map(|(name, t)| (name.to_owned(), t)));
    }

    #[test]
    fn only_text_formats_fall_back_on_text() {
        let files = || [("a", schema(&[("x", DataType::Int64)])), ("b", schema(&[("x", DataType::Utf8)]))];
        assert_eq!(unify(&files(), SchemaContract::Evolve, true).unwrap().field(0).data_type(), &DataType::Utf8);
        let error = unify(&files(), SchemaContract::Evolve, false).unwrap_err();
        assert_eq!(error.message(), "the column `x` is bigint in `a` but text in `b`, and no type holds both");
    }

    #[test]
    fn freeze_names_the_column_and_the_file() {
        let plain = schema(&[("x", DataType::Int64)]);
        for (other, says) in [
            (schema(&[("x", DataType::Float64)]), "the column `x` is bigint in `a` but double in `b`"),
            (schema(&[("x", DataType::Int64), ("y", DataType::Int64)]), "`b` has a column `y`, which `a` has not"),
            (schema(&[("y", DataType::Int64)]), "`b` has no column `x`, which `a` has"),
        ] {
            let error = unify(&[("a", plain.clone()), ("b", other)], SchemaContract::Freeze, true).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Schema, says));
        }
        let unknown = schema(&[("x", DataType::Null)]);
        assert!(unify(&[("a", plain), ("b", unknown)], SchemaContract::Freeze, true).is_ok());
    }

    #[test]
    fn integers_widen_without_losing_a_bit() {
        assert_eq!(join(&DataType::Int8, &DataType::UInt8, false), Some(DataType::Int16));
        assert_eq!(join(&DataType::UInt32, &DataType::Int8, false), Some(DataType::Int64));
        assert_eq!(join(&DataType::UInt64, &DataType::Int64, false), Some(DataType::Decimal128(20, 0)));
        assert_eq!(
            join(&DataType::Decimal128(10, 2), &DataType::Decimal128(5, 4), false),
            Some(DataType::Decimal128(12, 4))
        );
        assert_eq!(join(&DataType::Decimal128(10, 2), &DataType::Float64, false), None);
    }

    #[test]
    fn declared_types_win_and_unknown_ones_are_text() {
        let found = schema(&[("a", DataType::Null), ("b", DataType::Int64)]);
        let mut wanted = BTreeMap::from([("b".to_owned(), DataType::Utf8)]);
        let all = declared(&found, &wanted, false).unwrap();
        assert_eq!(types(&all), [("a".to_owned(), DataType::Utf8), ("b".to_owned(), DataType::Utf8)]);
        wanted.insert("bb".to_owned(), DataType::Utf8);
        assert_eq!(declared(&found, &wanted, false).unwrap_err().hint_text(), Some("did you mean `b`?"));
        assert_eq!(declared(&found, &wanted, true).unwrap().fields().len(), 3);
        assert_eq!(only(&found, &["z".to_owned()]).unwrap_err().hint_text(), Some("valid: `a`, `b`"));
    }
}
