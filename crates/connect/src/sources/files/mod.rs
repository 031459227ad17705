//! The `files` connector: files of any format, in a folder or an object store.
//!
//! ```text
//!   path ── list ──► files ── picture ──► one schema (hive columns last)
//!                      │                      │
//!                      ├── units ── source ── read: formats/… or csv/…, one file after the other
//!                      └── native: the engine's own scan, where it gives the same rows
//! ```
//!
//! A source looks at its files once: which there are, how big, with which etags, and what columns they have. Units, the
//! engine's scan and every later question speak of that one picture; a file that has changed meanwhile is an error.

mod compress;
mod config;
mod connection;
mod csv;
pub(crate) mod formats;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod hive;
mod increment;
mod list;
mod native;
mod picture;
pub(crate) mod schema;
mod source;
#[cfg(test)]
mod tests;
mod units;

pub(crate) use compress::{MAGIC_BYTES, by_magic, split_name};
pub(crate) use connection::connector;
pub use connection::{FilesConnection, open_path};
pub(crate) use csv::{delimiter_by_name, records};
pub use formats::quiet_decoders;
pub(crate) use schema::common_type;
