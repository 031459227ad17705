//! Which loads may be staged before those they come `after` are committed: a load that nothing of what it reads could see
//! the rows of.
//!
//! Two connections are taken for one place unless they are certainly two. A wrong "one" only commits the one load
//! before the other begins; a wrong "two" would have a load read what was there before.

use gristmill_model::ConnectionName;
use gristmill_model::spec::LoadSpec;
use gristmill_model::yaml::Node;
use std::collections::{BTreeMap, BTreeSet};

/// Which connections may lead to one place.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// Both ways round; a connection and itself is not noted.
    same: BTreeSet<(ConnectionName, ConnectionName)>,
}

impl Places {
    pub(super) fn of(connections: &BTreeMap<ConnectionName, Node>) -> Self {
        let mut same = BTreeSet::new();
        for (one, of_one) in connections {
            for (other, of_other) in connections {
                if one != other && may_be_one(of_one, of_other) {
                    same.insert((one.clone(), other.clone()));
                }
            }
        }
        Self { same }
    }

    pub(super) fn may_be_one(&self, one: &ConnectionName, other: &ConnectionName) -> bool {
        one == other || self.same.contains(&(one.clone(), other.clone()))
    }
}

/// What a load writes to.
#[derive(Debug, Clone)]
pub(super) struct Writes {
    to: ConnectionName,
    table: Option<String>,
    path: Option<String>,
    /// SQL of its own, which may change anything in its target.
    hooks: bool,
}

impl Writes {
    pub(super) fn of(load: &LoadSpec) -> Self {
        let hooks = !load.pre_sql.0.is_empty() || !load.post_sql.0.is_empty();
        Self { to: load.to.clone(), table: load.table.clone(), path: load.path.clone(), hooks }
    }

    /// Whether a load to `other` that reads from `sources` can be staged as long as this one is not committed.
    pub(super) fn is_unseen<'a>(
        &self,
        other: &Self,
        mut sources: impl Iterator<Item = &'a ConnectionName>,
        places: &Places,
    ) -> bool {
        // Two loads of one table or folder come one after the other altogether.
        let into_one = places.may_be_one(&self.to, &other.to)
            && match (&self.table, &other.table, &self.path, &other.path) {
                (Some(one), Some(other), ..) => bare(one) == bare(other),
                (_, _, Some(one), Some(two)) if self.to == other.to => lie_in_each_other(one, two),
                _ => true,
            };
        !self.hooks && !into_one && sources.all(|source| !places.may_be_one(source, &self.to))
    }
}

/// The name of a table without its schema, as a database that ignores case compares it.
fn bare(table: &str) -> String {
    let last = table.rsplit('.').next().unwrap_or(table);
    last.trim_matches(['"', '`']).to_lowercase()
}

/// Whether one of two paths of a connection may be in the other.
fn lie_in_each_other(one: &str, other: &str) -> bool {
    let parts = |path: &str| -> Vec<String> {
        path.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
    };
    let (one, other) = (parts(one), parts(other));
    let goes_up = |path: &[String]| path.iter().any(|part| part == "..");
    goes_up(&one) || goes_up(&other) || one.iter().zip(&other).all(|(one, other)| one == other)
}

/// Whether two connections may lead to the same place.
fn may_be_one(one: &Node, other: &Node) -> bool {
    let text = |node: &Node, key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    // Another name for the same.
    let kind = |node: &Node| text(node, "type").map(|kind| if kind == "mariadb" { "mysql".to_owned() } else { kind });
    if kind(one) != kind(other) {
        return false;
    }
    match (Spot::of(one), Spot::of(other)) {
        (Some(one), Some(other)) => {
            let both = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
            one.scheme == other.scheme && (both(&one.host, &other.host) || both(&one.name, &other.name))
        }
        _ => true,
    }
}

/// Where a connection leads, as far as its words tell. What they do not tell is none, which may be anything.
struct Spot {
    scheme: Option<String>,
    /// With the port. A bucket, where it is a URL of a store.
    host: Option<String>,
    /// The database, or the last part of a path.
    name: Option<String>,
}

impl Spot {
    fn of(node: &Node) -> Option<Self> {
        let text = |key: &str| node.get(key).and_then(Node::text);
        if let Some(url) = text("url") {
            let Some((scheme, rest)) = url.split_once("://") else {
                return Some(Self::folder());
            };
            if matches!(scheme, "file") {
                return Some(Self::folder());
            }
            let rest = rest.split(['?', '#']).next().unwrap_or(rest);
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit('@').next().unwrap_or(authority).to_lowercase();
            let is_store = !matches!(scheme, "postgres" | "postgresql" | "mysql" | "mariadb");
            let scheme = match scheme {
                "postgresql" => "postgres",
                "mariadb" => "mysql",
                other => other,
            };
            // Prefixes of one bucket may lie in each other, and MySQL's databases can be named from one another.
            let name = (!is_store && scheme != "mysql" && !path.is_empty()).then(|| path.to_owned());
            let host = (!host.is_empty()).then_some(host);
            return Some(match is_store {
                true => Self { scheme: Some(scheme.to_owned()), name: host.clone(), host },
                false => Self { scheme: Some(scheme.to_owned()), host, name },
            });
        }
        let path = text("path")?;
        let name = path.rsplit(['/', '\\']).next().map(str::to_owned);
        // One file has one name, however the way to it is written (but for links, which nobody makes of a database).
        Some(Self { scheme: None, host: name.clone(), name })
    }

    /// A folder of this machine: another may lie in it.
    fn folder() -> Self {
        Self { scheme: None, host: None, name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_model::yaml::parse;

    fn node(text: &str) -> Node {
        parse("gristmill.yaml", text).unwrap()
    }

    #[test]
    fn a_folder_in_a_folder_is_seen() {
        assert!(lie_in_each_other("out/", "./out/inner"));
        assert!(lie_in_each_other("", "x"));
        assert!(lie_in_each_other("../y", "x"));
        assert!(!lie_in_each_other("out", "outer"));
    }

    #[test]
    fn connections_are_two_places_only_where_that_is_certain() {
        let cases = [
            ("{type: sqlite, path: data/a.db}", "{type: sqlite, path: ./data/a.db}", true),
            ("{type: sqlite, path: data/a.db}", "{type: sqlite, path: data/b.db}", false),
            ("{type: sqlite, path: data/a.db}", "{type: postgres, url: \"postgres://h/a.db\"}", false),
            ("{type: files, url: ./lake}", "{type: files, url: ./lake/inner}", true),
            ("{type: files, url: ./lake}", "{type: files, url: \"s3://lake\"}", false),
            ("{type: files, url: \"s3://lake/a\"}", "{type: files, url: \"s3://lake/b\"}", true),
            ("{type: files, url: \"s3://lake/a\"}", "{type: files, url: \"s3://other/a\"}", false),
            (
                "{type: postgres, url: \"postgres://u:p@h/a\"}",
                "{type: postgres, url: \"postgresql://v@h/a?x=1\"}",
                true,
            ),
            ("{type: postgres, url: \"postgres://h/a\"}", "{type: postgres, url: \"postgres://127.0.0.1/a\"}", true),
            ("{type: mysql, url: \"mysql://h/a\"}", "{type: mysql, url: \"mysql://h/b\"}", true),
            ("{type: postgres, url: \"postgres://h/a\"}", "{type: postgres, url: \"postgres://i/b\"}", false),
            ("{type: postgres, host: h}", "{type: postgres, url: \"postgres://i/b\"}", true),
        ];
        for (one, other, wanted) in cases {
            assert_eq!(may_be_one(&node(one), &node(other)), wanted, "{one} {other}");
            assert_eq!(may_be_one(&node(other), &node(one)), wanted, "{other} {one}");
        }
    }
}
