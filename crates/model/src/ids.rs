//! Names and ids as types, so that a step name is never passed for a pipeline name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a name as it stands.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a pipeline, unique in its project.
    PipelineName
}
name! {
    /// The name of a step, unique in its pipeline; also the table name under which its rows are read.
    StepName
}
impl StepName {
    /// The name of the step that stands for one table where a step of this name was written for many.
    #[must_use]
    pub fn member(&self, label: &str) -> Self {
        Self(format!("{}[{label}]", self.0))
    }

    /// The step as it is written in the file, and the table's label, where this one stands for one of its tables. A name
    /// in a file has no brackets.
    #[must_use]
    pub fn family(&self) -> Option<(&str, &str)> {
        self.0.strip_suffix(']')?.split_once('[')
    }

    /// The step as it is written in the file.
    #[must_use]
    pub fn written(&self) -> &str {
        self.family().map_or(&self.0, |(written, _)| written)
    }
}
name! {
    /// The name of a connection of the project.
    ConnectionName
}
name! {
    /// The id of a run: time-ordered, unique, and safe in paths and table names.
    RunId
}
