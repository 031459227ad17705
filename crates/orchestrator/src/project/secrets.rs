//! Putting secrets into connection values: `${VAR}`, `${VAR:-default}`, `${file:path}`.

use gristmill_model::yaml::{Diagnostic, Node};
use gristmill_model::{Error, ErrorKind, Result, did_you_mean};
use std::path::Path;

/// Where the value of a variable comes from.
pub(super) struct Variables<'a> {
    /// The real environment goes first, then `.env`.
    pub(super) get: &'a dyn Fn(&str) -> Option<String>,
    /// The names `.env` has, for "did you mean".
    pub(super) names: Vec<&'a str>,
    /// Secret files are relative to this folder.
    pub(super) root: &'a Path,
}

/// Puts secrets into every value of a connection; mistakes name places, variables and files, never a value.
pub(super) fn resolve(connection: &mut Node, variables: &Variables<'_>, mistakes: &mut Vec<Diagnostic>) {
    connection.map_scalars(mistakes, &mut |text| {
        if text.contains("${") { expand(text, variables).map(Some) } else { Ok(None) }
    });
}

fn expand(text: &str, variables: &Variables<'_>) -> Result<String> {
    let mut result = String::with_capacity(text.len());
    let mut missing: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            // `$${` stands for `${` itself.
            result.push_str(&rest[..start - 1]);
            result.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        result.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else {
            return Err(Error::new(ErrorKind::Config, "a `${` is never closed")
                .hint("write `${NAME}`; a literal `${` is written `$${`"));
        };
        let inside = &rest[start + 2..start + length];
        rest = &rest[start + length + 1..];
        if let Some(path) = inside.strip_prefix("file:") {
            result.push_str(&secret_file(path.trim(), variables.root)?);
            continue;
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let fine = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fine {
            return Err(Error::new(ErrorKind::Config, "a `${…}` that names neither a variable nor a file")
                .hint("write `${NAME}`, `${NAME:-default}` or `${file:path}`"));
        }
        // As in a shell, `:-` stands in for an empty value too.
        match ((variables.get)(name), default) {
            (Some(value), Some(default)) if value.is_empty() => result.push_str(default),
            (Some(value), _) => result.push_str(&value),
            (None, Some(default)) => result.push_str(default),
            (None, None) => missing.push(name),
        }
    }
    result.push_str(rest);
    match missing.as_slice() {
        [] => Ok(result),
        [name] => {
            let near = did_you_mean(name, variables.names.iter().copied());
            let near = near.map(|near| format!("; `.env` has `{near}`")).unwrap_or_default();
            Err(Error::new(ErrorKind::Config, format!("the variable `{name}` is not set"))
                .hint(format!("set it in the environment or in `.env`: `{name}=…`{near}")))
        }
        several => {
            let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
            Err(Error::new(ErrorKind::Config, format!("the variables {} are not set", names.join(" and ")))
                .hint("set them in the environment or in `.env`"))
        }
    }
}

/// What a secret file holds, without the newline at its end.
fn secret_file(path: &str, root: &Path) -> Result<String> {
    let full = root.join(path);
    match std::fs::read_to_string(&full) {
        Ok(text) => {
            Ok(text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned())
        }
        Err(error) => Err(Error::new(ErrorKind::Config, format!("the secret file `{path}` cannot be read"))
            .hint(format!("looked for `{}`: {error}", full.display()))),
    }
}
