//! Walking a text that is known to be JSON, value by value, without making a document of it: what stands there is kept byte
//! for byte, whatever it would become as a number.

use std::borrow::Cow;

/// Where a walk has come to. It never recurses, and stops in place on anything unexpected.
#[derive(Debug, Clone)]
pub(crate) struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The byte that comes next.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Steps over one byte.
    pub(crate) fn step(&mut self) {
        self.at += 1;
    }

    /// Steps over what separates values.
    pub(crate) fn space(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over one value and gives its text.
    pub(crate) fn value(&mut self) -> &'a [u8] {
        let start = self.at.min(self.text.len());
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

/// The text that a key or another text in quotes stands for; none where it is not one.
pub(crate) fn unquoted(quoted: &[u8]) -> Option<Cow<'_, str>> {
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(quoted).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}
