//! Decoding a [`Node`] into a serde type, with every mistake at once.
//!
//! serde stops at the first mistake. So each one is noted, the part that caused it is cut out of a copy of the tree,
//! and the rest is decoded again, until nothing is left to complain about. What is decoded in the end is handed back
//! too, so that whoever asked can go on looking for mistakes of meaning in what can be read.

use super::{Diagnostic, Entry, Node, Value};
use crate::suggest::one_of;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// More mistakes than this are not worth a reader's time.
const MOST: usize = 50;

/// Decodes a tree.
///
/// # Errors
/// Every mistake found, each with its place; unknown keys with the one that was meant.
pub fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Diagnostic>> {
    match decode_partly(node) {
        (Some(value), mistakes) if mistakes.is_empty() => Ok(value),
        (_, mistakes) => Err(mistakes),
    }
}

/// Decodes what can be decoded of a tree: the value without its wrong parts, unless they were needed, and every mistake.
pub fn decode_partly<T: DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Diagnostic>) {
    let mut node = node.clone();
    let mut mistakes: Vec<Diagnostic> = Vec::new();
    let mut is_cut = false;
    let value = loop {
        match T::deserialize(De { node: &node }) {
            Ok(value) => break Some(value),
            Err(mistake) => {
                let place = mistake.place.unwrap_or(Place::of(&node));
                let diagnostic = mistake.diagnostic(&node, place);
                // Cutting a wrong part out can make something go missing; that is not the user's mistake.
                let is_caused = is_cut && mistake.is_absence;
                if !is_caused && !mistakes.contains(&diagnostic) {
                    mistakes.push(diagnostic);
                }
                if mistakes.len() >= MOST || cut(&mut node, place) != Cut::Done {
                    break None;
                }
                is_cut = true;
            }
        }
    };
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    (value, mistakes)
}

/// Where a mistake is. A mapping begins where its first key does, so the place alone does not tell which of them is
/// meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    /// A mapping or a list as a whole, not a key or a scalar.
    whole: bool,
}

impl Place {
    fn of(node: &Node) -> Self {
        Self { line: node.line, column: node.column, whole: matches!(node.value, Value::Map(_) | Value::List(_)) }
    }
}

/// What cutting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The place is not here.
    Nothing,
    /// This very node is wrong, or nothing is left of it: whoever holds it takes it out.
    This,
    /// It is done.
    Done,
}

/// Takes the node, entry or item at `place` out; [`Cut::This`] when that is the node itself.
fn cut(node: &mut Node, place: Place) -> Cut {
    if Place::of(node) == place {
        return Cut::This;
    }
    let mut found = Cut::Nothing;
    let left = match &mut node.value {
        Value::Map(entries) => {
            let position = entries.iter_mut().position(|entry| {
                found = cut(&mut entry.value, place);
                if found == Cut::Nothing && Place::of(&entry.key) == place {
                    found = Cut::This;
                }
                found != Cut::Nothing
            });
            if let (Some(position), Cut::This) = (position, found) {
                entries.remove(position);
            }
            entries.len()
        }
        Value::List(items) => {
            let position = items.iter_mut().position(|item| {
                found = cut(item, place);
                found != Cut::Nothing
            });
            if let (Some(position), Cut::This) = (position, found) {
                items.remove(position);
            }
            items.len()
        }
        Value::Null | Value::Scalar { .. } => return Cut::Nothing,
    };
    match found {
        Cut::This if left > 0 => Cut::Done,
        other => other,
    }
}

/// A serde error that knows where it happened.
#[derive(Debug, Default)]
struct Mistake {
    message: String,
    hint: Option<String>,
    place: Option<Place>,
    /// Something that should be there is not.
    is_absence: bool,
}

impl Mistake {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    fn hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    fn at(mut self, node: &Node) -> Self {
        self.place.get_or_insert(Place::of(node));
        self
    }

    fn diagnostic(&self, node: &Node, place: Place) -> Diagnostic {
        Diagnostic {
            file: node.file.to_string(),
            line: place.line,
            column: place.column,
            message: self.message.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let text = message.to_string();
        match text.split_once("\n  hint: ") {
            Some((message, hint)) => Self::new(message).hint(Some(hint.to_owned())),
            None => Self::new(text),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{field}`")).hint(Some(one_of(field, expected.iter().copied())))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value `{variant}`")).hint(Some(one_of(variant, expected.iter().copied())))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            is_absence: true,
            hint: Some(format!("add `{field}: …`")),
            ..Self::new(format!("the key `{field}` is missing"))
        }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is given twice"))
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            de::Unexpected::Map => "a mapping".to_owned(),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
            de::Unexpected::Str(text) => format!("`{text}`"),
            other => other.to_string(),
        };
        let expected = expected.to_string();
        let expected = if expected.starts_with("struct ") { "a mapping".to_owned() } else { expected };
        Self::new(format!("expected {expected}, found {found}"))
    }
}

struct De<'a> {
    node: &'a Node,
}

impl De<'_> {
    fn scalar(&self, expected: &str) -> Result<&str, Mistake> {
        self.node
            .text()
            .ok_or_else(|| Mistake::new(format!("expected {expected}, found {}", self.node.what())).at(self.node))
    }

    fn number<N: std::str::FromStr>(&self, expected: &str) -> Result<N, Mistake> {
        let text = self.scalar(expected)?;
        text.replace('_', "")
            .parse()
            .map_err(|_| Mistake::new(format!("expected {expected}, found `{text}`")).at(self.node))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            let number: $type = self.number($expected)?;
            visitor.$visit(number).map_err(|mistake: Mistake| mistake.at(self.node))
        })*
    };
}

impl<'de> de::Deserializer<'de> for De<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let node = self.node;
        match &node.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { text, quoted, rendered } => {
                if *quoted && !*rendered {
                    visitor.visit_str(text)
                } else if let Ok(boolean) = text.parse::<bool>() {
                    visitor.visit_bool(boolean)
                } else if let Ok(number) = text.parse::<i64>() {
                    // A leading zero is a code, not a number: `01` stays text.
                    if text.len() > 1 && text.trim_start_matches(['-', '+']).starts_with('0') {
                        visitor.visit_str(text)
                    } else {
                        visitor.visit_i64(number)
                    }
                } else if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
                    && let Ok(number) = text.parse::<f64>()
                {
                    visitor.visit_f64(number)
                } else {
                    visitor.visit_str(text)
                }
            }
            Value::List(items) => visitor.visit_seq(Items { items: items.iter() }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), current: None }),
        }
        .map_err(|mistake| mistake.at(node))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let value = match self.scalar("`true` or `false`")? {
            "true" | "yes" | "on" | "True" | "TRUE" => true,
            "false" | "no" | "off" | "False" | "FALSE" => false,
            other => {
                let message = format!("expected `true` or `false`, found `{other}`");
                return Err(Mistake::new(message).at(self.node));
            }
        };
        visitor.visit_bool(value)
    }

    numbers! {
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number that is not negative";
        deserialize_u16 visit_u16 u16, "a whole number that is not negative";
        deserialize_u32 visit_u32 u32, "a whole number that is not negative";
        deserialize_u64 visit_u64 u64, "a whole number that is not negative";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let text = self.scalar("one character")?;
        visitor.visit_str(text).map_err(|mistake: Mistake| mistake.at(self.node))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let text = self.scalar("a text")?;
        visitor.visit_str(text).map_err(|mistake: Mistake| mistake.at(self.node))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let node = self.node;
        match &node.value {
            Value::Scalar { text, .. } => {
                let deserializer: de::value::StrDeserializer<'_, Mistake> = text.as_str().into_deserializer();
                visitor.visit_enum(deserializer)
            }
            Value::Map(entries) if entries.len() == 1 => visitor.visit_enum(Tagged { entry: &entries[0] }),
            Value::Map(entries) => {
                // The first key names the variant; what follows belongs a level deeper.
                let hint = match entries.get(1) {
                    Some(extra) => Some(format!(
                        "write the options inside: `{{{}: {{…, {}: …}}}}`",
                        entries[0].key.text().unwrap_or_default(),
                        extra.key.text().unwrap_or_default()
                    )),
                    None => Some(one_of("", variants.iter().copied())),
                };
                Err(Mistake { is_absence: entries.is_empty(), ..Mistake::new("expected exactly one key here") }
                    .hint(hint))
            }
            _ => Err(Mistake::new(format!("expected one of the known words, found {}", node.what()))
                .hint(Some(one_of("", variants.iter().copied())))),
        }
        .map_err(|mistake| mistake.at(node))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let node = self.node;
        match &node.value {
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), current: None }),
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), current: None }),
            _ => Err(Mistake::new(format!("expected a mapping, found {}", node.what()))),
        }
        .map_err(|mistake| mistake.at(node))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let node = self.node;
        match &node.value {
            Value::List(items) => visitor.visit_seq(Items { items: items.iter() }),
            Value::Null => visitor.visit_seq(Items { items: [].iter() }),
            _ => Err(Mistake::new(format!("expected a list, found {}", node.what()))),
        }
        .map_err(|mistake| mistake.at(node))
    }

    serde::forward_to_deserialize_any! { bytes byte_buf unit unit_struct tuple tuple_struct ignored_any }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        self.items.next().map(|node| seed.deserialize(De { node }).map_err(|mistake| mistake.at(node))).transpose()
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        self.current = self.entries.next();
        self.current
            .map(|entry| seed.deserialize(De { node: &entry.key }).map_err(|mistake| mistake.at(&entry.key)))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let entry = self.current.ok_or_else(|| de::Error::custom("a value without a key"))?;
        seed.deserialize(De { node: &entry.value }).map_err(|mistake| mistake.at(&entry.value))
    }
}

struct Tagged<'a> {
    entry: &'a Entry,
}

impl<'de, 'a> de::EnumAccess<'de> for Tagged<'a> {
    type Error = Mistake;
    type Variant = De<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, De<'a>), Mistake> {
        let variant = seed.deserialize(De { node: &self.entry.key }).map_err(|mistake| mistake.at(&self.entry.key))?;
        Ok((variant, De { node: &self.entry.value }))
    }
}

impl<'de> de::VariantAccess<'de> for De<'_> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        match self.node.value {
            Value::Null => Ok(()),
            _ => Err(Mistake::new("this word takes no value").at(self.node)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mistake> {
        let node = self.node;
        seed.deserialize(self).map_err(|mistake| mistake.at(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mistake> {
        de::Deserializer::deserialize_seq(self, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        de::Deserializer::deserialize_map(self, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Load {
        table: String,
        #[serde(default)]
        rows: u32,
        #[serde(default)]
        strategy: Option<Strategy>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Strategy {
        Append,
        Replace,
    }

    #[test]
    fn all_mistakes_come_at_once_each_with_its_line() {
        let node = parse("p.yaml", "table: t\nrow: 5\nrows: many\nstrategy: appendd\n").unwrap();
        let mistakes = decode::<Load>(&node).unwrap_err();
        let seen: Vec<(usize, &str)> =
            mistakes.iter().map(|mistake| (mistake.line, mistake.message.as_str())).collect();
        assert_eq!(
            seen,
            [
                (2, "unknown key `row`"),
                (3, "expected a whole number that is not negative, found `many`"),
                (4, "unknown value `appendd`")
            ]
        );
        assert_eq!(mistakes[0].hint.as_deref(), Some("did you mean `rows`?"));
    }

    #[test]
    fn a_plain_scalar_is_read_as_what_is_expected() {
        let node = parse("p.yaml", "table: 2024\nrows: 1_000\n").unwrap();
        assert_eq!(decode::<Load>(&node).unwrap(), Load { table: "2024".to_owned(), rows: 1000, strategy: None });
    }

    #[test]
    fn what_is_right_is_handed_back_beside_the_mistakes() {
        let node = parse("p.yaml", "table: t\nrow: 5\nstrategy: appendd\n").unwrap();
        let (value, mistakes) = decode_partly::<Load>(&node);
        assert_eq!(value, Some(Load { table: "t".to_owned(), rows: 0, strategy: None }));
        assert_eq!(mistakes.len(), 2);
        let (value, mistakes) = decode_partly::<Load>(&parse("p.yaml", "table: [t]\nrows: 1\n").unwrap());
        assert_eq!((value, mistakes.len()), (None, 1), "what is cut out is not called missing");
    }

    #[test]
    fn a_wrong_mapping_is_one_mistake_however_many_keys_it_has() {
        let node = parse("p.yaml", "table: t\nrows: {a: 1, b: 2}\nstrategy: {replce: {}, b: 2}\n").unwrap();
        let lines: Vec<usize> = decode::<Load>(&node).unwrap_err().iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [2, 3]);
    }

    #[test]
    fn a_wrong_word_in_a_list_is_said_once_and_hides_nothing() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(rename_all = "snake_case")]
        enum Step {
            Wait(u32),
        }
        let node = parse("p.yaml", "- waitt: 1\n- wait: 2\n- wait: x\n").unwrap();
        let (value, mistakes) = decode_partly::<Vec<Step>>(&node);
        assert_eq!(value, Some(vec![Step::Wait(2)]));
        let seen: Vec<(usize, &str)> =
            mistakes.iter().map(|mistake| (mistake.line, mistake.message.as_str())).collect();
        assert_eq!(
            seen,
            [(1, "unknown value `waitt`"), (3, "expected a whole number that is not negative, found `x`")]
        );
    }

    #[test]
    fn a_missing_key_is_named_once() {
        let node = parse("p.yaml", "rows: 1\n").unwrap();
        let mistakes = decode::<Load>(&node).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert_eq!(mistakes[0].message, "the key `table` is missing");
    }
}
