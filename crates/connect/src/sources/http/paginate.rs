//! Which page comes next: a pure function of what was seen.
//!
//! ```text
//!   Asked::First ──answer──► Facts ──Sequence::next──► Asked | the end | why it cannot go on
//! ```
//!
//! What would lose records, read them twice or never end is refused: a page that repeats, a total that the pages do not
//! reach, a server that returns fewer records than it was asked for while positions are counted by us.

use gristmill_model::spec::{HttpSpec, LastPage, PageNumbers, Paginate};
use std::collections::HashSet;
use std::ops::Range;

/// Pages of one sequence, at most, where nothing else is said.
pub(super) const MAX_PAGES: u64 = 100_000;

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The first one; nothing is added to the request.
    First,
    /// The page of this number.
    Page(u64),
    /// The page that begins at this record.
    Offset(u64),
    /// The page this token stands for.
    Cursor(Token),
    /// The page at this absolute URL.
    Link(String),
}

/// A token, or the URL of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// It stood there as a number, and goes back as one where that makes a difference.
    pub(super) is_number: bool,
}

/// What an answer says, as far as the next page depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Records of the page.
    pub(super) records: u64,
    /// The hash of the body; where pages are counted by us, of its records, since what is around them may count along.
    pub(super) body: u64,
    /// The next token, or the absolute URL of the next page.
    pub(super) next: Option<Token>,
    /// Whether there is more, where that is said apart.
    pub(super) more: Option<bool>,
    /// The number of pages, where it is said.
    pub(super) total_pages: Option<u64>,
    /// The number of records, where it is said.
    pub(super) total_records: Option<u64>,
    /// The status means that there is nothing.
    pub(super) nothing: bool,
    /// It does only because `empty_on` says so.
    pub(super) refused: bool,
}

/// A share of pages whose number is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// The pages, from 0.
    pub(super) pages: Range<u64>,
    /// The last of them may be followed by more, which came into being after the units were made.
    pub(super) open: bool,
    /// The hash of the first page of all, unless it is in this share or has no records.
    pub(super) first: Option<u64>,
    /// Records of a full page, where the first one told and nothing else does.
    pub(super) size: Option<u64>,
}

/// A sequence of pages.
#[derive(Debug)]
pub(super) struct Sequence {
    rule: Option<Paginate>,
    max_pages: u64,
    allow_repeats: bool,
    share: Option<Share>,
    pages: u64,
    records: u64,
    bodies: HashSet<u64>,
    asked: HashSet<String>,
    /// A page that had fewer records than asked for: how many.
    short: Option<u64>,
    /// The page before says in so many words that there is another.
    is_promised: bool,
}

/// Why a sequence cannot go on, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) hint: String,
}

fn refuse<T>(why: impl Into<String>, hint: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { why: why.into(), hint: hint.into() })
}

/// What asks for page `index` (from 0), where pages can be asked for by their number.
pub(super) fn nth(rule: &Paginate, index: u64) -> Option<Asked> {
    match rule {
        Paginate::Page(page) => page.start.checked_add(index).map(Asked::Page),
        Paginate::Offset(offset) => offset.limit.checked_mul(index).map(Asked::Offset),
        _ => None,
    }
}

/// How many pages there are, where the first of them tells.
///
/// # Errors
/// A server that returns fewer or more records than it was asked for.
pub(super) fn count(rule: &Paginate, first: &Facts) -> Result<Option<u64>, Refused> {
    let size = match rule {
        Paginate::Page(_) if first.total_pages.is_some() => return Ok(first.total_pages),
        Paginate::Page(page) => page.size.unwrap_or(first.records),
        Paginate::Offset(offset) => offset.limit,
        _ => return Ok(None),
    };
    let Some(total) = first.total_records else { return Ok(None) };
    if total <= first.records {
        return Ok(Some(1));
    }
    if first.records > 0 {
        as_asked(rule, None, first.records)?;
    }
    // A first page without records has nothing to count by; going on page by page will tell.
    Ok((size > 0).then(|| total.div_ceil(size)))
}

/// Whether pages are counted by the size that the first of them has; one after the other, they need not be.
pub(super) fn is_counted_by_first(rule: &Paginate, first: &Facts) -> bool {
    matches!(rule, Paginate::Page(PageNumbers { size: None, .. })) && first.total_pages.is_none()
}

/// Whether the first pages are all of one size, but for the last of all.
pub(super) fn is_even(sizes: &[u64], total: u64) -> bool {
    let size = sizes.first().copied().unwrap_or(0);
    let mut left = total;
    sizes.iter().all(|records| {
        let is_full = *records == size.min(left);
        left = left.saturating_sub(size);
        is_full
    })
}

/// A page that is not the last one must have as many records as it was asked for, or as the first page has (`of_first`), where
/// pages are counted by that.
fn as_asked(rule: &Paginate, of_first: Option<u64>, records: u64) -> Result<(), Refused> {
    let (key, wanted) = match (rule, of_first) {
        (Paginate::Page(PageNumbers { size: Some(size), .. }), _) => ("size", *size),
        (Paginate::Offset(offset), _) => ("limit", offset.limit),
        (_, Some(size)) if records != size => {
            return refuse(
                format!("a page has {records} records where the first has {size}, and it is not the last one"),
                "pages that are not of one size cannot be counted; read them one after the other: `units: {strategy: none}`",
            );
        }
        _ => return Ok(()),
    };
    if records == wanted {
        return Ok(());
    }
    refuse(
        format!("a page has {records} records where {wanted} were asked for, and it is not the last one"),
        format!("the server seems to have its own mind about the size of pages; say `{key}: {records}`"),
    )
}

impl Sequence {
    pub(super) fn new(http: &HttpSpec, share: Option<Share>) -> Self {
        Self {
            rule: http.paginate.clone(),
            max_pages: http.max_pages.unwrap_or(MAX_PAGES),
            allow_repeats: http.allow_repeated_pages,
            bodies: share.iter().filter_map(|share| share.first).collect(),
            share,
            pages: 0,
            records: 0,
            asked: HashSet::new(),
            short: None,
            is_promised: false,
        }
    }

    /// The first page to ask for; none for an empty share.
    pub(super) fn first(&self) -> Option<Asked> {
        let start = self.share.as_ref().map_or(0, |share| share.pages.start);
        match &self.rule {
            _ if self.share.as_ref().is_some_and(|share| share.pages.is_empty()) => None,
            Some(rule @ (Paginate::Page(_) | Paginate::Offset(_))) => nth(rule, start),
            _ => Some(Asked::First),
        }
    }

    /// What to ask for after `asked` was answered; none at the end. `url` is the URL that was asked.
    ///
    /// # Errors
    /// Why the sequence cannot go on.
    pub(super) fn next(&mut self, asked: &Asked, url: &str, facts: &Facts) -> Result<Option<Asked>, Refused> {
        let Some(rule) = self.rule.clone() else { return Ok(None) };
        if facts.records > 0 && !self.bodies.insert(facts.body) && !self.allow_repeats {
            return refuse(
                "its records are the same, byte for byte, as those of a page before it",
                "look whether the API knows the parameter that `paginate` sends; if pages may be alike, say \
                 `allow_repeated_pages: true`",
            );
        }
        if let (Some(short), true) = (self.short, facts.records > 0) {
            as_asked(&rule, None, short)?;
        }
        if facts.refused && self.is_promised {
            return refuse(
                "the page before it says that there is another, and the API refuses to give it",
                "`empty_on` is for what has no records at all; where a token or link runs out, read faster or ask for larger pages",
            );
        }
        // Positions are counted by us: a page that is shorter than asked for must be the last one.
        if let Paginate::Offset(offset) = &rule
            && facts.records < offset.limit
            && facts.records > 0
        {
            self.short = Some(facts.records);
        }
        self.pages += 1;
        self.records = self.records.saturating_add(facts.records);
        let next = match (&rule, asked) {
            _ if facts.nothing && !matches!(rule, Paginate::Page(_) | Paginate::Offset(_)) => None,
            (Paginate::Page(_) | Paginate::Offset(_), Asked::Page(_) | Asked::Offset(_)) => {
                self.counted(&rule, asked, facts)?
            }
            (Paginate::Cursor(cursor), _) => {
                let token = facts.next.clone().filter(|_| facts.more != Some(false));
                match (token, facts.more) {
                    (None, Some(true)) => {
                        return refuse(
                            "it says that there is more, but has no token for the next page",
                            "look at `path` (or `header`) of `paginate: cursor`",
                        );
                    }
                    (_, None) if cursor.more.is_some() => {
                        return refuse(
                            "it does not say whether there is more",
                            "look at `more` of `paginate: cursor`; leave it out where a missing token says so",
                        );
                    }
                    (token, _) => token.map(Asked::Cursor),
                }
            }
            (Paginate::NextLink(_) | Paginate::LinkHeader, _) => facts.next.clone().map(|next| Asked::Link(next.text)),
            (Paginate::Page(_) | Paginate::Offset(_), _) => None,
        };
        self.is_promised = matches!(next, Some(Asked::Link(_))) || (next.is_some() && facts.more == Some(true));
        self.asked.insert(match asked {
            Asked::Cursor(token) => token.text.clone(),
            _ => url.to_owned(),
        });
        if let Some(Asked::Cursor(Token { text: again, .. }) | Asked::Link(again)) = &next
            && self.asked.contains(again)
        {
            return refuse(
                "it leads back to a page that was read before",
                "the API goes round in a circle; look at `paginate`",
            );
        }
        if next.is_some() && self.pages >= self.max_pages {
            return refuse(
                format!("there are more than {} pages", self.max_pages),
                "if that is right, say how many there may be with `max_pages`",
            );
        }
        Ok(next)
    }

    /// The next page by its number or position.
    fn counted(&self, rule: &Paginate, asked: &Asked, facts: &Facts) -> Result<Option<Asked>, Refused> {
        let (index, size, last_page, has_total) = match (rule, asked) {
            (Paginate::Page(page), Asked::Page(number)) => {
                (number.saturating_sub(page.start), page.size, page.last_page, page.total.is_some())
            }
            (Paginate::Offset(offset), Asked::Offset(at)) => {
                (at / offset.limit.max(1), Some(offset.limit), offset.last_page, offset.total.is_some())
            }
            _ => return Ok(None),
        };
        if has_total && facts.total_pages.is_none() && facts.total_records.is_none() && !facts.nothing {
            return refuse("it does not say how many there are in all", "look at `total` of `paginate`");
        }
        let share = self.share.as_ref();
        let of_first = share.and_then(|share| share.size);
        let size = size.or(of_first);
        // What there is beyond this page, as far as is known.
        let beyond = match (rule, asked) {
            (Paginate::Offset(_), Asked::Offset(at)) => {
                facts.total_records.map(|total| total > at.saturating_add(facts.records))
            }
            _ => match (facts.total_pages, facts.total_records, size) {
                (Some(pages), ..) => Some(pages > index + 1),
                // Within a share, records are counted by the size of a full page.
                (None, Some(total), Some(size)) => Some(total > (index + 1).saturating_mul(size)),
                (None, Some(total), None) if share.is_none() => Some(total > self.records),
                _ => None,
            },
        };
        if facts.records == 0 {
            let promised = match (facts.total_pages, facts.total_records, asked) {
                (_, total, Asked::Offset(at)) => total.is_some_and(|total| total > *at),
                (Some(pages), ..) => pages > index && pages > 1,
                (_, Some(total), _) => match size {
                    Some(size) => total > index.saturating_mul(size),
                    None => share.is_none() && total > self.records,
                },
                // The first page of all has promised it, and others go on behind it.
                _ => share.is_some_and(|share| !share.open),
            };
            if promised {
                return refuse(
                    "it has no records, though the API says that there are more",
                    "if the API counts what it does not hand out, leave `total` of `paginate` out",
                );
            }
            return Ok(None);
        }
        // The last page has what is left; one with less was cut to the server's own size.
        if let (Paginate::Page(_), None, Some(total), Some(size)) = (rule, facts.total_pages, facts.total_records, size)
            && facts.records < total.saturating_sub(index.saturating_mul(size)).min(size)
        {
            as_asked(rule, of_first, facts.records)?;
        }
        if beyond == Some(true) && (facts.total_pages.is_none() || matches!(rule, Paginate::Offset(_))) {
            as_asked(rule, of_first, facts.records)?;
        }
        let next = || match (rule, asked) {
            (Paginate::Page(_), Asked::Page(number)) => number.checked_add(1).map(Asked::Page),
            (_, Asked::Offset(at)) => at.checked_add(facts.records).map(Asked::Offset),
            _ => None,
        };
        if let Some(share) = share {
            let inside = index + 1 < share.pages.end;
            let goes_on = if inside { beyond != Some(false) } else { share.open && beyond == Some(true) };
            return Ok(if goes_on { next() } else { None });
        }
        let is_short = size.is_some_and(|size| facts.records < size);
        Ok(match (beyond, last_page) {
            (Some(beyond), _) => beyond.then(next).flatten(),
            (None, LastPage::Short) if is_short => None,
            (None, _) => next(),
        })
    }
}

#[cfg(test)]
mod tests;
