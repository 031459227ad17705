//! The ready-made table `transactions`.

use gristmill_model::spec::{ColumnRule, Literal};

/// id, account, amount and currency, whom it went to, what came of it and when.
pub(super) fn rules() -> Vec<ColumnRule> {
    let column = |name: &str, kind: &str| ColumnRule { name: name.into(), kind: kind.into(), ..ColumnRule::default() };
    let choice = |name: &str, values: &[(&str, f64)]| ColumnRule {
        values: values.iter().map(|(value, _)| Literal::Text((*value).into())).collect(),
        weights: values.iter().map(|(_, weight)| *weight).collect(),
        ..column(name, "choice")
    };
    vec![
        column("transaction_id", "sequence"),
        ColumnRule { min: Some(Literal::Int(1)), max: Some(Literal::Int(100_000)), ..column("account_id", "integer") },
        ColumnRule {
            min: Some(Literal::Text("0.01".into())),
            max: Some(Literal::Text("9999.99".into())),
            precision: Some(12),
            scale: Some(2),
            ..column("amount", "decimal")
        },
        choice("currency", &[("USD", 5.0), ("EUR", 3.0), ("GBP", 1.0), ("JPY", 0.5), ("CHF", 0.5)]),
        column("merchant", "company"),
        choice(
            "category",
            &[
                ("groceries", 30.0),
                ("restaurants", 18.0),
                ("transport", 14.0),
                ("shopping", 14.0),
                ("utilities", 8.0),
                ("entertainment", 7.0),
                ("health", 5.0),
                ("travel", 4.0),
            ],
        ),
        choice("status", &[("completed", 92.0), ("pending", 4.0), ("failed", 3.0), ("refunded", 1.0)]),
        ColumnRule { nulls: 0.8, ..column("note", "sentence") },
        ColumnRule {
            min: Some(Literal::Text("2024-01-01".into())),
            max: Some(Literal::Text("2024-12-31".into())),
            ..column("created_at", "timestamp")
        },
    ]
}
