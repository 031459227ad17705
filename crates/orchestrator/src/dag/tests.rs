use super::*;
use gristmill_model::spec::Defaults;
use gristmill_model::yaml::parse;
use proptest::prelude::*;

fn spec(steps: &str) -> PipelineSpec {
    let text = format!("name: p\nsteps:\n{steps}");
    PipelineSpec::from_node(&parse("pipelines/p.yaml", &text).unwrap(), &["db", "lake"], &Defaults::default()).unwrap()
}

fn dag(steps: &str) -> Dag {
    Dag::new(&spec(steps)).unwrap()
}

fn words(names: &[StepName]) -> Vec<&str> {
    names.iter().map(StepName::as_str).collect()
}

/// The tasks of a run, each as `actions(shared)<needs@wave`.
fn shown(dag: &Dag, selection: Option<&str>) -> Vec<String> {
    let plan = dag.plan(selection.map(StepName::from).as_ref()).unwrap();
    plan.tasks
        .iter()
        .map(|task| {
            let shared = match &task.kind {
                TaskKind::Stage(group) => words(&group.shared).join(","),
                _ => String::new(),
            };
            format!("{}({shared})<{:?}@{}", words(task.actions()).join("+"), task.needs, task.wave)
        })
        .collect()
}

const SALES: &str = "
  wait_for_orders: {wait_for: {pipeline: export}}
  orders: {after: [wait_for_orders], extract: {from: db, table: orders}}
  rates: {extract: {from: lake, path: rates/}}
  products: {extract: {from: lake, path: products/}}
  customers: {extract: {from: lake, path: customers/}}
  cleaned:
    sql: SELECT * FROM orders
    checks: [{relationships: {column: product_id, to: products.product_id}}]
  enriched: {sql: \"SELECT * FROM cleaned JOIN products USING (product_id) JOIN customers USING (customer_id) JOIN rates ON true\"}
  daily_metrics: {sql: SELECT count(*) FROM enriched}
  load_lake: {load: {from: enriched, to: lake, path: out/, strategy: replace}}
  load_warehouse: {load: {from: daily_metrics, to: db, table: m, strategy: replace}}
";

#[test]
fn the_sales_pipeline_computes_the_enriched_orders_once_for_both_loads() {
    let dag = dag(SALES);
    assert_eq!(shown(&dag, None), ["wait_for_orders()<[]@0", "load_lake+load_warehouse(enriched)<[0]@0"]);
    assert_eq!(shown(&dag, Some("load_warehouse")), ["wait_for_orders()<[]@0", "load_warehouse()<[0]@0"]);
    let reads: Vec<&str> = dag.reads("cleaned").into_iter().map(StepName::as_str).collect();
    assert_eq!(reads, ["orders", "products"]);
    assert_eq!(words(&dag.views("load_lake")), ["orders", "rates", "products", "customers", "cleaned", "enriched"]);
    assert!(dag.downstream("rates").contains("load_warehouse"));
    assert!(!dag.upstream("load_lake").contains("daily_metrics"));
}

#[test]
fn what_is_staged_together_follows_shared_views_and_order() {
    let base = "  a: {extract: {from: db, table: t}}\n  b: {extract: {from: db, table: u}}\n";
    let load = |name: &str, from: &str, more: &str| {
        format!("  {name}: {{load: {{from: {from}, to: lake, path: {name}/, strategy: replace}}{more}}}\n")
    };
    let cases: Vec<(&str, String, Vec<&str>)> = vec![
        ("nothing shared", format!("{base}{}{}", load("x", "a", ""), load("y", "b", "")), vec!["x()<[]@0", "y()<[]@0"]),
        ("one view, two loads", format!("{base}{}{}", load("x", "a", ""), load("y", "a", "")), vec!["x+y(a)<[]@0"]),
        (
            "one committed after the other",
            format!("{base}{}{}", load("x", "a", ""), load("y", "a", ", after: [x]")),
            vec!["x+y(a)<[]@0"],
        ),
        (
            "not cached",
            format!(
                "  a: {{extract: {{from: db, table: t}}, cache: false}}\n{}{}",
                load("x", "a", ""),
                load("y", "a", "")
            ),
            vec!["x()<[]@0", "y()<[]@0"],
        ),
        (
            "cached for one action that reads it twice",
            format!(
                "  a: {{extract: {{from: db, table: t}}, cache: true}}\n  c: {{sql: \"SELECT 1 FROM a JOIN a AS b ON true\"}}\n{}",
                load("x", "c", ""),
            ),
            vec!["x(a)<[]@0"],
        ),
        (
            "a view after a load forces a wave",
            format!(
                "{}{}  c: {{command: ls, after: [y]}}\n",
                load("x", "g", "")
                    + "  g: {generate: {rows: 1, table: people}}\n  r: {extract: {from: db, table: t}, after: [x]}\n",
                load("y", "r", "")
            ),
            vec!["x()<[]@0", "y()<[0]@1", "c()<[0, 1]@2"],
        ),
        (
            "a wait before one of them holds both",
            format!(
                "{base}  w: {{wait_for: {{pipeline: q}}}}\n{}{}",
                load("x", "a", ", after: [w]"),
                load("y", "a", "")
            ),
            vec!["w()<[]@0", "x+y(a)<[0]@0"],
        ),
        (
            "groups that would wait for each other stay apart",
            format!(
                "{base}{}{}{}{}",
                load("x", "a", ""),
                load("y", "a", ", after: [u]"),
                load("u", "b", ""),
                load("v", "b", ", after: [x]")
            ),
            vec!["x()<[]@0", "u+v(b)<[0]@1", "y()<[0, 1]@2"],
        ),
        (
            "a check belongs to the load of the same view",
            format!("{base}{}  ok: {{check: a, checks: [{{not_null: id}}]}}\n", load("x", "a", "")),
            vec!["x+ok(a)<[]@0"],
        ),
    ];
    for (what, steps, wanted) in cases {
        let got = shown(&dag(&steps), None);
        if what.starts_with("groups that") {
            // Which of the two pairs stays together is a matter of order; that all of them run is not.
            assert_eq!(got.iter().map(|task| task.matches('+').count() + 1).sum::<usize>(), 4, "{what}: {got:?}");
            continue;
        }
        assert_eq!(got, wanted, "{what}");
    }
}

/// Of the last task: what must be done before it begins, and what is only committed before it.
fn order_of_last(dag: &Dag) -> (Vec<usize>, Vec<usize>, usize) {
    let last = dag.plan(None).unwrap().tasks.pop().unwrap();
    (last.needs, last.commits_after, last.wave)
}

#[test]
fn a_load_after_a_load_is_staged_beside_it_unless_it_could_see_its_rows() {
    let x = "  a: {extract: {from: lake, path: in/}}\n  x: {load: {from: a, to: db, table: x, strategy: replace}}\n";
    let y = |view: &str, load: &str| {
        format!("{x}  b: {{{view}}}\n  y: {{load: {{from: b, to: db, {load}, strategy: replace}}, after: [x]}}\n")
    };
    let (beside, first) = ((vec![], vec![0], 0), (vec![0], vec![], 1));
    let other = "extract: {from: lake, path: other/}";
    let hooked = x.replace("table: x", "table: x, post_sql: \"DROP TABLE y\"");
    let cases = [
        ("rows from elsewhere", y(other, "table: y"), &beside),
        ("rows from where it wrote", y("extract: {from: db, table: t}", "table: y"), &first),
        (
            "a query over such",
            y("sql: \"SELECT 1 FROM c\"", "table: y") + "  c: {extract: {from: db, table: t}}\n",
            &first,
        ),
        ("the same table", y(other, "table: main.X"), &first),
        ("an extract that waits for it", y("after: [x], extract: {from: lake, path: other/}", "table: y"), &first),
        ("SQL of its own", y(other, "table: y").replace(x, &hooked), &first),
        (
            "checks only",
            format!("{x}  b: {{{other}}}\n  y: {{check: b, checks: [{{not_null: id}}], after: [x]}}\n"),
            &first,
        ),
    ];
    for (what, steps, wanted) in cases {
        assert_eq!(order_of_last(&dag(&steps)), *wanted, "{what}");
    }
}

#[test]
fn what_a_load_may_see_counts_however_far_the_order_goes() {
    let load = |name: &str, to: &str, from: &str, after: &str| {
        format!("  {name}: {{load: {{from: {from}, to: {to}, strategy: replace}}, after: [{after}]}}\n")
    };
    let views = "  a: {extract: {from: lake, path: in/}}\n  b: {extract: {from: db, table: t}}\n";
    // `z` reads what `x` may have written, and comes after it only through `y`.
    let steps = format!(
        "{views}{}{}{}",
        load("x", "db, table: x", "a", ""),
        load("y", "lake, path: y/", "a", "x"),
        load("z", "lake, path: z/", "b", "y")
    );
    let plan = dag(&steps).plan(None).unwrap();
    let tasks: Vec<_> = plan.tasks.iter().map(|task| (words(task.actions()), task.needs.clone(), task.wave)).collect();
    // `x` and `y` read one view: they are one task, committed one after the other.
    assert_eq!(tasks, [(vec!["x", "y"], vec![], 0), (vec!["z"], vec![0], 1)]);
    // Two names for one place are one place, when that is known.
    let one = parse("gristmill.yaml", "{type: files, url: ./data}").unwrap();
    let connections = [("db".into(), one.clone()), ("lake".into(), one)].into_iter().collect();
    let (needs, commits_after, _) = order_of_last(&dag(&format!(
        "{views}{}{}",
        load("x", "lake, path: x/", "a", ""),
        load("y", "lake, path: y/", "b", "x")
    )));
    assert_eq!((needs, commits_after), (vec![], vec![0]));
    let known =
        dag(&format!("{views}{}{}", load("x", "lake, path: x/", "a", ""), load("y", "lake, path: y/", "b", "x")))
            .knowing(&connections);
    let (needs, commits_after, _) = order_of_last(&known);
    assert_eq!((needs, commits_after), (vec![0], vec![]));
}

#[test]
fn a_cycle_is_shown_as_the_way_round() {
    let mistakes = Dag::new(&spec(
        "  a: {sql: SELECT * FROM b}\n  b: {sql: SELECT * FROM c}\n  c: {sql: SELECT * FROM a}\n  d: {sql: SELECT * FROM d}\n",
    ))
    .unwrap_err();
    let messages: Vec<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
    assert_eq!(messages, ["steps need each other: a → b → c → a", "steps need each other: d → d"]);
    assert_eq!((mistakes[1].line, mistakes[1].column), (6, 3));
}

#[test]
fn a_table_that_is_no_step_is_said_with_the_one_that_was_meant() {
    let mistakes = Dag::new(&spec(
        "  orders: {extract: {from: db, table: t}}\n  x: {sql: SELECT * FROM order}\n  y: {sql: SELECT * FROM s.orders}\n  z: {sql: SELECT * FROM l}\n  l: {load: {from: orders, to: lake, path: o/, strategy: replace}}\n  w: {sql: \"SELECT *\\nFROM orders WHERE\"}\n",
    ))
    .unwrap_err();
    let text: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert!(text[0].starts_with("pipelines/p.yaml:4:3: the query of `x` "), "{}", text[0]);
    assert!(text[1].contains("reads `s.orders`, and a query reads steps only"), "{}", text[1]);
    assert!(text[2].contains("`l`, a load step, which has no rows"), "{}", text[2]);
    assert!(text[3].contains("line 2") || text[3].contains("cannot be read"), "{}", text[3]);
}

#[test]
fn a_view_cannot_be_selected_and_a_pipeline_of_views_has_nothing_to_run() {
    let sales = dag(SALES);
    let error = sales.plan(Some(&"cleaned".into())).unwrap_err();
    assert_eq!(error.hint_text(), Some("choose a step that needs it: `load_lake`, `load_warehouse`"));
    let error = sales.plan(Some(&"load_lak".into())).unwrap_err();
    assert_eq!(error.hint_text(), Some("did you mean `load_lake`?"));
    assert!(dag("  a: {sql: SELECT 1}\n").plan(None).unwrap_err().message().contains("nothing to run"));
}

/// Random pipelines: step `n` may read and follow steps before it only, so there is no cycle.
fn pipelines() -> impl Strategy<Value = String> {
    let step =
        (0..5u8, any::<u32>(), any::<u32>(), proptest::sample::select(vec!["", "cache: true, ", "cache: false, "]));
    proptest::collection::vec(step, 1..14).prop_map(|steps| {
        let mut text = String::new();
        let mut views: Vec<usize> = Vec::new();
        for (at, (kind, read, after, cache)) in steps.iter().enumerate() {
            let of = |bits: u32| views.iter().copied().filter(move |view| bits >> (view % 32) & 1 == 1);
            let source = of(*read).next().or(views.first().copied());
            let after: Vec<String> = (0..at)
                .filter(|n| after >> (n % 32) & 1 == 1 && after >> ((n * 7 + 3) % 32) & 1 == 1)
                .map(|n| format!("s{n}"))
                .collect();
            let after = format!("after: [{}]", after.join(", "));
            match (kind, source) {
                (0, _) | (_, None) => {
                    text += &format!("  s{at}: {{extract: {{from: db, table: t}}, {cache}{after}}}\n");
                    views.push(at);
                }
                (1, Some(_)) => {
                    let tables: Vec<String> = of(*read).map(|n| format!("s{n}")).collect();
                    let from = if tables.is_empty() { String::new() } else { format!(" FROM {}", tables.join(", ")) };
                    text += &format!("  s{at}: {{sql: \"SELECT 1{from}\", {cache}{after}}}\n");
                    views.push(at);
                }
                (2, _) => text += &format!("  s{at}: {{command: ls, {after}}}\n"),
                (_, Some(view)) => {
                    text += &format!(
                        "  s{at}: {{load: {{from: s{view}, to: lake, path: o{at}/, strategy: replace}}, {after}}}\n"
                    );
                }
            }
        }
        text + "  last: {command: ls}\n"
    })
}

proptest! {
    #[test]
    fn every_plan_runs_each_action_once_after_what_it_needs(steps in pipelines()) {
        let dag = dag(&steps);
        let plan = dag.plan(None).unwrap();
        let mut seen: Vec<StepName> = Vec::new();
        for (at, task) in plan.tasks.iter().enumerate() {
            prop_assert!(task.needs.iter().chain(&task.commits_after).all(|&need| need < at));
            for action in task.actions() {
                prop_assert!(!seen.contains(action));
                for before in dag.upstream(action.as_str()) {
                    if dag.kind(before.as_str()).unwrap().is_action() {
                        prop_assert!(seen.contains(&before), "{} needs {}", action, before);
                        let is_in = |tasks: &[usize]| tasks.iter().any(|&need| plan.tasks[need].actions().contains(&before));
                        let loads = [action, &before].iter().all(|step| dag.kind(step.as_str()) == Some(StepKind::Load));
                        // Two loads may be staged side by side, in one task, too: it commits them in their order.
                        let beside = loads && (is_in(&task.commits_after) || task.actions().contains(&before));
                        prop_assert!(is_in(&task.needs) || beside, "{} begins before {}", action, before);
                    }
                }
                seen.push(action.clone());
            }
            for &need in &task.needs {
                let least = plan.tasks[need].wave + usize::from(plan.tasks[need].loads);
                prop_assert!(task.wave >= least);
            }
            if let TaskKind::Stage(group) = &task.kind {
                prop_assert!(group.shared.iter().all(|view| group.views.contains(view)));
                let asked = |view: &StepName| {
                    steps.lines().any(|line| line.starts_with(&format!("  {view}: ")) && line.contains("cache: true"))
                };
                // With one action, a view is shared because that is asked of it, or because one of which it is asked reads it.
                prop_assert!(group.actions.len() > 1 || group.shared.is_empty() || group.shared.iter().any(asked));
            }
        }
        let actions = dag.order().into_iter().filter(|step| dag.kind(step.as_str()).unwrap().is_action()).count();
        prop_assert_eq!(seen.len(), actions);
    }
}
