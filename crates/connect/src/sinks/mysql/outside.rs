//! Rows outside of the scope that a load answers for: asked of the server where they are staged.

use super::MysqlSink;
use super::session::open;
use super::target::Target;
use super::types::staged_name;
use crate::sinks::keyed::Words;
use crate::sinks::outside::Bounds;
use crate::sinks::staged_table::Payload;
use crate::sources::mysql::connect::{Failure, Session};
use crate::sources::mysql::names::quoted;
use gristmill_model::{Result, Staged};

impl MysqlSink {
    fn bounds(&self, target: &Target) -> Option<Bounds<'_>> {
        let columns = self.columns.iter().map(|column| column.name.as_str());
        let there = target.existing.as_ref().map(super::target::Existing::names).unwrap_or_default();
        let others = there.into_iter().chain([target.database.as_str()]);
        Bounds::new(&self.options.rules, Words::Mysql, columns, others)
    }

    /// Looks for rows outside of the scope before any load of the run is committed.
    pub(super) async fn audit_scope(&self, staged: &[Staged]) -> Result<()> {
        if self.options.rules.binding_scope().is_none() || staged.iter().all(|staged| staged.rows == 0) {
            return Ok(());
        }
        let tables = staged.iter().map(Payload::of).collect::<Result<Vec<_>>>()?;
        let mut session = open(&self.config).await?;
        let target = self.target(&mut session).await?;
        self.check_rows_in_scope(&mut session, &target, &tables).await?;
        session.close().await;
        Ok(())
    }

    /// Looks for staged rows outside of the scope, where that can be told by the rows alone.
    pub(super) async fn check_rows_in_scope(
        &self,
        session: &mut Session,
        target: &Target,
        tables: &[Payload],
    ) -> Result<()> {
        let Some(bounds) = self.bounds(target).filter(|bounds| bounds.are_told_by_rows() && !tables.is_empty()) else {
            return Ok(());
        };
        let doing = bounds.does_not_work();
        let failed = |error: Failure| self.refused(&error, &doing);
        let columns = self.columns.iter().enumerate().map(|(place, column)| {
            let staged = staged_name(place);
            let value = target.column(&column.name).map_or_else(|| staged.clone(), |known| known.comparable(&staged));
            format!("{value} AS {}", quoted(&column.name))
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let all: Vec<String> =
            tables.iter().map(|table| format!("SELECT {columns} FROM {}", table.in_backticks())).collect();
        // Called like the table, since a scope may say so.
        let rows = format!("({}) AS {}", all.join(" UNION ALL "), quoted(&target.name));
        let outside = number(session.value(&bounds.count(&rows)).await.map_err(failed)?);
        if outside == 0 {
            return Ok(());
        }
        let example = session.ask(&bounds.example(&rows)).await.map_err(failed)?;
        Err(bounds.refuse(outside, &example.into_iter().next().unwrap_or_default()))
    }

    /// Looks for them in the table, where only that can tell. `added`: how many rows are in it now.
    pub(super) async fn check_table_in_scope(&self, session: &mut Session, target: &Target, added: u64) -> Result<()> {
        let Some(bounds) = self.bounds(target).filter(|bounds| !bounds.are_told_by_rows()) else { return Ok(()) };
        let doing = bounds.does_not_work();
        let within = session.value(&bounds.count_within(&target.sql())).await;
        bounds.hold(number(within.map_err(|error| self.refused(&error, &doing))?), added)
    }
}

fn number(count: Option<String>) -> i64 {
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}
