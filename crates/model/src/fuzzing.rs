//! What a project's files say as a function of bytes: for the target in `fuzz/`, and for a property test that calls the same.

use crate::spec::{Defaults, HttpSpec, PipelineSpec, TimeFormat};
use crate::yaml::{Diagnostic, decode, parse};
use crate::{ByteSize, Duration};

/// A pipeline file, and the small languages within it. A mistake has a place in the text.
pub fn yaml_pipeline(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // As YAML counts them: a carriage return alone ends a line, too.
    let lines = text.split(['\n', '\r']).count() + 1;
    let check = |mistakes: &[Diagnostic]| {
        assert!(!mistakes.is_empty(), "refused without a word");
        assert!(mistakes.iter().all(|mistake| mistake.line <= lines), "a mistake behind the end: {mistakes:?}");
    };
    match parse("p.yaml", &text) {
        Ok(node) => {
            let _ = decode::<HttpSpec>(&node);
            if let Err(mistakes) = PipelineSpec::from_node(&node, &["api", "db"], &Defaults::default()) {
                check(&mistakes);
            }
        }
        Err(mistakes) => check(&mistakes),
    }
    let _ = (text.parse::<Duration>(), text.parse::<ByteSize>());
    if let Ok(format) = text.parse::<TimeFormat>() {
        let _ = format.write(chrono::DateTime::UNIX_EPOCH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: &str = "name: p\nschedule: \"0 2 * * *\"\nsteps:\n  a:\n    extract: {from: api, path: x, incremental_key: at, lag: 2h, http: {paginate: {page: {size: 5, size_param: n}}}}\n    checks: [{not_null: id}, {between: {column: t, min: 0}}]\n  b: {sql: |-\n    select 1}\n  c: {load: {from: a, to: db, table: t, strategy: append}}\n";

    proptest! {
        #[test]
        fn no_text_is_too_odd_for_a_pipeline(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
            more in "[-\\[\\]{}:,?&*!|> \n\"'#%a0.]{0,60}",
        ) {
            yaml_pipeline(&bytes);
            yaml_pipeline(more.as_bytes());
            let mut seed = SEED.as_bytes().to_vec();
            for (at, byte) in edits {
                let at = at.index(seed.len());
                seed[at] = byte;
            }
            yaml_pipeline(&seed);
            seed.extend_from_slice(more.as_bytes());
            yaml_pipeline(&seed);
        }
    }
}
