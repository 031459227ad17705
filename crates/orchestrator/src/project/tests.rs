use super::*;
use gristmill_model::spec::StepBody;
use gristmill_model::{Interval, RunId};
use std::path::Path;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load(path: &Path, profile: Option<&str>, environment: &[(&str, &str)]) -> Result<Project> {
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Project::load_with(path, profile, &|name| environment.get(name).cloned())
}

fn day() -> Interval {
    Interval::day(chrono::NaiveDate::from_ymd_opt(2024, 1, 15).unwrap())
}

const PROJECT: &str = "name: sales\nmain: daily\nvars: {bucket: b1}\nconnections:\n  db: {type: sqlite, path: data/sales.db}\n  pg:\n    type: postgres\n    url: \"postgres://${USER_NAME:-me}:${PASSWORD}@host/${DB}\"\n    token: \"${file:secrets/token}\"\n    pattern: \"$${DB}\"\n";

#[test]
fn secrets_come_from_the_environment_the_dotenv_file_and_secret_files() {
    let folder = folder(&[
        ("gristmill.yaml", PROJECT),
        (".env", "PASSWORD=from-dotenv\nDB=dotenv-loses\n"),
        ("secrets/token", "t0ken\n"),
    ]);
    let project = load(folder.path(), None, &[("DB", "real")]).unwrap();
    let pg = &project.connections["pg"];
    assert_eq!(pg.get("url").and_then(Node::text), Some("postgres://me:from-dotenv@host/real"));
    assert_eq!(pg.get("token").and_then(Node::text), Some("t0ken"));
    assert_eq!(pg.get("pattern").and_then(Node::text), Some("${DB}"));
    let shown = format!("{project:?}");
    assert!(!shown.contains("from-dotenv") && !shown.contains("t0ken"), "{shown}");
    assert_eq!(project.spec.connections["pg"].get("token").and_then(Node::text), Some("${file:secrets/token}"));
}

#[test]
fn every_missing_variable_and_file_is_said_at_once_with_its_place() {
    let folder = folder(&[("gristmill.yaml", PROJECT), (".env", "PASSWORT=hunter2\n")]);
    let text = load(folder.path(), None, &[]).unwrap_err().to_string();
    assert!(text.contains("gristmill.yaml:8:10: the variables `PASSWORD` and `DB` are not set"), "{text}");
    assert!(text.contains("gristmill.yaml:9:12: the secret file `secrets/token` cannot be read"), "{text}");
    assert!(!text.contains("hunter2"));
    let text = load(folder.path(), None, &[("DB", "d")]).unwrap_err().to_string();
    assert!(text.contains("`.env` has `PASSWORT`"), "{text}");
}

#[test]
fn only_connections_of_the_chosen_profile_need_their_variables() {
    let text = "name: s\nconnections:\n  db: {type: sqlite, path: a.db}\nprofiles:\n  pg:\n    connections:\n      db: {type: postgres, url: \"${URL}\"}\n";
    let folder = folder(&[("gristmill.yaml", text)]);
    assert!(load(folder.path(), None, &[]).is_ok());
    assert!(load(folder.path(), Some("pg"), &[]).is_err());
    let project = load(folder.path(), Some("pg"), &[("URL", "postgres://h/d")]).unwrap();
    assert_eq!(project.connections["db"].get("url").and_then(Node::text), Some("postgres://h/d"));
}

const VIEW: &str = "steps:\n  a: {sql: \"SELECT '{{ ds }}' AS d\"}\n";

#[test]
fn a_path_may_be_the_project_a_folder_below_it_or_a_pipeline_file() {
    let folder = folder(&[
        ("gristmill.yaml", "name: s\n"),
        ("pipelines/one.yaml", VIEW),
        ("pipelines/two.yml", "name: second\nsteps:\n  a: {sql: SELECT 1}\n"),
        ("extra/three.yaml", VIEW),
        ("pipelines/notes.txt", "not a pipeline"),
    ]);
    let root = folder.path();
    let names = |project: &Project| project.pipelines().iter().map(|draft| draft.name.to_string()).collect::<Vec<_>>();
    for path in ["", "gristmill.yaml", "pipelines"] {
        let project = load(&root.join(path), None, &[]).unwrap();
        assert_eq!(names(&project), ["one", "second"], "{path}");
        let error = project.main().unwrap_err();
        assert!(error.message().contains("several pipelines: `one`, `second`"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
    let project = load(&root.join("pipelines/two.yml"), None, &[]).unwrap();
    assert_eq!((project.main().unwrap().name.as_str(), names(&project).len()), ("second", 2));
    let project = load(&root.join("extra/three.yaml"), None, &[]).unwrap();
    assert_eq!(project.main().unwrap().file, "extra/three.yaml");
    assert_eq!(names(&project), ["one", "second", "three"]);
}

#[test]
fn a_lone_pipeline_file_gets_an_empty_project_in_its_folder() {
    let folder = folder(&[("lone.yaml", VIEW)]);
    let project = load(&folder.path().join("lone.yaml"), None, &[]).unwrap();
    assert_eq!(project.root, std::fs::canonicalize(folder.path()).unwrap());
    assert_eq!(project.main().unwrap().name.as_str(), "lone");
    assert!(project.connections.is_empty());
    assert!(load(&folder.path().join("lone.yaml"), Some("pg"), &[]).unwrap_err().message().contains("profile `pg`"));
    assert_eq!(load(folder.path(), None, &[]).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(load(&folder.path().join("nope.yaml"), None, &[]).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn rendering_puts_in_templates_parameters_and_sql_files() {
    let folder = folder(&[
        ("gristmill.yaml", "name: s\nvars: {table: orders}\nconnections: {db: {type: sqlite, path: a.db}}\n"),
        (
            "pipelines/p.yaml",
            "description: about {{ ds }}\nparams: {region: eu, limit: 5}\nsteps:\n  a: {extract: {from: db, table: \"{{ var.table }}\", where: \"day = '{{ ds }}'\"}}\n  b: {sql: {file: sql/b.sql}}\n  c: {command: \"echo {{ params.region }} {{ params.limit }} {{ run_id }}\"}\n",
        ),
        ("pipelines/sql/b.sql", "SELECT * FROM a WHERE region = '{{ params.region }}'"),
    ]);
    let project = load(folder.path(), None, &[]).unwrap();
    let params = BTreeMap::from([("region".to_owned(), "us".to_owned())]);
    let (spec, context) = project.render("p", &RunId::from("r1"), day(), &params).unwrap();
    let StepBody::Extract(extract) = &spec.steps[0].body else { panic!("an extract") };
    assert_eq!((extract.table.as_deref(), extract.filter.as_deref()), (Some("orders"), Some("day = '2024-01-15'")));
    let StepBody::Sql(sql) = &spec.steps[1].body else { panic!("a query") };
    assert_eq!(sql.text, "SELECT * FROM a WHERE region = 'us'");
    let StepBody::Command(command) = &spec.steps[2].body else { panic!("a command") };
    assert_eq!(command.run, "echo us 5 r1");
    assert_eq!(context.params()["limit"], "5");
    let params = BTreeMap::from([("regoin".to_owned(), "us".to_owned())]);
    let error = project.render("p", &RunId::from("r1"), day(), &params).unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Usage, Some("did you mean `region`?")));
}

#[test]
fn a_missing_sql_file_is_said_with_the_one_that_was_meant() {
    let folder = folder(&[
        ("gristmill.yaml", "name: s\n"),
        ("pipelines/p.yaml", "steps:\n  a:\n    sql:\n      file: enrichd.sql\n  b: {sql: \"SELECT {{ dss }}\"}\n"),
        ("pipelines/enriched.sql", "SELECT 1"),
    ]);
    let project = load(folder.path(), None, &[]).unwrap();
    let text: Vec<String> = project.validate().iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "pipelines/p.yaml:5:12: the template uses `dss`, which is not defined\n  hint: did you mean `ds`?",
            "pipelines/p.yaml:4:13: the SQL file `pipelines/enrichd.sql` does not exist\n  hint: did you mean `enriched.sql`?"
        ]
    );
}

#[test]
fn validate_looks_over_all_pipelines_and_what_they_wait_for() {
    let folder = folder(&[
        ("gristmill.yaml", "name: s\nmain: dialy\n"),
        ("pipelines/broken.yaml", "steps: [\n"),
        (
            "pipelines/daily.yaml",
            "steps:\n  w: {wait_for: {pipeline: export, step: donee}}\n  v: {wait_for: {pipeline: exprot}}\n",
        ),
        ("pipelines/export.yaml", "steps:\n  w: {wait_for: {pipeline: daily}}\n  done: {command: ls}\n"),
        ("pipelines/x.yaml", "name: twice\nsteps:\n  a: {sql: SELECT * FROM b}\n  b: {sql: SELECT * FROM a}\n"),
        ("pipelines/y.yaml", "name: twice\nsteps:\n  a: {sql: SELECT 1}\n"),
        ("pipelines/z.yaml", "steps:\n  a: {sql: SELECT * FROM b}\n  b: {sql: SELECT * FROM a}\n"),
    ]);
    let project = load(folder.path(), None, &[]).unwrap();
    let text: Vec<String> = project.validate().iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    for part in [
        "gristmill.yaml:2:7: `main` names the pipeline `dialy`, which does not exist\n  hint: did you mean `daily`?",
        "not valid YAML",
        "the step `donee` of `export`, which does not exist\n  hint: did you mean `done`?",
        "the pipeline `exprot`, which does not exist\n  hint: did you mean `export`?",
        "pipelines wait for each other: daily → export → daily",
        "pipelines/x.yaml:1:7: the pipeline name `twice` is taken by `pipelines/y.yaml` too",
        "steps need each other: a → b → a",
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
    assert!(project.pipeline("twice").is_err() && project.pipeline("broken").is_err());
    assert_eq!(project.pipeline("dayly").unwrap_err().hint_text(), Some("did you mean `daily`?"));
    assert!(project.pipeline("daily").is_ok());
}

#[test]
fn a_name_that_cannot_be_a_path_is_refused() {
    let folder = folder(&[("p.yaml", "name: ../x\nsteps:\n  a: {sql: SELECT 1}\n")]);
    let project = load(&folder.path().join("p.yaml"), None, &[]).unwrap();
    assert!(project.main().unwrap_err().message().contains("cannot be a pipeline name"));
}
