use super::*;
use crate::spec::Defaults;
use crate::yaml::parse;

fn understand(text: &str) -> Result<PipelineSpec, Vec<Diagnostic>> {
    PipelineSpec::from_node(&parse("pipelines/p.yaml", text).unwrap(), &["db", "lake"], &Defaults::default())
}

#[test]
fn a_pipeline_is_named_by_its_file_and_keeps_its_steps_in_order() {
    let spec = understand(
        "steps:\n  z: {extract: {from: db, table: t}}\n  a:\n    load: {from: z, to: lake, path: out/, strategy: replace}\n",
    )
    .unwrap();
    assert_eq!(spec.name.as_str(), "p");
    let names: Vec<&str> = spec.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["z", "a"]);
}

#[test]
fn everything_wrong_is_said_at_once() {
    let mistakes = understand(
        "steps:\n  Orders: {extract: {from: dbb, table: t, query: q}}\n  out:\n    load: {from: order, to: lake, table: t, strategy: delete+insert}\n  both: {sql: select 1, command: ls}\n",
    )
    .unwrap_err();
    let text: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    for part in [
        "`Orders` cannot be a step name",
        "exactly one of `table`, `tables`, `query` and `path`",
        "connection `dbb`, which does not exist\n  hint: did you mean `db`?",
        "step `order`, which does not exist",
        "needs `key` or `scope`",
        "`sql` and `command` at once",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_mistake_in_one_step_hides_nothing_in_the_others() {
    let node = parse(
        "pipelines/p.yaml",
        "steps:\n  fine: {sql: select 1}\n  out: {load: {from: nowhere, to: lak, path: o/, strategy: appendd}}\n  late: {after: [nobody], command: ls, retris: 1}\n  late2: {extrac: {from: db}}\n",
    )
    .unwrap();
    let (spec, mistakes) = PipelineSpec::from_node_partly(&node, &["db", "lake"], &Defaults::default());
    let steps: Vec<StepName> = spec.unwrap().steps.into_iter().map(|step| step.name).collect();
    assert_eq!(steps, [StepName::from("fine")]);
    let seen: Vec<(usize, &str)> = mistakes.iter().map(|mistake| (mistake.line, mistake.message.as_str())).collect();
    assert_eq!(
        seen,
        [
            (3, "step `out` names the step `nowhere`, which does not exist"),
            (3, "step `out` names the connection `lak`, which does not exist"),
            (3, "unknown value `appendd`"),
            (4, "step `late` names the step `nobody`, which does not exist"),
            (4, "unknown key `retris`"),
            (5, "unknown key `extrac`"),
        ]
    );
}

#[test]
fn a_wrong_check_is_said_once_at_its_place_beside_the_others() {
    let mistakes = understand(
        "steps:\n  a:\n    extract: {from: db, table: t}\n    checks:\n      - not_nul: id\n      - between: {column: x}\n      - relationships: {column: x, to: b.x}\n",
    )
    .unwrap_err();
    let lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [5, 6, 7], "{mistakes:?}");
}

#[test]
fn checks_are_written_short_or_in_full() {
    let spec = understand(
        "steps:\n  a:\n    extract: {from: db, table: t}\n    checks:\n      - not_null: id\n      - unique: [id, day]\n      - between: {column: total, min: 0, strict_min: true, on_fail: dead_letter}\n      - row_count: {min: 1}\n",
    )
    .unwrap();
    let names: Vec<&str> = spec.steps[0].checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["not_null(id)", "unique(id, day)", "between(total)", "row_count"]);
}

#[test]
fn many_tables_are_loaded_each_into_a_target_of_its_own() {
    let text = |extract: &str, load: &str| {
        format!(
            "steps:\n  all: {{extract: {{from: db, {extract}}}}}\n  out: {{load: {{from: all, to: lake, {load}}}}}\n"
        )
    };
    let fine = "path: \"raw/{{ table }}/\", strategy: replace";
    assert!(understand(&text("tables: [\"public.*\"], exclude: \"tmp_*\"", fine)).is_ok());
    // The key is each table's own.
    let keyed = "table: \"raw.{{ table }}\", strategy: delete+insert";
    assert!(understand(&text("tables: \"*\"", keyed)).is_ok());
    for (extract, load, message) in [
        ("tables: \"*\"", "path: raw/, strategy: replace", "every table of `all` would be loaded into `raw/`"),
        ("tables: a.b.c", fine, "it has more than two parts"),
        ("tables: []", fine, "a list of tables is empty"),
        ("table: a, exclude: b", "path: a/, strategy: replace", "`exclude` goes with `tables`"),
        ("tables: \"*\", table: a", fine, "exactly one of"),
        ("tables: \"*\", columns: [a]", fine, "`columns` is for one table"),
        ("tables: \"*\", dedup: {key: a, keep: latest by b}", fine, "`dedup` is for one table"),
        ("table: a, schema_contract: discard_row", "path: a/, strategy: replace", "goes with `incremental_key`"),
    ] {
        let mistakes = understand(&text(extract, load)).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].message.contains(message), "{extract}, {load}: {mistakes:?}");
    }
}

#[test]
fn a_set_check_cannot_send_rows_away() {
    let mistakes = understand(
        "steps:\n  a:\n    extract: {from: db, table: t}\n    checks:\n      - unique: {column: id, on_fail: dead_letter}\n",
    )
    .unwrap_err();
    assert!(mistakes[0].message.contains("judges all rows together"), "{mistakes:?}");
}

#[test]
fn a_key_that_nothing_honours_yet_is_refused_by_name() {
    let mistakes = understand("schedule: '@daily'\nsteps:\n  a: {sql: select 1}\n").unwrap_err();
    assert_eq!(mistakes[0].message, "unknown key `schedule`");
}
