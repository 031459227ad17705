//! `gristmill.yaml`: a project's name, connections, profiles and defaults.

use super::MaxRejects;
use crate::yaml::{Diagnostic, Node, decode};
use crate::{ByteSize, ConnectionName, Duration, PipelineName, one_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A project file, understood. Connections stay trees: only their connector knows what they may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectSpec {
    /// Its name.
    pub name: String,
    /// The pipeline that runs when none is named.
    pub main: Option<PipelineName>,
    /// Connections by name, the chosen profile laid over them. Values such as `${X}` are still as written.
    pub connections: BTreeMap<ConnectionName, Node>,
    /// The names of all profiles.
    pub profiles: Vec<String>,
    /// The chosen profile.
    pub profile: Option<String>,
    /// What steps get when they say nothing.
    pub defaults: Defaults,
    /// Values for `{{ var.x }}`.
    pub vars: BTreeMap<String, String>,
}

/// What steps and runs get when they say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// How often a step is tried again; 0 by default.
    pub retries: u32,
    /// How long to wait before the first retry; five minutes by default (Airflow: `retry_delay`).
    pub retry_delay: Duration,
    /// The longest one attempt of a step may take; no limit by default.
    pub timeout: Option<Duration>,
    /// How many rows of a step may be refused, `100` or `1%` of them, before the run fails; no limit by default.
    pub max_rejects: Option<MaxRejects>,
    /// Where dead letters are kept, by default in the state folder, and how long, by default for ever.
    pub dead_letters: Option<DeadLettersSpec>,
    /// How long targets remember loads, by default for ever.
    pub ledger: Option<LedgerSpec>,
    /// A limit on memory, e.g. `2GB`; by default a share of the machine.
    pub memory: Option<ByteSize>,
    /// How many partitions are worked on at once; by default the number of cores.
    pub parallelism: Option<usize>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            retries: 0,
            retry_delay: Duration(std::time::Duration::from_secs(300)),
            timeout: None,
            max_rejects: None,
            dead_letters: None,
            ledger: None,
            memory: None,
            parallelism: None,
        }
    }
}

/// Where dead letters are kept, and how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersSpec {
    /// A connection of type `files`: a folder, or an object store. By default the state folder.
    #[serde(default)]
    pub to: Option<ConnectionName>,
    /// The folder in it; `dead_letters/` by default. No two projects may share one.
    #[serde(default = "dead_letters_folder")]
    pub path: String,
    /// How long they are kept, e.g. `90d`: `gristmill recover` removes those of older runs, replayed or not. For ever by default.
    #[serde(default)]
    pub retention: Option<Duration>,
}

/// What targets remember of loads: the table `_gristmill_loads` of a database, the log below `_gristmill/` of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerSpec {
    /// How long, e.g. `400d`: the commit of a load drops entries of the same load that are older, but never its newest one nor the
    /// newest cursor. A day at least; for ever by default.
    pub retention: Option<Duration>,
}

impl LedgerSpec {
    /// The shortest time an entry is kept: a run that is still at work may ask for its own.
    pub const LEAST: Duration = Duration(std::time::Duration::from_hours(24));

    /// What is wrong with it, and what to do.
    fn mistake(self) -> Option<(String, &'static str)> {
        let short = self.retention.filter(|retention| *retention < Self::LEAST)?;
        let message = format!("a ledger cannot forget loads after {short}: a run that is at work may ask for its own");
        Some((message, "keep entries for `1d` or longer; better for longer than dates are run again"))
    }
}

fn dead_letters_folder() -> String {
    "dead_letters/".to_owned()
}

/// `gristmill.yaml`, as written.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "A Gristmill project")]
pub struct ProjectFile {
    /// The project's name.
    pub name: String,
    /// The pipeline that runs when none is named.
    #[serde(default)]
    pub main: Option<PipelineName>,
    /// Connections by name; each has a `type` and that type's keys.
    #[serde(default)]
    pub connections: BTreeMap<ConnectionName, serde_json::Value>,
    /// Profiles by name; each overrides connections.
    #[serde(default)]
    pub profiles: BTreeMap<String, ProfileFile>,
    /// What steps get when they say nothing.
    #[serde(default)]
    pub defaults: Defaults,
    /// Values for `{{ var.x }}`.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
}

/// A profile, as written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// Connections that take the place of those of the same name.
    #[serde(default)]
    pub connections: BTreeMap<ConnectionName, serde_json::Value>,
}

impl ProjectSpec {
    /// Understands a project file under a profile.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place; an unknown profile, with the one that was meant.
    pub fn from_node(node: &Node, profile: Option<&str>) -> Result<Self, Vec<Diagnostic>> {
        let file: ProjectFile = decode(node)?;
        let mut connections: BTreeMap<ConnectionName, Node> = BTreeMap::new();
        let mut add = |entries: &[crate::yaml::Entry]| {
            for entry in entries {
                if let Some(name) = entry.key.text() {
                    connections.insert(ConnectionName::from(name), entry.value.clone());
                }
            }
        };
        add(node.get("connections").map_or(&[], Node::entries));
        if let Some(profile) = profile {
            let profiles = node.get("profiles");
            let Some(chosen) = profiles.and_then(|profiles| profiles.get(profile)) else {
                let hint = one_of(profile, file.profiles.keys().map(String::as_str));
                let place = profiles.unwrap_or(node);
                return Err(vec![place.diagnostic(format!("the profile `{profile}` does not exist"), Some(hint))]);
            };
            // A connection of a profile replaces the whole one of the same name: two types have no keys in common.
            add(chosen.get("connections").map_or(&[], Node::entries));
        }
        let mut mistakes = Vec::new();
        if let Some((message, hint)) = file.defaults.ledger.and_then(LedgerSpec::mistake) {
            let at = node.get("defaults").and_then(|defaults| defaults.get("ledger")).unwrap_or(node);
            mistakes.push(at.diagnostic(message, Some(hint.to_owned())));
        }
        if let Some(to) = file.defaults.dead_letters.as_ref().and_then(|letters| letters.to.as_ref()) {
            let at = node.get("defaults").and_then(|defaults| defaults.get("dead_letters")).unwrap_or(node);
            match connections.get(to) {
                Some(connection) if connection.get("type").and_then(Node::text) == Some("files") => {}
                Some(_) => {
                    let message = format!("dead letters cannot be kept in `{to}`, which is not of type `files`");
                    mistakes.push(at.diagnostic(message, Some("name a folder or an object store".to_owned())));
                }
                None => {
                    let message = format!("the connection `{to}` does not exist");
                    let hint = one_of(to.as_str(), connections.keys().map(ConnectionName::as_str));
                    mistakes.push(at.diagnostic(message, Some(hint)));
                }
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            name: file.name,
            main: file.main,
            connections,
            profiles: file.profiles.into_keys().collect(),
            profile: profile.map(str::to_owned),
            defaults: file.defaults,
            vars: file.vars,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    const TEXT: &str = "name: sales\nconnections:\n  db: {type: sqlite, path: a.db}\nprofiles:\n  pg:\n    connections:\n      db: {type: postgres, url: \"${URL}\"}\n";

    #[test]
    fn a_profile_replaces_connections_of_the_same_name() {
        let node = parse("gristmill.yaml", TEXT).unwrap();
        let plain = ProjectSpec::from_node(&node, None).unwrap();
        assert_eq!(plain.connections["db"].get("type").and_then(Node::text), Some("sqlite"));
        let chosen = ProjectSpec::from_node(&node, Some("pg")).unwrap();
        assert_eq!(chosen.connections["db"].get("type").and_then(Node::text), Some("postgres"));
        assert!(chosen.connections["db"].get("path").is_none());
    }

    #[test]
    fn dead_letters_are_kept_in_a_connection_of_files() {
        let understood = |to: &str| {
            let text = format!("{TEXT}defaults: {{dead_letters: {{to: {to}}}}}\n").replacen(
                "  db:",
                "  lake: {type: files, url: ./lake}\n  db:",
                1,
            );
            ProjectSpec::from_node(&parse("gristmill.yaml", &text).unwrap(), None)
        };
        assert_eq!(understood("lake").unwrap().defaults.dead_letters.unwrap().path, "dead_letters/");
        assert!(understood("db").unwrap_err()[0].message.contains("not of type `files`"));
        let unknown = understood("lak").unwrap_err().remove(0);
        assert!(unknown.message.contains("`lak` does not exist") && unknown.hint.unwrap().contains("lake"));
    }

    #[test]
    fn an_unknown_profile_is_said_with_the_one_that_was_meant() {
        let node = parse("gristmill.yaml", TEXT).unwrap();
        let mistakes = ProjectSpec::from_node(&node, Some("pgg")).unwrap_err();
        assert_eq!(mistakes[0].hint.as_deref(), Some("did you mean `pg`?"));
    }
}
