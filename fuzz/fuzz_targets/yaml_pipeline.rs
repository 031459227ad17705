#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gristmill_model::fuzzing::yaml_pipeline(bytes));
