//! The splitter of documents as a function of bytes; see [`crate::fuzzing`].

use super::split::{Item, Splitter};

/// The items of a document, at once and in chunks of the size that the first byte says.
pub(crate) fn json_split(bytes: &[u8]) {
    let Some((size, text)) = bytes.split_first() else { return };
    for path in [None, Some("data"), Some("data.items")] {
        let whole = items(path, text, text.len().max(1));
        assert_eq!(items(path, text, usize::from(*size) + 1), whole, "items depend on how their bytes come");
    }
}

/// The items before the first mistake; none where there is one.
fn items(path: Option<&str>, text: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    let (mut splitter, mut found) = (Splitter::new(path), Vec::new());
    let mut take = |item: Item<'_>| {
        found.push(match item {
            Item::Record(record) => record.to_vec(),
            Item::NotARow(what) => what.as_bytes().to_vec(),
        });
        Ok(())
    };
    for chunk in text.chunks(size) {
        splitter.push(chunk, &mut take).ok()?;
    }
    splitter.finish().ok()?;
    Some(found)
}
