//! CSV as a function of bytes; see [`crate::fuzzing`].

use super::dialect::Dialect;
use super::record::{self, Fields, Step};
use super::slices::Following;
use super::survey::Rules;
use gristmill_model::spec::CsvOptions;

/// The records of a text in the dialect that the first byte chooses, read at once and as they come.
pub(crate) fn records(bytes: &[u8]) {
    let Some((choice, dialect, text)) = chosen(bytes) else { return };
    let whole = all(&dialect, text, text.len().max(1));
    let size = usize::from(choice >> 4) + 1;
    assert_eq!(all(&dialect, text, size), whole, "records depend on how their bytes come");
}

/// Where a text may be cut: the records of the pieces are those of the whole, for CSV and for lines.
pub(crate) fn cuts(bytes: &[u8]) {
    let Some((choice, dialect, text)) = chosen(bytes) else { return };
    let targets = || vec![1, text.len() as u64 / 3, text.len() as u64 / 2];
    let found = |rules| {
        let mut following = Following::new(targets(), rules);
        text.chunks(usize::from(choice >> 4) + 1).for_each(|chunk| following.take(chunk));
        let cuts: Vec<usize> = following.finish().cuts.iter().filter_map(|cut| usize::try_from(cut.at).ok()).collect();
        assert!(cuts.is_sorted() && cuts.iter().all(|cut| *cut <= text.len()), "a cut behind the end");
        cuts
    };
    for cut in found(Rules::lines()) {
        assert!(cut == 0 || cut == text.len() || text[cut - 1] == b'\n', "a line is torn at {cut}");
    }
    // Whoever reads takes the mark off before.
    if text.starts_with(b"\xef\xbb\xbf") {
        return;
    }
    let whole = contents(&dialect, text);
    for cut in found(Rules::csv(&dialect)) {
        let (before, behind) = text.split_at(cut);
        let pieces = [contents(&dialect, before), contents(&dialect, behind)].concat();
        assert_eq!(pieces, whole, "a record is torn at {cut}");
    }
}

fn chosen(bytes: &[u8]) -> Option<(u8, Dialect, &[u8])> {
    let (choice, text) = bytes.split_first()?;
    let of = |bit: u8, text: &str| (choice >> bit & 1 == 1).then(|| text.to_owned());
    let options = CsvOptions {
        delimiter: of(0, ";"),
        quote: of(1, "'"),
        escape: of(2, "\\"),
        comment: of(3, "#"),
        ..CsvOptions::default()
    };
    Some((*choice, Dialect::new(&options).ok()?, text))
}

/// The fields of every record.
fn contents(dialect: &Dialect, text: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let (mut found, mut fields, mut at) = (Vec::new(), Fields::default(), 0);
    while let Step::Record { end, .. } = record::next(dialect, &text[at..], true, &mut fields) {
        found.push(fields.raw(&text[at..]));
        at += end;
    }
    found
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
