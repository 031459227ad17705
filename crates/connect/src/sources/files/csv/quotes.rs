//! A fast look at the quotes of a local file, before the engine's scan may have it.
//!
//! The engine cuts big CSV files at any newline and never says that a quote was not closed. So a file is looked
//! through first: without any quote it can be cut anywhere; with quotes that all close it can be read from beginning
//! to end.

use memchr::{memchr, memchr2};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the quotes of a file are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources::files) enum Quotes {
    /// There are none.
    Absent,
    /// All of them close, and something stands between.
    Closed,
    /// All of them close, and of a field nothing stands between: the empty text, which is not NULL.
    Empty,
    /// The last one does not.
    Open,
}

/// Small enough for the second-level cache, where a byte is looked at while it is warm.
const CHUNK: usize = 256 << 10;

/// Files beyond this size are looked through by more than one thread.
const PARALLEL: u64 = 32 << 20;

/// Looks through a file; blocks.
///
/// # Errors
/// What the disk says.
pub(in crate::sources::files) fn scan(path: &Path, delimiter: u8, quote: u8, escape: Option<u8>) -> io::Result<Quotes> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let threads = match size {
        ..PARALLEL => 1,
        _ => std::thread::available_parallelism().map_or(1, |count| count.get().min(8)) as u64,
    };
    let share = size.div_ceil(threads).max(1);
    let found = std::thread::scope(|scope| {
        let file = &file;
        let ranges = (1..threads).map(|index| (index * share, ((index + 1) * share).min(size)));
        let others: Vec<_> =
            ranges.map(|(start, end)| scope.spawn(move || contains(file, start, end, quote))).collect();
        let mut found = contains(file, 0, share.min(size), quote)?;
        for other in others {
            found |= other.join().map_err(|_| io::Error::other("a thread failed while looking for quotes"))??;
        }
        io::Result::Ok(found)
    })?;
    if found { follow(File::open(path)?, delimiter, quote, escape) } else { Ok(Quotes::Absent) }
}

fn contains(file: &File, mut start: u64, end: u64, byte: u8) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    while start < end {
        let want = usize::try_from(end - start).unwrap_or(CHUNK).min(CHUNK);
        let read = file.read_at(&mut buffer[..want], start)?;
        if read == 0 {
            break;
        }
        if memchr(byte, &buffer[..read]).is_some() {
            return Ok(true);
        }
        start += read as u64;
    }
    Ok(false)
}

/// Follows every quote from its opening to its closing.
fn follow(mut from: impl Read, delimiter: u8, quote: u8, escape: Option<u8>) -> io::Result<Quotes> {
    let mut buffer = vec![0; CHUNK];
    let mut state = State::Outside;
    // What stood before the chunk; the file begins as if after a line break.
    let mut before = b'\n';
    let mut first = true;
    // Whether nothing has come since a quote was opened, and whether a field ended so.
    let (mut bare, mut empty) = (false, false);
    loop {
        let read = from.read(&mut buffer)?;
        let Some(last) = read.checked_sub(1) else { break };
        let mut chunk = &buffer[..read];
        if std::mem::take(&mut first) && chunk.starts_with(b"\xef\xbb\xbf") {
            chunk = &chunk[3..];
        }
        let mut at = 0;
        while at < chunk.len() {
            match state {
                State::Outside => {
                    let Some(length) = memchr(quote, &chunk[at..]) else { break };
                    at += length;
                    let previous = if at == 0 { before } else { chunk[at - 1] };
                    // A quote in the middle of a field is an ordinary character.
                    if previous == delimiter || matches!(previous, b'\n' | b'\r') {
                        state = State::Inside;
                        bare = true;
                    }
                    at += 1;
                }
                State::Inside => {
                    let found = match escape {
                        Some(escape) => memchr2(quote, escape, &chunk[at..]),
                        None => memchr(quote, &chunk[at..]),
                    };
                    let Some(length) = found else {
                        bare = false;
                        break;
                    };
                    bare &= length == 0 && chunk[at] == quote;
                    at += length;
                    state = if chunk[at] == quote { State::Closing } else { State::Escaped };
                    at += 1;
                }
                State::Escaped => {
                    state = State::Inside;
                    at += 1;
                }
                State::Closing => {
                    state = if chunk[at] == quote {
                        at += 1;
                        bare = false;
                        State::Inside
                    } else {
                        empty |= bare;
                        State::Outside
                    };
                }
            }
        }
        before = buffer[last];
    }
    Ok(match state {
        State::Inside | State::Escaped => Quotes::Open,
        State::Closing if bare => Quotes::Empty,
        _ if empty => Quotes::Empty,
        _ => Quotes::Closed,
    })
}

#[derive(Clone, Copy)]
enum State {
    Outside,
    Inside,
    /// After an escape inside quotes.
    Escaped,
    /// After a quote inside quotes: the end of the field, or the first of two.
    Closing,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, so that every state meets the end of a chunk.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn quotes_are_followed_to_their_end() {
        for (text, escape, expected) in [
            ("a,\"b\nc\"\n", None, Quotes::Closed),
            ("a,\"b\nc\n", None, Quotes::Open),
            ("a,\"\"\n\"x\"", None, Quotes::Empty),
            ("a,\"\"", None, Quotes::Empty),
            ("a,\"\"\"\"\n", None, Quotes::Closed),
            ("a,\"\"\"\"\n\"\",1", None, Quotes::Empty),
            ("a,\"b\"\"", None, Quotes::Open),
            ("a,\"b\"\"\"", None, Quotes::Closed),
            ("a,5\"\n1,2\n", None, Quotes::Closed),
            ("\"a\\\"\n", Some(b'\\'), Quotes::Open),
            ("\"a\\\"\"\n", Some(b'\\'), Quotes::Closed),
            ("\"a\" \"\n", None, Quotes::Closed),
        ] {
            assert_eq!(follow(text.as_bytes(), b',', b'"', escape).unwrap(), expected, "{text:?}");
            assert_eq!(follow(Slow(text.as_bytes()), b',', b'"', escape).unwrap(), expected, "{text:?} slowly");
        }
    }
}
