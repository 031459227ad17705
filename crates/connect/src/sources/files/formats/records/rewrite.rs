//! Nested values where a text is asked for become a text: their own JSON, byte for byte.

use super::shape::Shape;
use std::borrow::Cow;

/// Copies a record that [`Shape::check`] has passed, with nested values quoted where `shape` asks for a text.
pub(super) fn nested_as_text(record: &[u8], shape: &Shape, out: &mut Vec<u8>) {
    Rewriter { text: record, at: 0 }.value(Some(shape), out);
}

/// Walks valid JSON. It recurses no deeper than the schema, and stops in place on anything unexpected.
struct Rewriter<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Rewriter<'a> {
    fn value(&mut self, shape: Option<&Shape>, out: &mut Vec<u8>) {
        self.space();
        match (self.peek(), shape) {
            (Some(b'{' | b'['), Some(Shape::Text)) => quote(self.skip(), out),
            (Some(b'{'), Some(Shape::Object(object))) => self.object(out, |key| object.get(key)),
            (Some(b'{'), Some(Shape::Map(inner))) => self.object(out, |_| Some(inner)),
            (Some(b'['), Some(Shape::List(inner))) => {
                out.push(b'[');
                self.at += 1;
                self.space();
                while self.peek().is_some_and(|byte| byte != b']') {
                    self.value(Some(inner), out);
                    self.separator(out);
                }
                out.push(b']');
                self.at += 1;
            }
            _ => out.extend_from_slice(self.skip()),
        }
    }

    fn object<'s>(&mut self, out: &mut Vec<u8>, shape_of: impl Fn(&str) -> Option<&'s Shape>) {
        out.push(b'{');
        self.at += 1;
        self.space();
        while self.peek().is_some_and(|byte| byte != b'}') {
            let key = self.skip();
            out.extend_from_slice(key);
            self.space();
            out.push(b':');
            self.at += 1;
            let shape = unquote(key).and_then(|key| shape_of(&key));
            self.value(shape, out);
            self.separator(out);
        }
        out.push(b'}');
        self.at += 1;
    }

    fn separator(&mut self, out: &mut Vec<u8>) {
        self.space();
        if self.peek() == Some(b',') {
            out.push(b',');
            self.at += 1;
            self.space();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over one value and gives its text.
    fn skip(&mut self) -> &'a [u8] {
        let start = self.at;
        let mut depth = 0_usize;
        let mut quoted = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' if quoted => self.at += 1,
                b'"' => {
                    quoted = !quoted;
                    if !quoted && depth == 0 {
                        self.at += 1;
                        break;
                    }
                }
                _ if quoted => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        break;
                    }
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.text.len());
        // Progress even where there is nothing to step over.
        if self.at == start {
            self.at = (start + 1).min(self.text.len());
        }
        &self.text[start..self.at]
    }
}

fn unquote(key: &[u8]) -> Option<Cow<'_, str>> {
    let inner = key.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(key).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

fn quote(json: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(json);
    // Writing a text into memory cannot fail.
    out.extend_from_slice(serde_json::Value::String(text.into_owned()).to_string().as_bytes());
}
