//! Texts with fields of a parent in them.

use super::path::JsonPath;
use super::raw::Scalar;
use super::request::Fields;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is in a value that becomes a part of a path (RFC 3986: unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text with fields of a parent in it: `orders/{id}/items`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    /// Braces with a place in JSON between them, without spaces, are fields; all others are what they are.
    ///
    /// # Errors
    /// A field that is no place in JSON.
    pub(super) fn parse(text: &str, filled: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('{').filter(|_| filled) {
            let (before, after) = rest.split_at(start);
            plain.push_str(before);
            let end = after.find('}');
            let inner = end.map_or("", |end| &after[1..end]);
            let is_field = !inner.is_empty()
                && inner.chars().all(|char| char.is_alphanumeric() || "_-.[]'\"$".contains(char))
                && !inner.starts_with('-');
            if let (Some(end), true) = (end, is_field) {
                JsonPath::parse(inner)?;
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Field(inner.to_owned()));
                rest = &after[end + 1..];
            } else {
                plain.push('{');
                rest = &after[1..];
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The field that is all of it.
    pub(super) fn field(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Field(field)] => Some(field),
            _ => None,
        }
    }

    /// The text; `encoded` where fields become parts of a path.
    pub(super) fn fill(&self, fields: &Fields, encoded: bool) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Field(field) => {
                    let value = fields.get(field).map(Scalar::plain).unwrap_or_default();
                    if encoded {
                        // A dot alone would be a folder.
                        let value = utf8_percent_encode(&value, UNRESERVED).to_string();
                        text.push_str(&if matches!(value.as_str(), "." | "..") {
                            value.replace('.', "%2E")
                        } else {
                            value
                        });
                    } else {
                        text.push_str(&value);
                    }
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_braces_around_a_place_and_nothing_else() {
        let fields = |text: &str| Template::parse(text, true).unwrap().fields().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(fields("orders/{id}/items/{meta.no}"), ["id", "meta.no"]);
        assert_eq!(fields("query { orders(first: 10) { id } }"), Vec::<String>::new());
        assert_eq!(fields("{{id}"), ["id"]);
        assert_eq!(fields("{}{"), Vec::<String>::new());
        assert!(Template::parse("{a..b}", true).is_err());
        assert_eq!(Template::parse("{id}", false).unwrap().fields().count(), 0);
    }

    #[test]
    fn a_field_is_encoded_in_a_path() {
        let text = |text: &str| Scalar::Text(text.to_owned());
        let fields = Fields::from([
            ("id".to_owned(), text("a/../b c")),
            ("n".to_owned(), Scalar::Number("12345678901234567890123".to_owned())),
            ("d".to_owned(), text("..")),
        ]);
        let template = Template::parse("x/{id}/{n}/{d}", true).unwrap();
        assert_eq!(template.fill(&fields, true), "x/a%2F..%2Fb%20c/12345678901234567890123/%2E%2E");
        assert_eq!(template.fill(&fields, false), "x/a/../b c/12345678901234567890123/..");
    }
}
