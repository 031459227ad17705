//! Every parser of bytes from outside as a function of bytes: for the targets in `fuzz/`, and for a property test that
//! calls the same.
//!
//! None may panic, hang, end the process or grow without bound, whatever it is given. What it answers is of no interest,
//! but for what must hold whatever the bytes are: the functions check that themselves.

use crate::sinks::files::fuzzing as sink;
use crate::sources::files::fuzzing as files;
use crate::sources::{http, mysql, postgres};
use gristmill_model::spec::FileFormat;

/// A target, by the name of its file in `fuzz/fuzz_targets`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 21] = [
    ("arrow_file", arrow_file),
    ("avro_file", avro_file),
    ("csv_file", csv_file),
    ("csv_records", csv_records),
    ("file_cuts", file_cuts),
    ("file_parts", file_parts),
    ("http_link", http_link),
    ("http_page", http_page),
    ("json_file", json_file),
    ("json_split", json_split),
    ("kept_row", kept_row),
    ("ledger_entry", ledger_entry),
    ("moment", moment),
    ("mysql_values", mysql_values),
    ("ndjson_file", ndjson_file),
    ("orc_file", orc_file),
    ("packed_file", packed_file),
    ("parquet_file", parquet_file),
    ("postgres_copy", postgres_copy),
    ("postgres_files", postgres_files),
    ("table_names", table_names),
];

/// An Arrow IPC file or stream.
pub fn arrow_file(bytes: &[u8]) {
    files::file(FileFormat::Arrow, bytes);
}

/// An Avro container file: header, blocks, and the walk through their records.
pub fn avro_file(bytes: &[u8]) {
    files::file(FileFormat::Avro, bytes);
}

/// A CSV file, its types guessed.
pub fn csv_file(bytes: &[u8]) {
    files::file(FileFormat::Csv, bytes);
}

/// What a dead letter holds of a row of a database.
pub fn kept_row(bytes: &[u8]) {
    crate::kept::fuzzing::row(bytes);
}

/// Records of a CSV text in a dialect.
pub fn csv_records(bytes: &[u8]) {
    files::csv_records(bytes);
}

/// Where a CSV text in a dialect, and lines, may be cut.
pub fn file_cuts(bytes: &[u8]) {
    files::cuts(bytes);
}

/// Files as a compaction takes them apart and writes them anew.
pub fn file_parts(bytes: &[u8]) {
    files::parts(bytes);
}

/// The header `Link`, and those that say when to ask again.
pub fn http_link(bytes: &[u8]) {
    http::fuzzing::link(bytes);
}

/// A page of an API: places in its JSON, and how many records there are.
pub fn http_page(bytes: &[u8]) {
    http::fuzzing::page(bytes);
}

/// A JSON document.
pub fn json_file(bytes: &[u8]) {
    files::file(FileFormat::Json, bytes);
}

/// A JSON document in chunks.
pub fn json_split(bytes: &[u8]) {
    files::json_split(bytes);
}

/// An entry of the log beside a target's files.
pub fn ledger_entry(bytes: &[u8]) {
    sink::ledger_entry(bytes);
}

/// A moment as a text.
pub fn moment(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parsed = crate::moment::parse(&text);
    for lag in [1, 3_600, u64::MAX] {
        let earlier = crate::moment::earlier(&text, std::time::Duration::from_secs(lag));
        if let (Some(earlier), Some(parsed)) = (earlier.as_deref().and_then(crate::moment::parse), parsed) {
            assert!(earlier <= parsed, "{text} less {lag} s is not earlier");
        }
    }
}

/// Rows of a MySQL server.
pub fn mysql_values(bytes: &[u8]) {
    mysql::fuzzing::values(bytes);
}

/// A file of JSON lines.
pub fn ndjson_file(bytes: &[u8]) {
    files::file(FileFormat::Ndjson, bytes);
}

/// An ORC file, from its tail on.
pub fn orc_file(bytes: &[u8]) {
    files::file(FileFormat::Orc, bytes);
}

/// A file that is packed.
pub fn packed_file(bytes: &[u8]) {
    files::packed(bytes);
}

/// A Parquet file, from its footer on.
pub fn parquet_file(bytes: &[u8]) {
    files::file(FileFormat::Parquet, bytes);
}

/// What a PostgreSQL server sends for COPY.
pub fn postgres_copy(bytes: &[u8]) {
    postgres::fuzzing::copy(bytes);
}

/// A password file and a service file.
pub fn postgres_files(bytes: &[u8]) {
    postgres::fuzzing::files(bytes);
}

/// Names of tables and types, as pipelines write them.
pub fn table_names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for quote in ['"', '`'] {
        if let Ok(parts) = crate::table_name::table_parts(&text, quote) {
            let quoted = |part: &String| format!("{quote}{}{quote}", part.replace(quote, &format!("{quote}{quote}")));
            let again = parts.iter().map(quoted).collect::<Vec<_>>().join(".");
            assert_eq!(crate::table_name::table_parts(&again, quote).as_ref(), Ok(&parts));
        }
    }
    if let Ok(kind) = crate::types::parse_type(&text) {
        let name = crate::types::type_name(&kind);
        assert_eq!(crate::types::parse_type(&name).as_ref().ok(), Some(&kind), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::path::Path;

    #[test]
    fn each_target_has_a_file_of_its_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with("yaml_"))
            .collect();
        assert_eq!(files, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    /// Texts and files that parsers get further with than with any bytes.
    fn seeds() -> Vec<Vec<u8>> {
        let mut seeds: Vec<Vec<u8>> = [
            "id,name\r\n1,\"a \"\"b\"\"\nc\"\n# x\n2;'y'\t3\n",
            "{\"data\": [{\"id\": 1, \"at\": [1.5, null, {\"x\": \"\\u00e9\"}]}, {\"id\": 99999999999999999999}]}\n{\"id\": 2}",
            "<https://a.example/x?y=1>; rel=\"next\"; title=\"a, b\", </z>; rel='prev next'",
            "localhost:5432:shop:e\\:tl:one\n*:*:*:*:\\\\\n[shop]\nhost=db.example.com\n",
            "a.\"b.c\".`d``e`.decimal(10,2).timestamp(us, Europe/Paris)",
            "2024-01-15T10:00:00.123+02:00",
            "{\"decision\":\"publish\",\"key\":{\"slot\":{\"pipeline\":\"p\",\"step\":\"s\",\"interval\":{\"start\":\"2024-01-15T00:00:00Z\",\"end\":\"2024-01-16T00:00:00Z\"},\"target\":\"t\"},\"generation\":1},\"owner\":\"r\",\"at\":\"2024-01-15T00:00:00Z\",\"publish\":[{\"path\":\"a\",\"partition\":\"\",\"rows\":1,\"bytes\":18446744073709551615,\"handle\":null},{\"path\":\"../b\",\"partition\":\"\",\"rows\":1,\"bytes\":7,\"handle\":{}}]}",
        ]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
        seeds.push(
            [crate::sources::postgres::fuzzing::SIGNATURE.as_slice(), &[0; 8], &[0, 2, 0, 0, 0, 4, 0, 0, 0, 7]]
                .concat(),
        );
        seeds.extend(files::binary_seeds());
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&b"{\"id\":1}\n".repeat(500)).unwrap();
        seeds.push(packed.finish().unwrap());
        seeds
    }

    /// Any bytes, or a seed that was cut, changed and joined with others.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        let changed = (prop::sample::select(seeds()), edits, any::<prop::sample::Index>(), prop::bool::weighted(0.2));
        let changed = changed.prop_map(|(mut seed, edits, end, is_cut)| {
            for (at, byte) in edits {
                let at = at.index(seed.len());
                seed[at] = byte;
            }
            if is_cut {
                seed.truncate(end.index(seed.len()));
            }
            seed
        });
        prop_oneof![2 => prop::collection::vec(any::<u8>(), 0..300), 5 => changed]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(
            128 * std::env::var("GRISTMILL_CASES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
        ))]

        #[test]
        fn no_bytes_are_too_odd_for_any_parser(bytes in bytes()) {
            for (name, target) in TARGETS {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&bytes)));
                prop_assert!(outcome.is_ok(), "{name} panicked");
            }
        }
    }
}
