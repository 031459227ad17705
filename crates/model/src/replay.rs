//! Rows that were refused and are to be loaded after all: how they are named, from the letter to the ledger.

use crate::{ConnectionName, RunId, StepName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who refused a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// A reader, which could not make sense of the record.
    Reader,
    /// A check of its step.
    Check,
    /// The target that it was to be loaded into.
    Target,
}

impl RefusedBy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Check, Self::Target];

    /// The word used in files and on screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Check => "check",
            Self::Target => "target",
        }
    }

    /// The one a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == word)
    }
}

/// The letters that are replayed together: those of one step of one run, refused by one thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The run that refused the rows.
    pub run: RunId,
    /// The step whose rows they are.
    pub step: StepName,
    /// Who refused them.
    pub by: RefusedBy,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.by.as_str(), self.step, self.run)
    }
}

impl StepName {
    /// The step that loads what was refused, beside this load: `load@check.orders.RUN`. It has a slot of its own, and since the
    /// name says which letters it loads, whoever replays them again finds them loaded.
    #[must_use]
    pub fn replaying(&self, origin: &Origin) -> Self {
        Self::new(format!("{self}@{origin}"))
    }

    /// The load, and what it brings after all, where this step is a replay. A name in a file has no `@`.
    #[must_use]
    pub fn replay(&self) -> Option<(Self, Origin)> {
        let (load, rest) = self.as_str().split_once('@')?;
        let (by, rest) = rest.split_once('.')?;
        // The step of one table of many may have dots itself; a run has none.
        let (step, run) = rest.rsplit_once('.')?;
        let origin = Origin { run: run.into(), step: step.into(), by: RefusedBy::from_word(by)? };
        Some((load.into(), origin))
    }
}

/// Letters as something that is read from: a connection of that name takes the place of the source's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letters {
    /// Who refused the rows.
    pub by: RefusedBy,
    /// The step whose rows they are.
    pub step: StepName,
    /// The file they are in, below the folder of all letters.
    pub file: String,
}

/// What the names of such connections begin with.
const LETTERS: &str = "@dead_letters/";

impl Letters {
    /// The name of the connection. Those of a project begin otherwise.
    #[must_use]
    pub fn connection(&self) -> ConnectionName {
        ConnectionName::new(format!("{LETTERS}{}/{}/{}", self.by.as_str(), self.step, self.file))
    }

    /// The letters that a connection of this name is for.
    #[must_use]
    pub fn of(connection: &ConnectionName) -> Option<Self> {
        let mut parts = connection.as_str().strip_prefix(LETTERS)?.splitn(3, '/');
        let by = RefusedBy::from_word(parts.next()?)?;
        // The name of a step has no slash.
        Some(Self { by, step: parts.next()?.into(), file: parts.next()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_known_by_its_name() {
        for (load, step) in [("load", "orders"), ("load[public.a]", "all[public.a]")] {
            for by in RefusedBy::ALL {
                let origin = Origin { run: "0190ab".into(), step: step.into(), by };
                let name = StepName::from(load).replaying(&origin);
                assert_eq!(name.replay(), Some((load.into(), origin)));
                assert_eq!(name.family(), None, "{name}");
            }
        }
        for name in ["load", "load[a.b]", "load@x", "load@check.a", "load@who.a.b"] {
            assert_eq!(StepName::from(name).replay(), None, "{name}");
        }
    }

    #[test]
    fn letters_are_known_by_the_name_of_their_connection() {
        let file = "p/2024-01-15/r-load[a.b]-1.parquet".to_owned();
        let letters = Letters { by: RefusedBy::Check, step: "all[a.b]".into(), file };
        assert_eq!(Letters::of(&letters.connection()), Some(letters));
        assert_eq!(Letters::of(&"db".into()), None);
    }
}
