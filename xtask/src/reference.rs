//! Reference pages, made from the command line and the registry themselves.

use clap::{Arg, Command};
use std::fmt::Write;

const NOTE: &str = "<!-- Made by `cargo xtask write`; change the code instead. -->\n";

/// `docs/reference/cli.md`.
pub(crate) fn command_line() -> String {
    let mut root = gristmill::command_line::command();
    root.build();
    let mut page = format!("{NOTE}\n# The command line\n\n{}\n", about(&root));
    if let Some(after) = root.get_after_help() {
        let _ = write!(page, "\n{}\n", lines_as_paragraphs(&after.to_string()));
    }
    page.push_str("\nEvery command takes:\n\n");
    options(&mut page, root.get_arguments().filter(|argument| argument.is_global_set()));
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        section(&mut page, command, "gristmill", 2);
    }
    page
}

fn section(page: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let heading = "#".repeat(level);
    let _ = write!(page, "\n{heading} {name}\n\n{}.\n", about(command));
    let mut subcommands = command.get_subcommands().filter(|command| command.get_name() != "help").peekable();
    if subcommands.peek().is_none() {
        let _ = write!(page, "\n```text\n{}\n```\n", usage(command, &name));
    }
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_global_set() && !argument.is_hide_set())
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        .collect();
    if !own.is_empty() {
        page.push('\n');
        options(page, own.into_iter());
    }
    if let Some(after) = command.get_after_help() {
        let _ = write!(page, "\n```text\n{}\n```\n", after.to_string().trim_end());
    }
    for subcommand in subcommands {
        section(page, subcommand, &name, level + 1);
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// `gristmill copy [OPTIONS] <SRC> <DST>`.
fn usage(command: &Command, name: &str) -> String {
    let mut usage = name.to_owned();
    if command.get_arguments().any(|argument| !argument.is_positional() && !argument.is_hide_set()) {
        usage.push_str(" [OPTIONS]");
    }
    for argument in command.get_positionals() {
        let value = value_name(argument);
        let _ = if argument.is_required_set() { write!(usage, " <{value}>") } else { write!(usage, " [{value}]") };
    }
    usage
}

fn value_name(argument: &Arg) -> String {
    argument
        .get_value_names()
        .and_then(<[_]>::first)
        .map_or_else(|| argument.get_id().as_str().to_uppercase(), ToString::to_string)
}

fn options<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments {
        let mut names: Vec<String> = Vec::new();
        if argument.is_positional() {
            names.push(value_name(argument));
        }
        names.extend(argument.get_short().map(|short| format!("-{short}")));
        names.extend(argument.get_long().map(|long| format!("--{long}")));
        let mut shown = names.join(", ");
        if !argument.is_positional() && argument.get_action().takes_values() {
            let _ = write!(shown, " {}", value_name(argument));
        }
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = write!(page, "- `{shown}`: {help}");
        let defaults: Vec<String> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        if !defaults.is_empty() && argument.get_action().takes_values() {
            let _ = write!(page, " (default `{}`)", defaults.join(","));
        }
        if let Some(variable) = argument.get_env() {
            let _ = write!(page, " (or `{}` in the environment)", variable.to_string_lossy());
        }
        let values = argument.get_possible_values();
        if !values.is_empty() && argument.get_action().takes_values() {
            let values: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
            let _ = write!(page, "; one of {}", values.join(", "));
        }
        page.push('\n');
    }
}

fn lines_as_paragraphs(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n\n")
}

/// `docs/reference/connectors.md`.
pub(crate) fn connectors() -> String {
    let mut page = format!(
        "{NOTE}\n# Connectors\n\nA connection in `gristmill.yaml` has a `type` and that type's keys. Values may name \
         environment variables: `${{WAREHOUSE_URL}}`.\n"
    );
    let common = gristmill::connect::registry::common_schema();
    let all = std::iter::once(("all", "Keys that every type takes", common)).chain(
        gristmill::connect::registry::connectors()
            .into_iter()
            .map(|connector| (connector.name, connector.about, (connector.schema)())),
    );
    for (name, about, schema) in all {
        let _ = write!(page, "\n## {name}\n\n{about}\n\n");
        let schema = schema.to_value();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|names| names.iter().filter_map(serde_json::Value::as_str).collect())
            .unwrap_or_default();
        let none = serde_json::Map::new();
        for (key, rule) in schema["properties"].as_object().unwrap_or(&none) {
            let about = rule["description"].as_str().unwrap_or_default().replace('\n', " ");
            let needed = if required.contains(&key.as_str()) { " (required)" } else { "" };
            let _ = writeln!(page, "- `{key}`{needed}: {about}");
        }
    }
    page
}

/// `docs/reference/generators.md`.
pub(crate) fn generators() -> String {
    let mut page = format!(
        "{NOTE}\n# Generators\n\nThe kinds of column that a `generate` step and `gristmill generate` make. Every column has a \
         `name` and a `kind`, and may have `nulls`, the share of rows without a value. The same seed makes the same rows.\n\n\
         | kind | type | keys | makes |\n|---|---|---|---|\n"
    );
    for kind in gristmill::connect::sources::generate::kinds() {
        let keys: Vec<String> = kind.takes.iter().map(|key| format!("`{key}`")).collect();
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", kind.name, kind.makes, keys.join(", "), kind.about);
    }
    page
}
