//! The bytes of a value in the binary format as what they are, for columns that `schema:` gives another type.

use super::columns::{date, fixed, json, misshapen, time, timestamp};
use super::numeric::Numeric;
use super::types::Kind;
use crate::cells::Cell;
use crate::columns::Refusal;
use crate::declared::Cells;

impl Cells for Kind {
    fn with<T>(&self, bytes: &[u8], rule: impl FnOnce(&Cell<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let cell = match self {
            Self::Bool => match bytes {
                [flag] => Cell::Bool(*flag != 0),
                other => return Err(misshapen("boolean", other)),
            },
            Self::Int2 => Cell::Int(i16::from_be_bytes(fixed(bytes, "smallint")?).into()),
            Self::Int4 => Cell::Int(i32::from_be_bytes(fixed(bytes, "integer")?).into()),
            Self::Int8 => Cell::Int(i64::from_be_bytes(fixed(bytes, "bigint")?)),
            Self::Oid => Cell::UInt(u32::from_be_bytes(fixed(bytes, "oid")?).into()),
            Self::Float4 => Cell::Float(f32::from_be_bytes(fixed(bytes, "real")?)),
            Self::Float8 => Cell::Double(f64::from_be_bytes(fixed(bytes, "double precision")?)),
            Self::Text | Self::Bytea => Cell::Bytes(bytes),
            Self::Jsonb => Cell::Bytes(json(bytes)?),
            Self::Date => Cell::Day(date(bytes)?),
            Self::Timestamp | Self::TimestampTz => Cell::Micros(timestamp(bytes)?),
            Self::Time => {
                let micros = time(bytes)?;
                let (seconds, micros) = (micros / 1_000_000, (micros % 1_000_000) as u32);
                let part = |of: i64| of as u8;
                Cell::Time(false, 0, part(seconds / 3600), part(seconds / 60 % 60), part(seconds % 60), micros)
            }
            Self::Uuid => {
                let id = uuid::Uuid::from_bytes(fixed(bytes, "uuid")?);
                let mut buffer = uuid::Uuid::encode_buffer();
                return rule(&Cell::Bytes(id.hyphenated().encode_lower(&mut buffer).as_bytes()));
            }
            Self::Decimal(..) | Self::NumericText => {
                let mut text = String::new();
                Numeric::parse(bytes)?.write(&mut text)?;
                return rule(&Cell::Bytes(text.as_bytes()));
            }
            // Planning refuses them.
            Self::List(_) | Self::Declared(..) => return Err("not one value".to_owned()),
        };
        rule(&cell)
    }
}
