//! Which files can become one: those of the same columns, order, header.

use super::super::place::Place;
use super::plan::{Kind, Rewrite};
use super::splice::Source;
use super::{Work, settings};
use crate::compaction::Compaction;
use crate::sources::files::formats::{self, FileInput, Traits};
use crate::sources::files::records::Head;
use crate::sources::files::{MAGIC_BYTES, by_magic};
use crate::stores;
use arrow::datatypes::{Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use gristmill_model::spec::{FileFormat, LoadSpec};
use gristmill_model::{ErrorKind, Result};
use object_store::ObjectStoreExt;
use std::sync::Arc;

/// Files that are looked at side by side.
const AT_ONCE: usize = 8;
/// Sorted files that are read at once, since each has a batch in memory. More become several files, and few the next time.
const MOST_MERGED: usize = 64;

/// Files that become one.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) rewrite: Rewrite,
    /// The columns; none where nobody asks for them.
    pub(super) schema: SchemaRef,
    pub(super) traits: Traits,
    pub(super) head: Head,
}

/// What a file is like.
struct Look {
    schema: SchemaRef,
    traits: Traits,
    head: Head,
}

impl Group {
    pub(super) fn is_spliced(&self) -> bool {
        self.rewrite.kind.is_spliced()
    }

    /// The load that writes it anew.
    pub(super) fn load(&self, want: &Compaction) -> LoadSpec {
        let kind = &self.rewrite.kind;
        if kind.is_spliced() {
            settings::spliced(want, kind.format, kind.compression)
        } else {
            settings::load(want, kind.format, &self.schema, &self.traits)
        }
    }

    /// The first of them, in the order of their names.
    fn first(&self) -> Option<&str> {
        self.rewrite.files.first().map(|file| file.path.as_str())
    }

    /// Whether a file that is like this can be among them. Files without rows have no order.
    fn takes(&self, look: &Look) -> bool {
        self.schema.fields() == look.schema.fields()
            && self.head == look.head
            && (self.traits.sorted == look.traits.sorted || !look.traits.rows)
    }

    /// Those of them that are merged at once.
    fn parts(self) -> impl Iterator<Item = Group> {
        let most = if self.traits.sorted.is_empty() { usize::MAX } else { MOST_MERGED };
        let Self { rewrite, schema, traits, head } = self;
        let parts: Vec<_> = rewrite.files.chunks(most).map(<[_]>::to_vec).collect();
        parts.into_iter().filter(|files| files.len() > 1).map(move |files| Self {
            rewrite: Rewrite { files, ..rewrite.clone() },
            schema: schema.clone(),
            traits: traits.clone(),
            head: head.clone(),
        })
    }
}

impl Work<'_> {
    /// Files that can become one, at least two each: others stay as they are.
    pub(super) async fn groups(&self, place: &Place, rewrite: Rewrite) -> Result<Vec<Group>> {
        let Rewrite { partition, kind, files } = rewrite;
        let kind = &kind;
        let mut seen: Vec<_> = futures::stream::iter(files)
            .map(|file| async move {
                match self.look_at(place, kind, &file.path).await {
                    Ok(look) => Ok(look.map(|look| (file, look))),
                    // Removed since it was listed, by a load or another compaction.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffered(AT_ONCE)
            .try_filter_map(|seen| async move { Ok(seen) })
            .try_collect()
            .await?;
        // The largest first: what is only of some importance is taken from there. Those without rows come last.
        seen.sort_by_key(|(file, look)| std::cmp::Reverse((look.traits.rows, file.bytes)));
        let mut groups: Vec<Group> = Vec::new();
        for (file, look) in seen {
            match groups.iter_mut().find(|group| group.takes(&look)) {
                Some(group) => group.rewrite.files.push(file),
                None => groups.push(Group {
                    rewrite: Rewrite { partition: partition.clone(), kind: kind.clone(), files: vec![file] },
                    schema: look.schema,
                    traits: look.traits,
                    head: look.head,
                }),
            }
        }
        for group in &mut groups {
            group.rewrite.files.sort_by(|one, other| one.path.cmp(&other.path));
        }
        groups.sort_by(|one, other| one.first().cmp(&other.first()));
        Ok(groups.into_iter().flat_map(Group::parts).collect())
    }

    /// What a file is like; nothing where it is not what its name says.
    async fn look_at(&self, place: &Place, kind: &Kind, path: &str) -> Result<Option<Look>> {
        let input = self.input(place, path, kind).await?;
        if kind.is_spliced() {
            if kind.format != FileFormat::Avro && !is_compressed_as_named(&input).await? {
                return Ok(None);
            }
            let (_, head) = Source::open(&input, kind.format).await?;
            return Ok(Some(Look { schema: Arc::new(Schema::empty()), traits: Traits::default(), head }));
        }
        let schema = formats::reader(kind.format).infer(&input).await?.schema;
        let traits = match kind.format {
            FileFormat::Parquet => formats::traits(&input).await?,
            _ => Traits::default(),
        };
        Ok(Some(Look { schema, traits, head: Head::default() }))
    }
}

/// False of a file without bytes, too: it has not even a header.
async fn is_compressed_as_named(input: &FileInput) -> Result<bool> {
    if input.meta.size == 0 {
        return Ok(false);
    }
    let first = input.store.get_range(&input.meta.location, 0..input.meta.size.min(MAGIC_BYTES)).await;
    let first = first.map_err(|error| stores::error(error, format!("`{}`", input.name)))?;
    Ok(by_magic(&first) == input.compression)
}
