//! The dialect of a CSV file, checked.

use encoding_rs::Encoding;
use gristmill_model::spec::CsvOptions;
use gristmill_model::{Error, ErrorKind, Result};

/// A dialect whose characters are single bytes.
#[derive(Debug, Clone)]
pub(in crate::sources::files) struct Dialect {
    /// Between fields.
    pub(super) delimiter: u8,
    /// Around fields; `None` where no character is special.
    pub(super) quote: Option<u8>,
    /// Before any character inside quotes; a doubled quote is a quote all the same.
    pub(super) escape: Option<u8>,
    /// Whether the first record names the columns.
    pub(super) header: bool,
    /// Texts that mean NULL.
    pub(super) nulls: Vec<String>,
    /// What the bytes are decoded from, unless they are UTF-8.
    pub(in crate::sources::files) encoding: Option<&'static Encoding>,
    /// What a line begins with that is left out.
    pub(in crate::sources::files) comment: Option<u8>,
}

impl Dialect {
    /// Checks the options.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a character that is not one, an unknown encoding, characters in each other's way.
    pub(in crate::sources::files) fn new(options: &CsvOptions) -> Result<Self> {
        let delimiter = character("delimiter", options.delimiter.as_deref())?.unwrap_or(b',');
        let quote = match options.quote.as_deref() {
            None => Some(b'"'),
            Some(text) => character("quote", Some(text))?,
        };
        let escape = character("escape", options.escape.as_deref())?.filter(|escape| Some(*escape) != quote);
        let comment = character("comment", options.comment.as_deref())?;
        let encoding = match options.encoding.as_deref() {
            None => None,
            Some(label) => Some(Encoding::for_label(label.trim().as_bytes()).ok_or_else(|| {
                config(format!("the encoding `{label}` is unknown")).hint(gristmill_model::one_of(
                    label,
                    [
                        "utf-8",
                        "windows-1252",
                        "iso-8859-1",
                        "iso-8859-15",
                        "utf-16le",
                        "utf-16be",
                        "shift_jis",
                        "gbk",
                        "big5",
                        "euc-kr",
                    ],
                ))
            })?),
        };
        let special = [("delimiter", Some(delimiter)), ("quote", quote), ("escape", escape), ("comment", comment)];
        for (index, (name, byte)) in special.iter().enumerate() {
            if byte.is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                return Err(config(format!("the CSV {name} cannot be a line break")));
            }
            let twin = special[..index].iter().find(|(_, other)| other.is_some() && other == byte);
            if let Some((other, _)) = twin {
                return Err(config(format!("the CSV {name} and {other} cannot be the same character")));
            }
        }
        Ok(Self {
            delimiter,
            quote,
            escape,
            header: options.header.unwrap_or(true),
            nulls: options.null_text.as_ref().map_or_else(|| vec![String::new()], |texts| texts.0.clone()),
            encoding: encoding.filter(|encoding| *encoding != encoding_rs::UTF_8),
            comment,
        })
    }

    /// Whether the engine's reader has the same dialect: it knows neither encodings nor our comments, and always quotes.
    pub(in crate::sources::files) fn is_plain(&self) -> bool {
        self.encoding.is_none() && self.comment.is_none() && self.quote.is_some()
    }

    /// The quote.
    pub(in crate::sources::files) fn quote(&self) -> Option<u8> {
        self.quote
    }

    /// The quote and the escape character.
    pub(in crate::sources::files) fn quoting(&self) -> Option<(u8, Option<u8>)> {
        self.quote.map(|quote| (quote, self.escape))
    }

    /// The character between fields.
    pub(in crate::sources::files) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    pub(super) fn is_null(&self, text: &str) -> bool {
        self.nulls.iter().any(|null| null == text)
    }
}

/// The character between fields that a file's name stands for.
pub(crate) fn delimiter_by_name(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    match ending.to_ascii_lowercase().as_str() {
        "tsv" => Some("\t"),
        "tbl" | "psv" => Some("|"),
        _ => None,
    }
}

/// One ASCII character, also written `\t`; none for the empty text.
fn character(name: &str, text: Option<&str>) -> Result<Option<u8>> {
    let Some(text) = text else { return Ok(None) };
    match (text, text.as_bytes()) {
        ("\\t" | "tab", _) => Ok(Some(b'\t')),
        (_, []) if name != "delimiter" => Ok(None),
        (_, [byte]) if byte.is_ascii() => Ok(Some(*byte)),
        _ => Err(config(format!("the CSV {name} `{text}` is not one ASCII character"))
            .hint("write one character, e.g. `\";\"`, `\"|\"` or `\"\\t\"` for a tab")),
    }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}
