//! Rows outside of the scope that a load answers for: asked of the server where they are staged.

use super::PostgresSink;
use super::target::Target;
use crate::sinks::keyed::Words;
use crate::sinks::outside::Bounds;
use crate::sinks::staged_table::Payload;
use crate::sources::postgres::connect::{Session, server_error};
use crate::sources::postgres::names::quoted;
use gristmill_model::{Result, Staged};

impl PostgresSink {
    fn bounds(&self, target: &Target) -> Option<Bounds<'_>> {
        let columns = self.columns.iter().map(|column| column.name.as_str());
        let there = target.existing.as_ref().map(super::target::Existing::names).unwrap_or_default();
        let others = there.into_iter().chain([target.schema.as_str()]);
        Bounds::new(&self.options.rules, Words::Standard, columns, others)
    }

    /// Looks for rows outside of the scope before any load of the run is committed.
    pub(super) async fn audit_scope(&self, staged: &[Staged]) -> Result<()> {
        if self.options.rules.binding_scope().is_none() || staged.iter().all(|staged| staged.rows == 0) {
            return Ok(());
        }
        let tables = staged.iter().map(Payload::of).collect::<Result<Vec<_>>>()?;
        let session = Session::open(&self.config).await?;
        let target = self.target_of(&session, &tables).await?;
        // Statements before the rows may make the table: the commit sees it.
        if target.existing.is_some() || self.options.rules.pre_sql.is_empty() {
            self.check_rows_in_scope(&session, &target, &tables).await?;
        }
        session.close().await;
        Ok(())
    }

    /// Looks for staged rows outside of the scope, where that can be told by the rows alone.
    pub(super) async fn check_rows_in_scope(
        &self,
        session: &Session,
        target: &Target,
        tables: &[Payload],
    ) -> Result<()> {
        let Some(bounds) = self.bounds(target).filter(|bounds| bounds.are_told_by_rows() && !tables.is_empty()) else {
            return Ok(());
        };
        let failed = |error| server_error(&error, &self.config, &bounds.does_not_work());
        // Called like the table, since a scope may say so.
        let rows = format!("({}) AS {}", self.as_of_target(target, tables), quoted(&target.name));
        let outside: i64 =
            session.query_one(&bounds.count(&rows), &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        if outside == 0 {
            return Ok(());
        }
        let example = session.query_opt(&bounds.example(&rows), &[]).await.map_err(failed)?;
        let example = example.map(|row| self.texts(&row, 0)).transpose()?;
        Err(bounds.refuse(outside, &example.unwrap_or_default()))
    }

    /// Looks for them in the table, where only that can tell. `added`: how many rows are in it now.
    pub(super) async fn check_table_in_scope(&self, session: &Session, target: &Target, added: u64) -> Result<()> {
        let Some(bounds) = self.bounds(target).filter(|bounds| !bounds.are_told_by_rows()) else { return Ok(()) };
        let failed = |error| server_error(&error, &self.config, &bounds.does_not_work());
        let sql = bounds.count_within(&target.sql());
        let within: i64 = session.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        bounds.hold(within, added)
    }
}
