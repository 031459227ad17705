//! Expressions as conditions that a source may decide.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use gristmill_connect::{Comparison, Filter, Literal, Test};

/// Longer lists stay here: a statement has to be read, too.
const LONGEST_LIST: usize = 500;

/// The expression as a condition on one column; none where it is more than that.
pub(crate) fn to_filter(expression: &Expr) -> Option<Filter> {
    let of = |column: &Expr, test: Test| match column {
        Expr::Column(column) => Some(Filter { column: column.name.clone(), test }),
        _ => None,
    };
    let is = |truth: bool| Test::Is(Comparison::Equal, Literal::Boolean(truth));
    match expression {
        Expr::Column(_) => of(expression, is(true)),
        Expr::Not(inner) => of(inner, is(false)),
        Expr::IsNull(inner) => of(inner, Test::Null),
        Expr::IsNotNull(inner) => of(inner, Test::NotNull),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let comparison = comparison(*op)?;
            match (left.as_ref(), right.as_ref()) {
                (column, Expr::Literal(value, _)) => of(column, Test::Is(comparison, literal(value)?)),
                (Expr::Literal(value, _), column) => of(column, Test::Is(comparison.swapped(), literal(value)?)),
                _ => None,
            }
        }
        Expr::InList(InList { expr, list, negated: false }) if (1..=LONGEST_LIST).contains(&list.len()) => {
            let literals = list.iter().map(|item| match item {
                Expr::Literal(value, _) => literal(value),
                _ => None,
            });
            of(expr, Test::OneOf(literals.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn comparison(operator: Operator) -> Option<Comparison> {
    Some(match operator {
        Operator::Eq => Comparison::Equal,
        Operator::NotEq => Comparison::NotEqual,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn literal(value: &ScalarValue) -> Option<Literal> {
    Some(match value {
        ScalarValue::Int8(Some(number)) => Literal::Integer((*number).into()),
        ScalarValue::Int16(Some(number)) => Literal::Integer((*number).into()),
        ScalarValue::Int32(Some(number)) => Literal::Integer((*number).into()),
        ScalarValue::Int64(Some(number)) => Literal::Integer(*number),
        ScalarValue::Boolean(Some(truth)) => Literal::Boolean(*truth),
        ScalarValue::Date32(Some(days)) => Literal::Date(*days),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Literal::Text(text.clone())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{cast, col, lit};

    #[test]
    fn plain_comparisons_are_filters_and_nothing_else_is() {
        let shown = |expression: Expr| to_filter(&expression).map(|filter| filter.to_string());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(shown(col("a").gt_eq(lit(5i32))), some("a >= 5"));
        assert_eq!(shown(lit(5i64).gt_eq(col("a"))), some("a <= 5"));
        assert_eq!(shown(col("a")), some("a = true"));
        assert_eq!(shown(Expr::Not(Box::new(col("a")))), some("a = false"));
        assert_eq!(shown(col("a").is_null()), some("a IS NULL"));
        assert_eq!(shown(col("a").in_list(vec![lit("x"), lit("y")], false)), some("a IN ('x', 'y')"));
        for more in [
            col("a").eq(col("b")),
            (col("a") + lit(1)).eq(lit(5)),
            cast(col("a"), datafusion::arrow::datatypes::DataType::Int64).eq(lit(5i64)),
            col("a").eq(lit(1.5)),
            col("a").eq(Expr::Literal(ScalarValue::Int64(None), None)),
            col("a").in_list(vec![lit("x")], true),
            col("a").eq(lit(1)).or(col("b").eq(lit(1))),
        ] {
            assert_eq!(shown(more.clone()), None, "{more}");
        }
    }
}
