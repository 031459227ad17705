//! The ready-made table `people`.

use gristmill_model::spec::{ColumnRule, Literal};

/// id, names, ways to reach them, where they live, when they were born and signed up.
pub(super) fn rules() -> Vec<ColumnRule> {
    let column = |name: &str, kind: &str| ColumnRule { name: name.into(), kind: kind.into(), ..ColumnRule::default() };
    let between = |rule: ColumnRule, min: &str, max: &str| ColumnRule {
        min: Some(Literal::Text(min.into())),
        max: Some(Literal::Text(max.into())),
        ..rule
    };
    vec![
        column("id", "sequence"),
        column("first_name", "first_name"),
        column("last_name", "last_name"),
        column("email", "email"),
        ColumnRule { nulls: 0.1, ..column("phone", "phone") },
        column("street", "street"),
        column("postcode", "postcode"),
        column("city", "city"),
        column("country", "country"),
        between(column("date_of_birth", "date"), "1940-01-01", "2005-12-31"),
        ColumnRule {
            values: vec![Literal::Bool(true), Literal::Bool(false)],
            weights: vec![9.0, 1.0],
            ..column("active", "choice")
        },
        between(column("created_at", "timestamp"), "2020-01-01", "2024-12-31"),
    ]
}
