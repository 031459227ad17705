//! What the documentation shows must work: every block marked `yaml pipeline` or `yaml project` is validated.

use crate::support::{Folder, repository};
use std::path::{Path, PathBuf};

const PROJECT: &str = "name: docs
connections:
  lake: {type: files, url: ./lake}
  shop_api: {type: http, url: https://api.example.com/v1}
  sales_db: {type: sqlite, path: data/sales.db}
  warehouse: {type: sqlite, path: data/warehouse.db}
";

/// A pipeline that others may wait for.
const AWAITED: &str = "name: orders\nsteps:\n  done: {command: \"true\"}\n";

pub(crate) fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The blocks of a page whose fence is marked so, with the line they begin in.
pub(crate) fn blocks(text: &str, mark: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut inside: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        match &mut inside {
            Some(block) if line.trim_end() != "```" => {
                block.1.push_str(line);
                block.1.push('\n');
            }
            Some(_) => blocks.extend(inside.take()),
            None if line.trim_end() == format!("```{mark}") => inside = Some((at + 1, String::new())),
            None => {}
        }
    }
    blocks
}

#[test]
fn the_points_at_which_loads_are_killed_are_documented_as_they_are() {
    let page = std::fs::read_to_string(repository().join("docs/reliability.md")).unwrap();
    let lines = gristmill::model::fault::Point::ALL
        .iter()
        .map(|point| format!("| `{}` | {} |", point.name(), point.about().trim()));
    let missing: Vec<String> = lines.filter(|line| !page.contains(line.as_str())).collect();
    assert!(missing.is_empty(), "docs/reliability.md lacks\n{}", missing.join("\n"));
}

#[test]
fn every_example_of_the_documentation_is_fine() {
    let mut found = vec![repository().join("README.md")];
    pages(&repository().join("docs"), &mut found);
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in found {
        let text = std::fs::read_to_string(&page).unwrap();
        let mut check = |line: usize, project: &str, pipeline: Option<&str>| {
            let folder = Folder::new();
            folder.write("gristmill.yaml", project);
            if let Some(pipeline) = pipeline {
                folder.write("pipelines/example.yaml", pipeline);
                if !pipeline.contains("name: orders\n") {
                    folder.write("pipelines/orders.yaml", AWAITED);
                }
            }
            let said = folder.run(&["validate"]);
            if said.code != Some(0) {
                wrong.push(format!("{}:{line}: {said}", page.display()));
            }
            seen += 1;
        };
        for (line, pipeline) in blocks(&text, "yaml pipeline") {
            check(line, PROJECT, Some(&pipeline));
        }
        for (line, project) in blocks(&text, "yaml project") {
            check(line, &project, None);
        }
    }
    assert!(seen >= 10, "only {seen} examples were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
