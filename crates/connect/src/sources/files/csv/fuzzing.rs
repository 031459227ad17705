//! CSV as a function of bytes; see [`crate::fuzzing`].

use super::dialect::Dialect;
use super::record::{self, Fields, Step};
use super::slices::Following;
use super::survey::Rules;
use gristmill_model::spec::CsvOptions;

/// The records of a text in the dialect that the first byte chooses, read at once and as they come; and where the text
/// may be cut.
pub(crate) fn records(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let of = |bit: u8, text: &str| (choice >> bit & 1 == 1).then(|| text.to_owned());
    let options = CsvOptions {
        delimiter: of(0, ";"),
        quote: of(1, "'"),
        escape: of(2, "\\"),
        comment: of(3, "#"),
        ..CsvOptions::default()
    };
    let Ok(dialect) = Dialect::new(&options) else { return };
    let whole = all(&dialect, text, text.len().max(1));
    let size = usize::from(choice >> 4) + 1;
    assert_eq!(all(&dialect, text, size), whole, "records depend on how their bytes come");
    let mut following = Following::new(vec![1, text.len() as u64 / 2], Rules::csv(&dialect));
    text.chunks(size).for_each(|chunk| following.take(chunk));
    for cut in following.finish().cuts {
        assert!(cut.at <= text.len() as u64, "a cut behind the end");
    }
}

/// How many fields each record has, and where it ends, where the text grows by so many bytes.
fn all(dialect: &Dialect, text: &[u8], step: usize) -> Vec<(usize, usize)> {
    let (mut found, mut fields) = (Vec::new(), Fields::default());
    let (mut at, mut end) = (0, step.min(text.len()));
    loop {
        match record::next(dialect, &text[at..end], end == text.len(), &mut fields) {
            Step::Record { end: behind, .. } => {
                let _ = fields.text(&text[at..end]).map(|texts| texts.iter().map(str::len).sum::<usize>());
                at += behind;
                found.push((fields.len(), at));
            }
            Step::More { .. } if end < text.len() => end = (end + step).min(text.len()),
            Step::More { .. } | Step::End => return found,
        }
    }
}
