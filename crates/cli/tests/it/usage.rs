//! Wrong words, and words about words.

use crate::support::Folder;

#[test]
fn no_command_shows_the_commands() {
    insta::assert_snapshot!(Folder::new().run(&[]));
}

#[test]
fn help_of_run_reads_well() {
    insta::assert_snapshot!(Folder::new().run(&["run", "--help"]));
}

#[test]
fn a_command_that_does_not_exist_is_said_with_the_one_that_was_meant() {
    insta::assert_snapshot!(Folder::new().run(&["valdate"]));
}

#[test]
fn a_date_that_is_none_is_a_usage_error() {
    insta::assert_snapshot!(Folder::new().run(&["run", "--date", "15.1.2024"]));
}

#[test]
fn a_range_needs_both_ends_in_order() {
    let folder = Folder::new();
    insta::assert_snapshot!(folder.run(&["run", "--from", "2024-01-01"]));
    insta::assert_snapshot!(folder.run(&["run", "--from", "2024-01-02", "--to", "2024-01-01"]));
}

#[test]
fn a_strategy_that_does_not_exist_is_a_usage_error() {
    insta::assert_snapshot!(Folder::new().run(&["copy", "a.csv", "b.csv", "--strategy", "upsert"]));
}

#[test]
fn a_folder_without_a_project_is_said_with_the_way_to_make_one() {
    insta::assert_snapshot!(Folder::new().run(&["run", "--date", "2024-01-15"]));
}

#[test]
fn a_database_url_is_not_taken_and_not_repeated() {
    let said = Folder::new().run(&["copy", "postgres://me:secret@db/x", "out.csv"]);
    assert_eq!(said.code, Some(2));
    assert!(!said.err.contains("secret"), "{}", said.err);
    insta::assert_snapshot!(said);
}

#[test]
fn sql_that_is_none_is_said() {
    insta::assert_snapshot!(Folder::new().run(&["sql", "SELEC 1"]));
}

#[test]
fn completions_are_scripts_for_every_shell() {
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef gristmill"), ("fish", "complete -c gristmill")] {
        let said = Folder::new().run(&["completions", shell]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains(sign), "{shell}");
        for command in ["validate", "copy", "recover"] {
            assert!(said.out.contains(command), "{shell} knows {command}");
        }
    }
    insta::assert_snapshot!(Folder::new().run(&["completions", "tcsh"]));
}

#[test]
fn a_query_over_a_ragged_file_names_the_file_and_the_line() {
    let folder = Folder::new();
    folder.write("rag.csv", "a,b\n1,2\n3\n");
    let said = folder.run(&["sql", "SELECT * FROM 'rag.csv'"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("`rag.csv:3`"), "{said}");
}

#[test]
fn a_folder_without_files_is_called_so() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("d.parquet")).unwrap();
    let said = folder.run(&["sql", "SELECT * FROM 'd.parquet'"]);
    assert!(said.err.contains("`d.parquet` is there, but empty"), "{said}");
}
