//! A server of numbers in memory, asked by the state machine: every number once, or a refusal; never lost, never twice.

use super::*;
use gristmill_model::spec::HttpSpec;
use proptest::prelude::*;

fn http(yaml: &str) -> HttpSpec {
    gristmill_model::yaml::decode(&gristmill_model::yaml::parse("p.yaml", yaml).unwrap()).unwrap()
}

fn paginate(yaml: &str) -> HttpSpec {
    http(&format!("{{paginate: {yaml}}}"))
}

fn as_token(text: &str) -> Token {
    Token { text: text.to_owned(), is_number: false }
}

/// How a server behaves.
#[derive(Debug, Clone, Copy)]
struct Server {
    records: u64,
    /// At most so many records a page, whatever it is asked for.
    cap: u64,
    /// It takes no notice of the parameter.
    deaf: bool,
    tells_pages: bool,
    tells_records: bool,
}

impl Server {
    fn answer(self, from: u64, size: u64) -> (Vec<u64>, Facts) {
        let size = size.min(self.cap);
        let from = if self.deaf { 0 } else { from.min(self.records) };
        let rows: Vec<u64> = (from..(from + size).min(self.records)).collect();
        let facts = Facts {
            records: rows.len() as u64,
            body: rows.first().map_or(0, |first| first + 1),
            total_pages: self.tells_pages.then(|| self.records.div_ceil(size)),
            total_records: self.tells_records.then_some(self.records),
            ..Facts::default()
        };
        (rows, facts)
    }

    /// Answers as the rule asks.
    fn ask(self, http: &HttpSpec, asked: &Asked) -> (Vec<u64>, Facts) {
        match (http.paginate.as_ref().unwrap(), asked) {
            (Paginate::Page(page), Asked::Page(number)) => {
                let size = page.size.unwrap_or(10).min(self.cap);
                self.answer((number - page.start) * size, size)
            }
            (Paginate::Offset(offset), Asked::Offset(at)) => self.answer(*at, offset.limit),
            _ => panic!("{asked:?}"),
        }
    }

    fn read(self, http: &HttpSpec, share: Option<Share>) -> Result<Vec<u64>, Refused> {
        let mut sequence = Sequence::new(http, share);
        let mut all = Vec::new();
        let mut next = sequence.first();
        while let Some(asked) = next {
            let (rows, facts) = self.ask(http, &asked);
            next = sequence.next(&asked, &format!("{asked:?}"), &facts)?;
            all.extend(rows);
        }
        Ok(all)
    }
}

fn server(records: u64) -> Server {
    Server { records, cap: u64::MAX, deaf: false, tells_pages: false, tells_records: false }
}

#[test]
fn without_a_rule_one_page_is_all() {
    let mut sequence = Sequence::new(&HttpSpec::default(), None);
    assert_eq!(sequence.first(), Some(Asked::First));
    assert_eq!(sequence.next(&Asked::First, "u", &Facts { records: 3, ..Facts::default() }), Ok(None));
}

#[test]
fn numbered_pages_end_with_an_empty_one_or_where_the_total_says() {
    for (rule, server) in [
        ("{page: {}}", server(25)),
        ("{page: {size: 10, size_param: n}}", server(30)),
        ("{page: {size: 10, size_param: n}}", Server { cap: 4, ..server(30) }),
        ("{page: {size: 10, size_param: n, last_page: short}}", server(25)),
        ("{page: {start: 0, total: {pages: p}}}", Server { tells_pages: true, ..server(25) }),
        ("{page: {total: {records: p}}}", Server { tells_records: true, ..server(25) }),
        ("{page: {size: 10, size_param: n, total: {records: p}}}", Server { tells_records: true, ..server(30) }),
        ("{offset: {limit: 10}}", server(25)),
        ("{offset: {limit: 10}}", server(30)),
        ("{offset: {limit: 10, last_page: short}}", server(25)),
        ("{offset: {limit: 10, total: {records: p}}}", Server { tells_records: true, ..server(25) }),
        ("{offset: {limit: 10}}", server(0)),
        ("{page: {total: {pages: p}}}", Server { tells_pages: true, ..server(0) }),
    ] {
        assert_eq!(server.read(&paginate(rule), None), Ok((0..server.records).collect()), "{rule} {server:?}");
    }
}

#[test]
fn a_server_that_caps_its_pages_is_refused_where_positions_are_ours() {
    let refused = |rule: &str, server: Server| server.read(&paginate(rule), None).unwrap_err();
    let capped = Server { cap: 4, ..server(30) };
    assert_eq!(
        refused("{offset: {limit: 10}}", capped).hint,
        "the server seems to have its own mind about the size of pages; say `limit: 4`"
    );
    let tells = Server { tells_records: true, ..capped };
    assert!(refused("{offset: {limit: 10, total: {records: p}}}", tells).hint.ends_with("`limit: 4`"));
    assert!(refused("{page: {size: 10, size_param: n, total: {records: p}}}", tells).hint.ends_with("`size: 4`"));
}

#[test]
fn a_server_that_does_not_know_the_parameter_is_refused() {
    let deaf = Server { deaf: true, ..server(30) };
    for rule in ["{page: {}}", "{offset: {limit: 10}}"] {
        let refused = deaf.read(&paginate(rule), None).unwrap_err();
        assert!(refused.why.contains("byte for byte"), "{refused:?}");
    }
    // A unit that begins later knows the first page.
    let share = Share { pages: 2..3, open: true, first: Some(1), size: None };
    let tells = Server { tells_pages: true, ..deaf };
    let refused = tells.read(&paginate("{page: {total: {pages: p}}}"), Some(share)).unwrap_err();
    assert!(refused.why.contains("byte for byte"), "{refused:?}");
}

#[test]
fn a_total_that_the_pages_do_not_reach_is_refused() {
    let http = paginate("{page: {total: {records: p}}}");
    let mut sequence = Sequence::new(&http, None);
    let page = |records, body| Facts { records, body, total_records: Some(100), ..Facts::default() };
    assert_eq!(sequence.next(&Asked::Page(1), "1", &page(60, 1)), Ok(Some(Asked::Page(2))));
    let refused = sequence.next(&Asked::Page(2), "2", &page(0, 2)).unwrap_err();
    assert!(refused.why.contains("has no records, though"), "{refused:?}");
    let mut sequence = Sequence::new(&http, None);
    let silent = Facts { records: 60, ..Facts::default() };
    assert!(sequence.next(&Asked::Page(1), "1", &silent).unwrap_err().why.contains("how many there are"));
}

#[test]
fn cursors_and_links_end_where_there_is_none_and_never_go_in_a_circle() {
    let token =
        |token: &str, more| Facts { records: 1, body: 0, next: Some(as_token(token)), more, ..Facts::default() };
    let http = |yaml: &str| HttpSpec { allow_repeated_pages: true, ..paginate(yaml) };
    let mut sequence = Sequence::new(&http("{cursor: {path: n}}"), None);
    let cursor = |token: &str| Asked::Cursor(as_token(token));
    assert_eq!(sequence.next(&Asked::First, "u", &token("a", None)), Ok(Some(cursor("a"))));
    assert_eq!(sequence.next(&cursor("a"), "u?a", &token("b", None)), Ok(Some(cursor("b"))));
    assert!(sequence.next(&cursor("b"), "u?b", &token("a", None)).unwrap_err().why.contains("leads back"));

    let mut sequence = Sequence::new(&http("{cursor: {path: n, more: m}}"), None);
    assert_eq!(sequence.next(&Asked::First, "u", &token("a", Some(true))), Ok(Some(cursor("a"))));
    assert_eq!(sequence.next(&cursor("a"), "u?a", &token("b", Some(false))), Ok(None));
    let mut sequence = Sequence::new(&http("{cursor: {path: n, more: m}}"), None);
    assert!(sequence.next(&Asked::First, "u", &token("a", None)).is_err(), "`more` leads nowhere");
    let none = Facts { more: Some(true), ..Facts::default() };
    assert!(sequence.next(&Asked::First, "u", &none).unwrap_err().why.contains("no token"));

    let mut sequence = Sequence::new(&http("link_header"), None);
    let link = |url: &str| Asked::Link(url.to_owned());
    assert_eq!(sequence.next(&Asked::First, "u", &token("u?2", None)), Ok(Some(link("u?2"))));
    assert!(sequence.next(&link("u?2"), "u?2", &token("u", None)).unwrap_err().why.contains("leads back"));
    let empty = Facts::default();
    assert_eq!(Sequence::new(&http("link_header"), None).next(&Asked::First, "u", &empty), Ok(None));
}

#[test]
fn an_api_that_never_ends_is_stopped() {
    let http = http("{paginate: {page: {}}, max_pages: 3}");
    let refused = server(1_000).read(&http, None).unwrap_err();
    assert!(refused.why.contains("more than 3 pages"), "{refused:?}");
    assert_eq!(server(30).read(&HttpSpec { max_pages: Some(4), ..http }, None).unwrap().len(), 30);
}

#[test]
fn the_last_share_goes_on_where_pages_were_added_since() {
    let rule = paginate("{page: {size: 10, size_param: n, total: {records: p}}}");
    let then = Server { tells_records: true, ..server(30) };
    let now = Server { records: 45, ..then };
    let share = |pages, open| Some(Share { pages, open, first: None, size: None });
    assert_eq!(now.read(&rule, share(0..2, false)), Ok((0..20).collect()));
    assert_eq!(now.read(&rule, share(2..3, true)), Ok((20..45).collect()));
}

#[test]
fn pages_are_even_that_are_of_one_size_but_for_the_last() {
    for (sizes, total, even) in [
        (&[10_u64, 10, 10][..], 45, true),
        (&[10, 10, 5], 25, true),
        (&[10, 10, 0], 20, true),
        (&[10, 5, 10], 45, false),
        (&[5, 10], 45, false),
        (&[10, 10, 5], 45, false),
        (&[10, 20], 30, false),
        (&[], 30, true),
    ] {
        assert_eq!(is_even(sizes, total), even, "{sizes:?} of {total}");
    }
}

fn any_server() -> impl Strategy<Value = Server> {
    (0_u64..120, prop_oneof![Just(u64::MAX), 1_u64..15], any::<bool>(), any::<bool>()).prop_map(
        |(records, cap, tells_pages, tells_records)| Server { records, cap, deaf: false, tells_pages, tells_records },
    )
}

fn any_rule(server: Server) -> impl Strategy<Value = String> {
    let total = match (server.tells_pages, server.tells_records) {
        (true, _) => ", total: {pages: p}",
        (_, true) => ", total: {records: p}",
        _ => "",
    };
    let records = if server.tells_records { ", total: {records: p}" } else { "" };
    prop_oneof![
        (0_u64..3).prop_map(move |start| format!("{{page: {{start: {start}{total}}}}}")),
        (1_u64..15).prop_map(move |size| format!("{{page: {{size: {size}, size_param: n{total}}}}}")),
        (1_u64..15).prop_map(move |limit| format!("{{offset: {{limit: {limit}{records}}}}}")),
    ]
}

proptest! {
    #[test]
    fn every_record_once_or_a_refusal((server, rule) in any_server().prop_flat_map(|s| (Just(s), any_rule(s)))) {
        let http = paginate(&rule);
        if let Ok(read) = server.read(&http, None) {
            prop_assert_eq!(read, (0..server.records).collect::<Vec<_>>());
        } else {
            prop_assert!(server.cap < 15, "only a server with a mind of its own is refused");
        }
    }

    #[test]
    fn shares_are_disjoint_and_complete(
        (server, rule) in any_server().prop_flat_map(|s| (Just(s), any_rule(s))),
        cuts in prop::collection::btree_set(1_u64..30, 0..4),
    ) {
        let http = paginate(&rule);
        let rule = http.paginate.clone().unwrap();
        let first = nth(&rule, 0).unwrap();
        let (_, facts) = server.ask(&http, &first);
        if let Ok(Some(pages)) = count(&rule, &facts) {
            let mut edges = vec![0];
            edges.extend(cuts.into_iter().filter(|cut| *cut < pages));
            edges.push(pages);
            let mut all = Vec::new();
            for edge in edges.windows(2) {
                let share = Share {
                    pages: edge[0]..edge[1],
                    open: edge[1] == pages,
                    first: (edge[0] > 0).then_some(facts.body),
                    size: is_counted_by_first(&rule, &facts).then_some(facts.records),
                };
                all.extend(server.read(&http, Some(share)).unwrap());
            }
            prop_assert_eq!(all, (0..server.records).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pages_of_any_sizes_are_read_once_or_refused(
        sizes in prop_oneof![
            prop::collection::vec(0_u64..6, 1..8),
            (1_u64..6, 1_usize..8, 0_u64..6).prop_map(|(size, full, last)| {
                let mut sizes = vec![size; full];
                sizes.push(last.min(size));
                sizes
            }),
        ],
        cuts in prop::collection::btree_set(1_u64..8, 0..4),
    ) {
        let http = paginate("{page: {start: 0, total: {records: p}}}");
        let total: u64 = sizes.iter().sum();
        // Pages are numbered by what the server has in them, whatever anybody counts.
        let page = |index: u64| {
            let at = usize::try_from(index).unwrap();
            let from: u64 = sizes.iter().take(at).sum();
            let rows: Vec<u64> = (from..from + sizes.get(at).copied().unwrap_or(0)).collect();
            let facts = Facts { records: rows.len() as u64, body: index, total_records: Some(total), ..Facts::default() };
            (rows, facts)
        };
        let read = |share: Option<Share>| {
            let mut sequence = Sequence::new(&http, share);
            let (mut all, mut next) = (Vec::new(), sequence.first());
            while let Some(Asked::Page(index)) = next {
                let (rows, facts) = page(index);
                next = sequence.next(&Asked::Page(index), &index.to_string(), &facts)?;
                all.extend(rows);
            }
            Ok::<_, Refused>(all)
        };
        let whole: Vec<u64> = (0..total).collect();
        if let Ok(all) = read(None) {
            prop_assert_eq!(&all, &whole, "one after the other");
        }
        let rule = http.paginate.clone().unwrap();
        let first = page(0).1;
        let pages = count(&rule, &first);
        if let Ok(Some(pages)) = pages && pages > 1 {
            let mut edges = vec![0];
            edges.extend(cuts.into_iter().filter(|cut| *cut < pages));
            edges.push(pages);
            let shares = edges.windows(2).map(|edge| Share {
                pages: edge[0]..edge[1],
                open: edge[1] == pages,
                first: (edge[0] > 0).then_some(first.body),
                size: Some(first.records),
            });
            let parts: Result<Vec<_>, Refused> = shares.map(|share| read(Some(share))).collect();
            let is_even = sizes.iter().rev().skip(1).all(|size| *size == first.records) && sizes[sizes.len() - 1] > 0;
            if let Ok(parts) = parts {
                prop_assert_eq!(parts.concat(), whole, "share by share");
            } else {
                prop_assert!(!is_even || sizes[sizes.len() - 1] > first.records, "{sizes:?}");
            }
        }
    }

    #[test]
    fn a_chain_of_any_tokens_ends(tokens in prop::collection::vec(prop::option::of("[a-c]"), 0..20)) {
        let http = HttpSpec { allow_repeated_pages: true, ..paginate("{cursor: {path: n}}") };
        let mut sequence = Sequence::new(&http, None);
        let mut next = sequence.first();
        let mut pages = 0;
        for token in tokens.into_iter().chain(std::iter::repeat(Some("a".to_owned()))) {
            let Some(asked) = next else { break };
            pages += 1;
            let facts = Facts { records: 1, next: token.as_deref().map(as_token), ..Facts::default() };
            next = sequence.next(&asked, "u", &facts).unwrap_or_default();
        }
        prop_assert!(pages <= 5, "three tokens lead through four pages at most");
    }
}
