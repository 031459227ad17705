//! The commands that the documentation shows do what it shows.
//!
//! A block marked `console` is run: its lines `$ gristmill …` one after the other, all blocks of a page in one folder.
//! Below a command stands what it prints to standard output (standard error where it fails, with `[exit 1]` as the first
//! line); `…` stands for any lines. Times, sizes and ids are not compared. `UPDATE_GOLDEN=1` writes the answers into the
//! pages. A command in a block marked `sh` needs something that is not there, so only its words are looked at.

use crate::docs::{blocks, pages};
use crate::support::{Folder, repository};
use regex::Regex;
use std::path::Path;

/// What is left out of the comparison.
fn filtered(text: &str) -> String {
    let filters = [
        (r"[0-9a-f]{32}", "[RUN]"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "[NOW]"),
        (r"\b[\d.]+ (ms|s|min|h)\b", "[TIME]"),
        (r"\b[\d.,]+ (B|KB|MB|GB)\b", "[SIZE]"),
        // Which bad rows are met first depends on the number of cores as well.
        (r"e\.g\. -?[\d.]+( \(\w+=\d+\))?(, -?[\d.]+( \(\w+=\d+\))?)*", "e.g. [VALUES]"),
        // How many files depends on the number of cores.
        (r"\b\d+ (parquet|csv) files?\b", "[FILES]"),
        (r"\b\d+  *\[SIZE\]", "[FILES] [SIZE]"),
        (r"(?m) +$", ""),
        (r"  +", " "),
        // A view's time is shown only where it took some.
        (r"(?m) \[TIME\]$", ""),
    ];
    filters.iter().fold(text.to_owned(), |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, *with).into_owned()
    })
}

/// The words of a command line, with quotes taken as a shell does.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut quote = None;
    let mut fresh = true;
    for c in line.chars() {
        match (quote, c) {
            (None, '#') if fresh => break,
            (None, ' ') => fresh = true,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {
                if fresh {
                    words.push(String::new());
                    fresh = false;
                }
                words.last_mut().unwrap().push(c);
            }
        }
    }
    words
}

/// Whether an answer is the shown one, in which a line `…` stands for any lines.
fn is_as_shown(shown: &str, answer: &str) -> bool {
    let (shown, answer) = (filtered(shown), filtered(answer));
    match shown.split_once("…\n") {
        Some((begins, ends)) => answer.starts_with(begins) && answer.ends_with(ends),
        None => shown == answer,
    }
}

/// Runs the commands of a block; answers with the block as it should be, and whether it is.
fn run(folder: &Folder, block: &str) -> (String, bool) {
    let mut commands: Vec<(&str, String)> = Vec::new();
    assert!(block.starts_with("$ "), "a console block begins with a command: {block}");
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, String::new())),
            (None, Some((_, shown))) => *shown += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    let (mut is, mut fine) = (String::new(), true);
    for (command, shown) in commands {
        let words = words(command);
        assert_eq!(words[0], "gristmill", "{command}");
        let said = folder.run(&words[1..].iter().map(String::as_str).collect::<Vec<_>>());
        let answer = match said.code {
            Some(0) => said.out,
            code => format!(
                "[exit {}]\n{}",
                code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string()),
                said.err
            ),
        };
        let matches = is_as_shown(&shown, &answer);
        fine &= matches;
        is += &format!("$ {command}\n{}", if matches { &shown } else { &answer });
    }
    (is, fine)
}

#[test]
fn the_commands_of_the_documentation_answer_as_shown() {
    let mut found = vec![repository().join("README.md")];
    pages(&repository().join("docs"), &mut found);
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in found {
        let mut text = std::fs::read_to_string(&page).unwrap();
        let folder = Folder::new();
        for (line, block) in blocks(&text, "console") {
            seen += 1;
            let (is, fine) = run(&folder, &block);
            if !fine && update {
                text = text.replace(&format!("```console\n{block}```"), &format!("```console\n{is}```"));
            } else if !fine {
                wrong.push(format!("{}:{line}:\n{is}", page.display()));
            }
        }
        if update {
            std::fs::write(&page, text).unwrap();
        }
        wrong.extend(misspelt(&page));
    }
    assert!(seen >= 5, "only {seen} blocks were found");
    assert!(wrong.is_empty(), "{}\nif that is right: UPDATE_GOLDEN=1 cargo test -p gristmill", wrong.join("\n"));
}

/// Commands of `sh` blocks whose words the command line does not know.
fn misspelt(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut wrong = Vec::new();
    for (line, block) in blocks(&text, "sh") {
        for command in block.lines().filter(|line| line.starts_with("gristmill ")) {
            let mut words = words(command);
            words.push("--help".to_owned());
            let said = Folder::new().run(&words[1..].iter().map(String::as_str).collect::<Vec<_>>());
            if said.code != Some(0) {
                wrong.push(format!("{}:{line}: {command}: {said}", page.display()));
            }
        }
    }
    wrong
}

#[test]
fn quotes_hold_words_together() {
    assert_eq!(words("gristmill sql \"SELECT 'a b'\"  x # why"), ["gristmill", "sql", "SELECT 'a b'", "x"]);
}
