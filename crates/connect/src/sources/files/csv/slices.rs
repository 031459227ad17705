//! Where a big text may be cut: places at which a record begins, proven and with the lines before them.
//!
//! A file on disk is walked by several threads, slice by slice; a stream is walked as it comes. Both find the same cuts.

use super::MAX_RECORD;
use super::survey::{Facts, Rules, Slice, State, Walk};
use memchr::memchr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Small enough for the second-level cache, where a byte is looked at while it is warm.
const CHUNK: usize = 256 << 10;

/// The mark that UTF-8 may begin with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A place at which a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources::files) struct Cut {
    /// Bytes before it.
    pub(in crate::sources::files) at: u64,
    /// Lines before it.
    pub(in crate::sources::files) lines: u64,
}

/// What is known of a file that was walked to its end.
#[derive(Debug, Clone)]
pub(in crate::sources::files) struct Surveyed {
    /// The first place to cut at or behind each target, as far as there is one. None lies behind a record that is too
    /// long to be read: what the reader takes for the next record then is not what the grammar says.
    pub(in crate::sources::files) cuts: Vec<Cut>,
    pub(super) facts: Facts,
    pub(super) state: State,
    /// Whether the file ends right behind the quotes of an empty field.
    pub(super) bare: bool,
}

/// Whether what has been walked holds a record that the reader does not take for one.
fn too_long(facts: &Facts, rules: Rules) -> bool {
    rules.carriage && facts.longest + 2 > MAX_RECORD as u64
}

/// Walks a file of `size` bytes; `targets` ascend. Blocks.
///
/// # Errors
/// What the disk says; a file that has become shorter.
pub(in crate::sources::files) fn survey(file: &File, size: u64, targets: &[u64], rules: Rules) -> io::Result<Surveyed> {
    let mark = mark_length(&first_bytes(file)?);
    let count = targets.len() + 1;
    let begins = |index: usize| match index.checked_sub(1).map(|before| targets.get(before)) {
        None => Ok(mark.min(size)),
        Some(None) => Ok(size),
        Some(Some(target)) => line_start(file, (*target).max(mark), size),
    };
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<(u64, Slice)>>> = Mutex::new(vec![None; count]);
    let work = || -> io::Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            let (begin, end) = (begins(index)?, begins(index + 1)?);
            let mut slice = Slice::new(rules);
            read(file, begin, end, |chunk| slice.take(chunk))?;
            if let Ok(mut done) = done.lock() {
                done[index] = Some((begin, slice));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8).min(count);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let ended =
                other.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed while looking for cuts")));
            result = result.and(ended);
        }
        result
    })?;
    let slices = done.into_inner().unwrap_or_default();
    let mut all = Surveyed {
        cuts: Vec::new(),
        facts: Facts { bytes: mark, ..Facts::default() },
        state: State::Outside,
        bare: false,
    };
    for (begin, slice) in slices.into_iter().flatten() {
        let inside = all.state == State::Inside;
        let (facts, state, bare) = slice.told(inside);
        // Where lines are longer than slices, some are empty.
        if facts.bytes == 0 {
            continue;
        }
        let before = all.facts;
        all.facts = before.then(facts);
        let found = if inside { facts.start.map(|start| (start.at, start.lines)) } else { Some((0, 0)) };
        let checked = if inside { &all.facts } else { &before };
        if let Some((at, lines)) = found.filter(|_| begin > mark && !too_long(checked, rules)) {
            all.add(Cut { at: begin + at, lines: before.lines + lines });
        }
        (all.state, all.bare) = (state, bare);
    }
    Ok(all)
}

impl Surveyed {
    fn add(&mut self, cut: Cut) {
        if self.cuts.last().is_none_or(|last| last.at < cut.at) {
            self.cuts.push(cut);
        }
    }
}

/// Walks a stream; gives the cuts that [`survey`] gives.
#[derive(Debug)]
pub(in crate::sources::files) struct Following {
    rules: Rules,
    walk: Walk,
    all: Surveyed,
    targets: std::vec::IntoIter<u64>,
    target: Option<u64>,
    /// A target has been passed, and no record has begun since.
    waiting: bool,
    first: Option<Vec<u8>>,
}

impl Following {
    pub(in crate::sources::files) fn new(targets: Vec<u64>, rules: Rules) -> Self {
        let mut targets = targets.into_iter();
        let target = targets.next();
        let all = Surveyed { cuts: Vec::new(), facts: Facts::default(), state: State::Outside, bare: false };
        let walk = Walk::new(rules, State::Outside);
        Self { rules, walk, all, targets, target, waiting: false, first: Some(Vec::new()) }
    }

    /// Goes on over the next bytes.
    pub(in crate::sources::files) fn take(&mut self, chunk: &[u8]) {
        let Some(mut first) = self.first.take() else { return self.go_on(chunk) };
        first.extend_from_slice(chunk);
        if first.len() < BYTE_ORDER_MARK.len() {
            self.first = Some(first);
            return;
        }
        let mark = mark_length(&first);
        self.all.facts.bytes = mark;
        self.go_on(&first[mark as usize..]);
    }

    /// What was seen.
    pub(in crate::sources::files) fn finish(mut self) -> Surveyed {
        if let Some(first) = self.first.take() {
            self.go_on(&first);
        }
        self.all.facts = self.all.facts.then(self.walk.facts);
        (self.all.state, self.all.bare) = (self.walk.state, self.walk.bare);
        self.all
    }

    fn go_on(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            let here = self.all.facts.bytes + self.walk.facts.bytes;
            let step = match self.target {
                // The byte before a target tells whether a line begins at it.
                Some(target) if target <= here + 1 => {
                    self.all.facts = self.all.facts.then(std::mem::take(&mut self.walk.facts));
                    self.target = self.targets.next();
                    self.waiting = true;
                    continue;
                }
                Some(target) => chunk.len().min(usize::try_from(target - 1 - here).unwrap_or(usize::MAX)),
                None => chunk.len(),
            };
            self.walk.take(&chunk[..step]);
            chunk = &chunk[step..];
            if let (true, Some(start)) = (self.waiting, self.walk.facts.start) {
                self.waiting = false;
                let before = self.all.facts;
                if !too_long(&before.then(self.walk.facts), self.rules) {
                    self.all.add(Cut { at: before.bytes + start.at, lines: before.lines + start.lines });
                }
            }
        }
    }
}

/// The length of a byte order mark at the beginning of a text.
fn mark_length(first: &[u8]) -> u64 {
    if first.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() as u64 } else { 0 }
}

/// The first bytes of a file.
pub(in crate::sources::files) fn first_bytes(file: &File) -> io::Result<Vec<u8>> {
    let mut first = vec![0; BYTE_ORDER_MARK.len()];
    let mut filled = 0;
    while filled < first.len() {
        match file.read_at(&mut first[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    first.truncate(filled);
    Ok(first)
}

/// Where the first line begins at or behind a place; the end, if there is none.
fn line_start(file: &File, target: u64, size: u64) -> io::Result<u64> {
    let mut at = target.saturating_sub(1);
    let mut buffer = vec![0; 8 << 10];
    while at < size {
        let want = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read_at(&mut buffer[..want], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = memchr(b'\n', &buffer[..read]) {
            return Ok(at + length as u64 + 1);
        }
        at += read as u64;
    }
    Ok(size)
}

fn read(file: &File, mut start: u64, end: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let length = usize::try_from(end.saturating_sub(start)).unwrap_or(CHUNK).min(CHUNK);
    let mut buffer = vec![0; length];
    while start < end {
        let want = usize::try_from(end - start).unwrap_or(CHUNK).min(CHUNK);
        let read = file.read_at(&mut buffer[..want], start)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        take(&buffer[..read]);
        start += read as u64;
    }
    Ok(())
}
