//! The YAML tree with positions.

use super::Diagnostic;
use crate::template::is_template;
use crate::{Result, TemplateContext, render_text};
use saphyr::{MarkedYaml, ScalarStyle, YamlData};
use saphyr_parser::Event;
use std::sync::Arc;

/// A YAML value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The file, relative to the project.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The value.
    pub value: Value,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing: `key:` or `key: null`.
    Null,
    /// A scalar, kept as it was written: its type is decided by whoever reads it.
    Scalar {
        /// The text.
        text: String,
        /// Written with quotes or as a block, so never a number or a boolean by itself.
        quoted: bool,
        /// Made by a template, so a number is welcome where one is expected.
        rendered: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// One key of a mapping and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key; a scalar.
    pub key: Node,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A mistake at this place.
    #[must_use]
    pub fn diagnostic(&self, message: impl Into<String>, hint: Option<String>) -> Diagnostic {
        Diagnostic { file: self.file.to_string(), line: self.line, column: self.column, message: message.into(), hint }
    }

    /// The value under `key`, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key.text() == Some(key)).map(|entry| &entry.value)
    }

    /// Whether a mistake is about this node or anything below it.
    #[must_use]
    pub fn holds(&self, mistake: &Diagnostic) -> bool {
        (self.line, self.column) == (mistake.line, mistake.column)
            || match &self.value {
                Value::Map(entries) => {
                    entries.iter().any(|entry| entry.key.holds(mistake) || entry.value.holds(mistake))
                }
                Value::List(items) => items.iter().any(|item| item.holds(mistake)),
                Value::Null | Value::Scalar { .. } => false,
            }
    }

    /// The entries of a mapping; none for anything else.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Takes the value under `key` out of a mapping.
    pub fn take(&mut self, key: &str) -> Option<Node> {
        match &mut self.value {
            Value::Map(entries) => {
                let position = entries.iter().position(|entry| entry.key.text() == Some(key))?;
                Some(entries.remove(position).value)
            }
            _ => None,
        }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Applies `change` to the text of every scalar value (never to a key); mistakes are collected with their places.
    pub fn map_scalars(
        &mut self,
        mistakes: &mut Vec<Diagnostic>,
        change: &mut dyn FnMut(&str) -> Result<Option<String>>,
    ) {
        let place = (self.file.clone(), self.line, self.column);
        match &mut self.value {
            Value::Null => {}
            Value::Scalar { text, rendered, .. } => match change(text) {
                Ok(Some(new)) => {
                    *text = new;
                    *rendered = true;
                }
                Ok(None) => {}
                Err(error) => mistakes.push(Diagnostic {
                    file: place.0.to_string(),
                    line: place.1,
                    column: place.2,
                    message: error.message().to_owned(),
                    hint: error.hint_text().map(str::to_owned),
                }),
            },
            Value::List(items) => items.iter_mut().for_each(|item| item.map_scalars(mistakes, change)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| entry.value.map_scalars(mistakes, change)),
        }
    }

    /// Renders the templates of every scalar.
    pub fn render(&mut self, context: &TemplateContext, mistakes: &mut Vec<Diagnostic>) {
        self.map_scalars(mistakes, &mut |text| {
            if is_template(text) { render_text(text, context).map(Some) } else { Ok(None) }
        });
    }
}

/// Reads one YAML document.
///
/// # Errors
/// The place where the text stops being YAML, a key given twice, a key that is not a scalar, or a second document.
pub fn parse(file: &str, text: &str) -> Result<Node, Vec<Diagnostic>> {
    let file: Arc<str> = file.into();
    let at = |line: usize, column: usize, message: String| {
        vec![Diagnostic { file: file.to_string(), line, column, message, hint: None }]
    };
    if let Some((line, column)) = too_deep(text) {
        return Err(at(line, column, format!("nested deeper than {MOST_NESTED} levels")));
    }
    let mut parser = saphyr_parser::Parser::new_from_str(text);
    let mut loader = saphyr::YamlLoader::<MarkedYaml<'_>>::default();
    // Scalars stay as they were written: `01`, `1e3` and `2024-01-01` must not change before their reader sees them.
    loader.early_parse(false);
    parser.load(&mut loader, true).map_err(|error| {
        at(error.marker().line(), error.marker().col() + 1, format!("not valid YAML: {}", error.info()))
    })?;
    if let Some(error) = loader.error() {
        // The only mistake the loader finds by itself is a key given twice, and it does not say which.
        let line = error.marker().line();
        let key =
            text.lines().nth(line.saturating_sub(1)).and_then(|line| line.trim().split(':').next()).unwrap_or_default();
        let message = match error.info() {
            "duplicated key in mapping" => format!("the key `{key}` is given twice"),
            other => format!("not valid YAML: {other}"),
        };
        return Err(at(line, error.marker().col() + 1, message));
    }
    let documents = loader.into_documents();
    match documents.as_slice() {
        [] => Ok(Node { file, line: 1, column: 1, value: Value::Map(Vec::new()) }),
        [document] => {
            let mut mistakes = Vec::new();
            let node = convert(document, &file, &mut mistakes);
            if mistakes.is_empty() { Ok(node) } else { Err(mistakes) }
        }
        [_, second, ..] => Err(at(second.span.start.line(), 1, "a second YAML document; a file holds one".to_owned())),
    }
}

/// Deeper nesting is a mistake: everything that follows a document does so by recursion, and the stack is only so large.
const MOST_NESTED: usize = 100;

/// Where a text is nested too deeply, if it is. What is no YAML is told of by whoever reads it.
fn too_deep(text: &str) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    for event in saphyr_parser::Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(found) => found,
            // The parser reads ahead, and has a limit of its own.
            Err(error) if error.info().contains("recursion limit") => {
                return Some((error.marker().line(), error.marker().col() + 1));
            }
            Err(_) => return None,
        };
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_NESTED {
            return Some((span.start.line(), span.start.col() + 1));
        }
    }
    None
}

fn convert(yaml: &MarkedYaml<'_>, file: &Arc<str>, mistakes: &mut Vec<Diagnostic>) -> Node {
    let (line, column) = (yaml.span.start.line(), yaml.span.start.col() + 1);
    let value = match &yaml.data {
        YamlData::Representation(text, style, _) => {
            let quoted = !matches!(style, ScalarStyle::Plain);
            if !quoted && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
                Value::Null
            } else {
                Value::Scalar { text: text.to_string(), quoted, rendered: false }
            }
        }
        YamlData::Sequence(items) => Value::List(items.iter().map(|item| convert(item, file, mistakes)).collect()),
        YamlData::Mapping(entries) => {
            let mut converted: Vec<Entry> = Vec::with_capacity(entries.len());
            for (written, value) in entries {
                let mut key = convert(written, file, mistakes);
                // As a key, `null` is a word like any other (`csv: {null: NA}`).
                if let (Value::Null, YamlData::Representation(text, ..)) = (&key.value, &written.data)
                    && text.eq_ignore_ascii_case("null")
                {
                    key.value = Value::Scalar { text: text.to_string(), quoted: false, rendered: false };
                }
                let value = convert(value, file, mistakes);
                match key.text() {
                    None => mistakes.push(key.diagnostic("a key must be a plain word", None)),
                    Some(_) => converted.push(Entry { key, value }),
                }
            }
            Value::Map(converted)
        }
        YamlData::Tagged(_, inner) => return convert(inner, file, mistakes),
        YamlData::Alias(_) | YamlData::Value(_) | YamlData::BadValue => {
            mistakes.push(Diagnostic {
                file: file.to_string(),
                line,
                column,
                message: "a value that cannot be read here (anchors and aliases are not supported)".to_owned(),
                hint: None,
            });
            Value::Null
        }
    };
    Node { file: file.clone(), line, column, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_their_text_and_their_place() {
        let node = parse("p.yaml", "a: 01\nb:\n  - \"5\"\n  - 2024-01-01\n").unwrap();
        assert_eq!(node.get("a").and_then(Node::text), Some("01"));
        let Value::List(items) = &node.get("b").unwrap().value else { panic!("a list") };
        assert_eq!((items[1].line, items[1].column, items[1].text()), (4, 5, Some("2024-01-01")));
        assert!(matches!(items[0].value, Value::Scalar { quoted: true, .. }));
    }

    #[test]
    fn null_is_a_word_where_a_key_stands() {
        let node = parse("p.yaml", "csv: {null: NA}\nx: null\n").unwrap();
        assert_eq!(node.get("csv").and_then(|csv| csv.get("null")).and_then(Node::text), Some("NA"));
        assert_eq!(node.get("x").map(|x| &x.value), Some(&Value::Null));
        assert!(parse("p.yaml", "~: 1\n").is_err());
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused_before_it_is_followed() {
        let nested = |levels: usize| format!("a: {}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse("p.yaml", &nested(MOST_NESTED - 1)).is_ok());
        for text in [nested(MOST_NESTED), nested(20_000), "- ".repeat(20_000), "[".repeat(20_000), "? ".repeat(20_000)]
        {
            let mistakes = parse("p.yaml", &text).unwrap_err();
            assert!(mistakes[0].message.contains("nested deeper than 100 levels"), "{mistakes:?}");
        }
    }

    #[test]
    fn a_key_given_twice_is_a_mistake_with_its_line() {
        let mistakes = parse("p.yaml", "a: 1\na: 2\n").unwrap_err();
        assert_eq!(mistakes[0].line, 2, "{mistakes:?}");
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_its_line() {
        let mistakes = parse("p.yaml", "a: [1,\nb: 2\n").unwrap_err();
        assert!(mistakes[0].message.starts_with("not valid YAML"), "{mistakes:?}");
    }
}
