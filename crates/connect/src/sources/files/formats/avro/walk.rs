//! Walks the records of a block without decoding them: a block must hold its records and nothing else.

use serde_json::Value;
use std::collections::HashMap;

/// The deepest nesting of types.
const MAX_DEPTH: usize = 200;

/// The most columns, nested ones counted: a few types that refer to each other twice each can stand for any number.
const MAX_COLUMNS: usize = 1 << 18;

/// Values that take no bytes are counted, so that a few bytes cannot claim billions of them.
const MAX_EMPTY: u64 = 1 << 24;

/// A schema, as far as sizes go.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    root: usize,
}

#[derive(Debug, Clone)]
enum Type {
    /// So many bytes.
    Fixed(u64),
    /// A number of variable length.
    Number,
    /// A length and as many bytes.
    Bytes,
    Record(Vec<usize>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
}

impl Schema {
    /// # Errors
    /// A schema that is none, in words.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let json = serde_json::from_slice(text).map_err(|error| format!("its schema is not JSON: {error}"))?;
        let mut parser = Parser { types: Vec::new(), extents: Vec::new(), names: HashMap::new() };
        let root = parser.add(&json, "")?;
        Ok(Self { types: parser.types, root })
    }

    /// Checks that `block` is exactly `count` records.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn walk(&self, block: &[u8], count: u64) -> Result<(), String> {
        let mut walk = Walk { schema: self, rest: block, empty: 0 };
        for _ in 0..count {
            let before = walk.rest.len();
            walk.value(self.root, 0)?;
            if walk.rest.len() == before {
                return Err("its records take no bytes, so there is nothing to read".into());
            }
        }
        if walk.rest.is_empty() {
            Ok(())
        } else {
            Err(format!("a block of {count} records has {} bytes too many", walk.rest.len()))
        }
    }
}

struct Parser {
    types: Vec<Type>,
    /// Of each type, how deep it is and how many columns it stands for; `None` while it is being read.
    extents: Vec<Option<(usize, usize)>>,
    names: HashMap<String, usize>,
}

impl Parser {
    fn push(&mut self, kind: Type) -> Result<usize, String> {
        let at = self.types.len();
        self.types.push(Type::Number);
        self.extents.push(None);
        self.set(at, kind)?;
        Ok(at)
    }

    fn set(&mut self, at: usize, kind: Type) -> Result<(), String> {
        let parts: &[usize] = match &kind {
            Type::Record(parts) | Type::Union(parts) => parts,
            Type::Array(part) | Type::Map(part) => std::slice::from_ref(part),
            Type::Fixed(_) | Type::Number | Type::Bytes => &[],
        };
        let (mut depth, mut columns) = (0, usize::from(parts.is_empty()));
        for part in parts {
            let (deep, wide) =
                self.extents[*part].ok_or("a type of its schema contains itself, which no table can hold")?;
            depth = depth.max(deep + 1);
            columns = wide.saturating_add(columns);
        }
        if depth > MAX_DEPTH || columns > MAX_COLUMNS {
            return Err("its schema stands for more columns than can be read".into());
        }
        self.types[at] = kind;
        self.extents[at] = Some((depth, columns));
        Ok(())
    }

    fn add(&mut self, json: &Value, namespace: &str) -> Result<usize, String> {
        match json {
            Value::String(name) => self.named(name, namespace),
            Value::Array(variants) => {
                let variants = variants.iter().map(|variant| self.add(variant, namespace)).collect::<Result<_, _>>()?;
                self.push(Type::Union(variants))
            }
            Value::Object(_) => match &json["type"] {
                Value::String(kind) => self.complex(kind, json, namespace),
                inner @ (Value::Object(_) | Value::Array(_)) => self.add(inner, namespace),
                _ => Err("its schema has a type without a name".into()),
            },
            _ => Err("its schema has a type that is none".into()),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<usize, String> {
        let kind = match name {
            "null" => Type::Fixed(0),
            "boolean" => Type::Fixed(1),
            "float" => Type::Fixed(4),
            "double" => Type::Fixed(8),
            "int" | "long" => Type::Number,
            "bytes" | "string" => Type::Bytes,
            _ => {
                let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
                return known.copied().ok_or_else(|| format!("its schema has the unknown type `{name}`"));
            }
        };
        self.push(kind)
    }

    fn complex(&mut self, kind: &str, json: &Value, namespace: &str) -> Result<usize, String> {
        match kind {
            "array" => {
                let items = self.add(&json["items"], namespace)?;
                self.push(Type::Array(items))
            }
            "map" => {
                let values = self.add(&json["values"], namespace)?;
                self.push(Type::Map(values))
            }
            "enum" => {
                let at = self.push(Type::Number)?;
                self.name(json, namespace, at);
                Ok(at)
            }
            "fixed" => {
                let size = json["size"].as_u64().ok_or("its schema has a fixed type without a size")?;
                let at = self.push(Type::Fixed(size))?;
                self.name(json, namespace, at);
                Ok(at)
            }
            "record" | "error" => {
                // Named before its fields are read: they may refer to it.
                let at = self.push(Type::Record(Vec::new()))?;
                self.extents[at] = None;
                let namespace = self.name(json, namespace, at);
                let fields = json["fields"].as_array().ok_or("its schema has a record without fields")?;
                let fields =
                    fields.iter().map(|field| self.add(&field["type"], &namespace)).collect::<Result<_, _>>()?;
                self.set(at, Type::Record(fields))?;
                Ok(at)
            }
            other => self.named(other, namespace),
        }
    }

    /// Notes a named type; the namespace inside it.
    fn name(&mut self, json: &Value, namespace: &str, at: usize) -> String {
        let namespace = json["namespace"].as_str().unwrap_or(namespace);
        let full = full_name(json["name"].as_str().unwrap_or_default(), namespace);
        let inside = full.rsplit_once('.').map_or_else(String::new, |(namespace, _)| namespace.to_owned());
        self.names.insert(full, at);
        inside
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

struct Walk<'a> {
    schema: &'a Schema,
    rest: &'a [u8],
    empty: u64,
}

impl Walk<'_> {
    fn value(&mut self, at: usize, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("its records are nested deeper than {MAX_DEPTH} levels"));
        }
        let schema = self.schema;
        match &schema.types[at] {
            Type::Fixed(size) => self.skip(*size),
            Type::Number => self.number().map(drop),
            Type::Bytes => {
                let length = self.number()?;
                self.skip(u64::try_from(length).map_err(|_| "a text of negative length")?)
            }
            Type::Record(fields) => fields.iter().try_for_each(|field| self.value(*field, depth + 1)),
            Type::Union(variants) => {
                let variant = usize::try_from(self.number()?).ok().and_then(|at| variants.get(at));
                self.value(*variant.ok_or("a value of a variant that its union does not have")?, depth + 1)
            }
            Type::Array(items) => self.items(*items, false, depth),
            Type::Map(values) => self.items(*values, true, depth),
        }
    }

    fn items(&mut self, at: usize, keys: bool, depth: usize) -> Result<(), String> {
        loop {
            let count = self.number()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The size in bytes, for those who skip.
                self.number()?;
            }
            for _ in 0..count.unsigned_abs() {
                let before = self.rest.len();
                if keys {
                    let length = self.number()?;
                    self.skip(u64::try_from(length).map_err(|_| "a key of negative length")?)?;
                }
                self.value(at, depth + 1)?;
                if self.rest.len() == before {
                    // They are all alike.
                    self.empty = self.empty.saturating_add(count.unsigned_abs());
                    if self.empty > MAX_EMPTY {
                        return Err("it claims more empty values than can be read".into());
                    }
                    break;
                }
            }
        }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), String> {
        let rest = usize::try_from(bytes).ok().and_then(|bytes| self.rest.get(bytes..));
        self.rest = rest.ok_or("a block ends in the middle of a record")?;
        Ok(())
    }

    fn number(&mut self) -> Result<i64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or("a block ends in the middle of a record")?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(((value >> 1) as i64) ^ -((value & 1) as i64));
            }
        }
        Err("a number of more than ten bytes".into())
    }
}
