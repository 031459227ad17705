//! `gristmill init`: a small project that works at once, with made-up orders to look at.

use crate::args::InitArgs;
use crate::exit::Outcome;
use crate::printer::Printer;
use gristmill_model::{Error, ErrorKind, Result};
use std::fs;
use std::path::Path;

/// The files of a new project, by path; `{name}` is the project's name.
const FILES: [(&str, &str); 5] = [
    ("gristmill.yaml", include_str!("../../templates/init/gristmill.yaml")),
    ("pipelines/orders.yaml", include_str!("../../templates/init/pipelines/orders.yaml")),
    ("pipelines/daily_totals.sql", include_str!("../../templates/init/pipelines/daily_totals.sql")),
    ("README.md", include_str!("../../templates/init/README.md")),
    (".gitignore", include_str!("../../templates/init/gitignore")),
];

/// Makes the project.
pub(crate) fn run(args: &InitArgs, printer: &Printer) -> Result<Outcome> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.dir)?,
    };
    let there: Vec<&str> = FILES.iter().map(|(path, _)| *path).filter(|path| args.dir.join(path).exists()).collect();
    if let Some(first) = there.first() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("`{}` is there already; nothing was written", args.dir.join(first).display()),
        )
        .hint("choose a folder without a project, e.g. `gristmill init my_project`"));
    }
    for (path, text) in FILES {
        write(&args.dir.join(path), &text.replace("{name}", &name))?;
    }
    let dir = args.dir.display();
    printer.line(format!("made the project `{name}` in {dir}"))?;
    for (path, _) in FILES {
        printer.line(format!("  {path}"))?;
    }
    printer.line("try it:")?;
    printer.line(format!("  gristmill run {} --date 2024-01-15", quoted(&dir.to_string())))?;
    printer.document(&serde_json::json!({
        "project": name,
        "dir": args.dir,
        "files": FILES.map(|(path, _)| path),
    }))?;
    Ok(Outcome::Done)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The folder's own name, made fit for a project.
fn name_of(dir: &Path) -> Result<String> {
    let whole = std::path::absolute(dir).map_err(|error| Error::io(&error, format!("`{}`", dir.display())))?;
    let name: String = whole
        .components()
        .next_back()
        .map(|last| last.as_os_str().to_string_lossy().to_lowercase())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if name.trim_matches('_').is_empty() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("cannot name a project after the folder `{}`", dir.display()),
        )
        .hint("give a name: `--name my_project`"));
    }
    Ok(name)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Error::io(&error, format!("`{}`", parent.display())))?;
    }
    fs::write(path, text).map_err(|error| Error::io(&error, format!("`{}`", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_folder_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("./shop-1"), "./shop-1");
        assert_eq!(quoted("we ird"), "'we ird'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
