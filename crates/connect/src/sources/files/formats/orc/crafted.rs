//! An ORC file made by hand: orc-rust writes no lists.

use super::tail::{put_bytes, put_number};

/// Three rows of a column `l` with a list of whole numbers each, which are said to have `length` items; there are six in all.
pub(in super::super) fn lists(length: u64) -> Vec<u8> {
    let message = |fields: &[(u64, u64)]| {
        let mut bytes = Vec::new();
        fields.iter().for_each(|(field, value)| put_number(&mut bytes, *field, *value));
        bytes
    };
    // Short runs: three times the length, in eight bytes, and six times 1.
    let mut lengths = vec![0x38];
    lengths.extend_from_slice(&length.to_be_bytes());
    let items = [0x03, 0x02];

    let mut stripe = Vec::new();
    put_bytes(&mut stripe, 1, &message(&[(1, 2), (2, 1), (3, lengths.len() as u64)]));
    put_bytes(&mut stripe, 1, &message(&[(1, 1), (2, 2), (3, items.len() as u64)]));
    for encoding in [0, 2, 2] {
        put_bytes(&mut stripe, 2, &message(&[(1, encoding)]));
    }
    let mut file = b"ORC".to_vec();
    file.extend_from_slice(&lengths);
    file.extend_from_slice(&items);
    let data = file.len() as u64 - 3;
    file.extend_from_slice(&stripe);

    let mut footer = message(&[(1, 3), (2, file.len() as u64 - 3)]);
    put_bytes(&mut footer, 3, &message(&[(1, 3), (2, 0), (3, data), (4, stripe.len() as u64), (5, 3)]));
    let mut root = message(&[(1, 12)]);
    put_bytes(&mut root, 2, &[1]);
    put_bytes(&mut root, 3, b"l");
    let mut list = message(&[(1, 10)]);
    put_bytes(&mut list, 2, &[2]);
    for kind in [root, list, message(&[(1, 4)])] {
        put_bytes(&mut footer, 4, &kind);
    }
    put_number(&mut footer, 6, 3);
    file.extend_from_slice(&footer);

    let mut postscript = message(&[(1, footer.len() as u64), (2, 0), (5, 0)]);
    put_bytes(&mut postscript, 8000, b"ORC");
    file.extend_from_slice(&postscript);
    file.push(postscript.len() as u8);
    file
}
