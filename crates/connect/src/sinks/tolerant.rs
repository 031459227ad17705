//! Staging where rows may be refused: rows are tried piece by piece, and a piece that is refused is halved, until the rows are found
//! that it is about. How a piece is tried is the database's own (`postgres/tolerant.rs`, `mysql/tolerant.rs`).

use super::staged_table::pieces;
use crate::{RefusedRows, Rows};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use gristmill_model::{Error, Result};

/// Why a piece was not staged.
pub(crate) enum Failed {
    /// A row of it is refused.
    Refused(String),
    /// It is not about rows.
    Broken(Error),
}

/// Tries rows, and stages them.
#[async_trait]
pub(crate) trait Trial: Send {
    /// Stages a piece as a whole, or not at all; answers with its bytes.
    async fn take(&mut self, piece: &RecordBatch) -> Result<u64, Failed>;
}

/// Stages all rows that are not refused, in their order; answers with their number and bytes.
///
/// # Errors
/// The first error that is not about rows; a place for refused rows that does not take them.
pub(crate) async fn stage(trial: &mut dyn Trial, mut rows: Rows, refused: &RefusedRows) -> Result<(u64, u64)> {
    let (mut count, mut bytes) = (0_u64, 0_u64);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        for piece in pieces(&batch) {
            // The last one is tried next, so that rows are staged in their order.
            let mut open = vec![piece];
            while let Some(piece) = open.pop() {
                let rows = piece.num_rows();
                match trial.take(&piece).await {
                    Ok(written) => (count, bytes) = (count + rows as u64, bytes + written),
                    Err(Failed::Broken(error)) => return Err(error),
                    Err(Failed::Refused(why)) if rows <= 1 => refused.send(&piece, &[why])?,
                    Err(Failed::Refused(_)) => {
                        let half = rows / 2;
                        open.extend([piece.slice(half, rows - half), piece.slice(0, half)]);
                    }
                }
            }
        }
    }
    Ok((count, bytes))
}
