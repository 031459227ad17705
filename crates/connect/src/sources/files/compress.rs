//! How a file is compressed: told by the ending of its name, and for text by its first bytes, which do not lie.

use gristmill_model::spec::Compression;

/// As many first bytes as [`by_magic`] wants to see.
pub(crate) const MAGIC_BYTES: u64 = 6;

/// The compression that an ending stands for.
fn by_ending(ending: &str) -> Option<Compression> {
    Some(match ending.to_ascii_lowercase().as_str() {
        "gz" | "gzip" => Compression::Gzip,
        "bz2" => Compression::Bzip2,
        "xz" => Compression::Xz,
        "zst" | "zstd" => Compression::Zstd,
        _ => return None,
    })
}

/// A file name without its compression's ending, and that compression: `a.csv.gz` is (`a.csv`, gzip).
pub(crate) fn split_name(name: &str) -> (&str, Compression) {
    match name.rsplit_once('.') {
        Some((stem, ending)) => match by_ending(ending) {
            Some(compression) => (stem, compression),
            None => (name, Compression::None),
        },
        None => (name, Compression::None),
    }
}

/// The compression that first bytes stand for. Text never begins with any of these.
pub(crate) fn by_magic(first: &[u8]) -> Compression {
    const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
    match first {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => Compression::Bzip2,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame, as parallel compressors write it first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ if first.starts_with(XZ) => Compression::Xz,
        _ => Compression::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_and_the_first_bytes_tell_the_compression() {
        assert_eq!(split_name("a.csv.GZ"), ("a.csv", Compression::Gzip));
        assert_eq!(split_name("a.csv"), ("a.csv", Compression::None));
        assert_eq!(by_magic(&[0x1f, 0x8b, 8]), Compression::Gzip);
        assert_eq!(by_magic(b"BZh91A"), Compression::Bzip2);
        assert_eq!(by_magic(b"BZhello"), Compression::None);
        assert_eq!(by_magic(b""), Compression::None);
    }
}
