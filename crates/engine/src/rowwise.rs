//! Whether a query makes of each row of a replay what it would have made of it among all others. One that gathers rows does
//! not: a sum over the rows of a replay is another sum.

use crate::table::ExtractTable;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{JoinType, LogicalPlan};
use gristmill_model::{Error, ErrorKind, Letters, Result};
use std::collections::BTreeSet;

/// Whether rows of a replay come through a query. `carried`: the pipes that they come through.
///
/// # Errors
/// A query that gathers them.
pub(crate) fn carries(plan: &LogicalPlan, carried: &BTreeSet<String>) -> Result<bool> {
    look(plan, carried).map_err(|gathers| {
        Error::new(
            ErrorKind::Config,
            format!("the rows of a replay cannot go through this query by themselves: {gathers}"),
        )
        .hint("run the pipeline again for that date, or name the loads that need no such query with `--load`")
    })
}

fn look(plan: &LogicalPlan, carried: &BTreeSet<String>) -> Result<bool, String> {
    let mut asked = None;
    // The closure of ours gives no errors, so neither does this.
    let _ = plan.apply_subqueries(|query| {
        asked = Some(match (query, &asked) {
            (_, Some(true)) => true,
            (LogicalPlan::Subquery(query), _) => any(&query.subquery, carried),
            (query, _) => any(query, carried),
        });
        Ok(TreeNodeRecursion::Continue)
    });
    if asked == Some(true) {
        return Err("it asks a question about all of them".to_owned());
    }
    let inputs: Vec<bool> = plan.inputs().into_iter().map(|input| look(input, carried)).collect::<Result<_, _>>()?;
    if let LogicalPlan::TableScan(_) = plan {
        return Ok(any(plan, carried));
    }
    if !inputs.contains(&true) {
        return Ok(false);
    }
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => Ok(true),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Ok(true),
        LogicalPlan::Join(join) => {
            let (left, right) = (inputs.first() == Some(&true), inputs.get(1) == Some(&true));
            match join.join_type {
                _ if left && right => Err("it joins them with themselves".to_owned()),
                JoinType::Inner => Ok(true),
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark if left => Ok(true),
                JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark if right => Ok(true),
                other => Err(format!("its {other} join also makes rows of those that have none of them")),
            }
        }
        // Each branch gives its rows: those of the others are loaded already.
        LogicalPlan::Union(_) if inputs.contains(&false) => Err("it adds rows of other steps to them".to_owned()),
        LogicalPlan::Union(_) => Ok(true),
        LogicalPlan::Aggregate(_) => Err("it groups them".to_owned()),
        LogicalPlan::Window(_) => Err("it looks at them through a window".to_owned()),
        LogicalPlan::Distinct(_) => Err("it makes them distinct".to_owned()),
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => Err("it takes only some of them".to_owned()),
        other => Err(format!("it has a `{}`", other.display())),
    }
}

/// Whether rows of a replay are anywhere below.
fn any(plan: &LogicalPlan, carried: &BTreeSet<String>) -> bool {
    if let LogicalPlan::TableScan(scan) = plan {
        let provider = source_as_provider(&scan.source).ok();
        let table = provider.as_ref().and_then(|table| table.downcast_ref::<ExtractTable>());
        return table.is_some_and(|table| Letters::of(&table.connection).is_some())
            || carried.contains(scan.table_name.table());
    }
    plan.inputs().into_iter().any(|input| any(input, carried))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    async fn says(query: &str) -> Result<bool, String> {
        let session = SessionContext::new();
        for table in ["letters", "other"] {
            session.sql(&format!("CREATE TABLE {table} (id int, v text)")).await.unwrap();
        }
        let plan = session.sql(query).await.unwrap().into_unoptimized_plan();
        carries(&plan, &BTreeSet::from(["letters".to_owned()])).map_err(|error| error.message().to_owned())
    }

    #[tokio::test]
    async fn what_is_made_of_each_row_by_itself_passes() {
        for query in [
            "SELECT id + 1 AS id, upper(v) FROM letters WHERE v IS NOT NULL ORDER BY id",
            "SELECT o.v FROM letters AS l JOIN other AS o ON l.id = o.id",
            "SELECT l.id FROM letters AS l LEFT JOIN (SELECT id, count(*) AS n FROM other GROUP BY id) AS o ON l.id = o.id",
            "SELECT l.id FROM other AS o RIGHT JOIN letters AS l ON l.id = o.id",
            "SELECT id FROM letters WHERE id IN (SELECT id FROM other)",
            "WITH a AS (SELECT * FROM letters) SELECT * FROM a",
            "SELECT id FROM letters WHERE id > 1 UNION ALL SELECT id FROM letters WHERE id < 1",
        ] {
            assert_eq!(says(query).await, Ok(true), "{query}");
        }
        assert_eq!(says("SELECT DISTINCT v FROM other LIMIT 1").await, Ok(false));
    }

    #[tokio::test]
    async fn what_gathers_rows_is_refused_and_said() {
        for (query, why) in [
            ("SELECT v, count(*) FROM letters GROUP BY v", "groups them"),
            ("SELECT sum(id) FROM (SELECT * FROM letters) AS x", "groups them"),
            ("SELECT row_number() OVER (ORDER BY id) FROM letters", "window"),
            ("SELECT DISTINCT v FROM letters", "distinct"),
            ("SELECT * FROM letters LIMIT 3", "only some"),
            ("SELECT a.id FROM letters AS a JOIN letters AS b ON a.id = b.id", "themselves"),
            ("SELECT o.id FROM other AS o LEFT JOIN letters AS l ON o.id = l.id", "Left join"),
            ("SELECT o.id FROM other AS o FULL JOIN letters AS l ON o.id = l.id", "Full join"),
            ("SELECT id FROM letters UNION ALL SELECT id FROM other", "rows of other steps"),
            ("SELECT id FROM other WHERE id IN (SELECT id FROM letters)", "a question"),
            ("SELECT id FROM letters WHERE id > (SELECT avg(id) FROM letters)", "a question"),
        ] {
            let error = says(query).await.unwrap_err();
            assert!(error.contains(why), "{query}: {error}");
        }
    }
}
