//! A limit on how fast a connection is read, whichever system it leads to.
//!
//! All extracts and all their lanes share one pace per connection. A batch that comes too early waits here; the reader
//! behind it is not asked for the next one meanwhile, so that the server feels the pause, too.

use super::turns::Turns;
use crate::aggregate::Declined;
use crate::{
    Aggregation, Compacted, Compaction, Connection, ConnectionInfo, Discovered, Filter, Increment, LoadContext,
    Narrowed, NewRows, ReadPlan, ReadRequest, Recovered, Rows, Scan, Sink, Source, SourceStats,
};
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use gristmill_model::spec::{ExtractSpec, FoundTable, LoadSpec};
use gristmill_model::yaml::{Diagnostic, Node, decode};
use gristmill_model::{ByteSize, CancellationToken, OwnerId, Result, WorkUnit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Keys that a connection of every type takes.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitKeys {
    /// At most so many rows are read in a second, over all extracts of a run; no limit by default.
    #[serde(default)]
    max_rows_per_second: Option<u64>,
    /// At most so many bytes are read in a second (as they are in memory, without compression), over all extracts of a
    /// run: `20MB`; no limit by default.
    #[serde(default)]
    max_bytes_per_second: Option<ByteSize>,
}

/// Takes the keys of a limit out of a connection's keys; none when it has none.
///
/// # Errors
/// A limit that is no number, or 0.
pub(crate) fn take_limit(keys: &mut Node) -> Result<Option<Arc<Pace>>, Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    let mut positive = |key: &str, value: Option<(Node, Result<u64, Vec<Diagnostic>>)>| match value {
        None => None,
        Some((node, Ok(0))) => {
            let hint = format!("write how many there may be in a second, or leave `{key}` out");
            wrong.push(node.diagnostic(format!("`{key}` is 0"), Some(hint)));
            None
        }
        Some((_, Ok(number))) => Some(number),
        Some((_, Err(mistakes))) => {
            wrong.extend(mistakes);
            None
        }
    };
    let rows = keys.take("max_rows_per_second").map(|node| (node.clone(), decode::<u64>(&node)));
    let bytes = keys.take("max_bytes_per_second").map(|node| {
        let size = decode::<ByteSize>(&node).map(|size| size.0);
        (node, size)
    });
    let rows = positive("max_rows_per_second", rows);
    let bytes = positive("max_bytes_per_second", bytes);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let limit = LimitKeys { max_rows_per_second: rows, max_bytes_per_second: bytes.map(ByteSize) };
    Ok((rows.is_some() || bytes.is_some()).then(|| Arc::new(Pace { limit, turns: Turns::default() })))
}

/// How fast may be read.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: LimitKeys,
    turns: Turns,
}

impl Pace {
    /// How long a batch takes at this pace.
    fn cost(&self, rows: u64, bytes: u64) -> Duration {
        let time = |amount: u64, rate: Option<u64>| rate.map_or(0.0, |rate| amount as f64 / rate.max(1) as f64);
        let LimitKeys { max_rows_per_second, max_bytes_per_second } = self.limit;
        let seconds = time(rows, max_rows_per_second).max(time(bytes, max_bytes_per_second.map(|size| size.0)));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// When a batch may go; those after it have to wait until it would have passed.
    fn book(&self, now: Instant, rows: u64, bytes: u64) -> Instant {
        self.turns.take(now, self.cost(rows, bytes))
    }

    async fn wait(&self, batch: &RecordBatch) {
        let bytes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64);
        tokio::time::sleep_until(self.book(Instant::now(), batch.num_rows() as u64, bytes.sum())).await;
    }
}

/// A connection whose sources are read no faster than a pace.
#[derive(Debug)]
pub(crate) struct LimitedConnection {
    pub(crate) inner: Arc<dyn Connection>,
    pub(crate) pace: Arc<Pace>,
}

#[async_trait]
impl Connection for LimitedConnection {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn test(&self) -> Result<ConnectionInfo> {
        self.inner.test().await
    }

    async fn discover(&self) -> Result<Vec<Discovered>> {
        self.inner.discover().await
    }

    async fn tables(&self) -> Result<Vec<FoundTable>> {
        self.inner.tables().await
    }

    fn ended(&self, whole: &str) {
        self.inner.ended(whole);
    }

    fn files(&self) -> Option<Arc<crate::stores::Store>> {
        self.inner.files()
    }

    fn source(&self, extract: &ExtractSpec) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(LimitedSource::new(self.inner.source(extract)?, self.pace.clone())))
    }

    fn sink(&self, load: &LoadSpec, context: LoadContext) -> Result<Arc<dyn Sink>> {
        self.inner.sink(load, context)
    }

    async fn compact(
        &self,
        want: &Compaction,
        owner: &OwnerId,
        is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Vec<Compacted>> {
        self.inner.compact(want, owner, is_dead, cancel).await
    }

    async fn recover_compactions(
        &self,
        path: &str,
        is_dead: &(dyn for<'a> Fn(&'a OwnerId) -> bool + Send + Sync),
    ) -> Result<Recovered> {
        self.inner.recover_compactions(path, is_dead).await
    }
}

/// A source that is read no faster than a pace.
#[derive(Debug)]
struct LimitedSource {
    inner: Arc<dyn Source>,
    pace: Arc<Pace>,
    declined: Declined,
}

impl LimitedSource {
    fn new(inner: Arc<dyn Source>, pace: Arc<Pace>) -> Self {
        Self { inner, pace, declined: Declined::default() }
    }
}

#[async_trait]
impl Source for LimitedSource {
    async fn schema(&self) -> Result<SchemaRef> {
        self.inner.schema().await
    }

    async fn narrow(&self, extract: &ExtractSpec, increment: &Increment) -> Result<Narrowed> {
        let mut narrowed = self.inner.narrow(extract, increment).await?;
        if let NewRows::Source(inner) = narrowed.rows {
            narrowed.rows = NewRows::Source(Arc::new(Self::new(inner, self.pace.clone())));
        }
        Ok(narrowed)
    }

    fn within(&self, job: &str) {
        self.inner.within(job);
    }

    async fn key(&self) -> Result<Vec<String>> {
        self.inner.key().await
    }

    async fn plan(&self, want: &ReadRequest) -> Result<ReadPlan> {
        let mut plan = self.inner.plan(want).await?;
        plan.why.push_str(&self.declined.said());
        Ok(plan)
    }

    fn read(&self, unit: &WorkUnit, scan: &Scan) -> Rows {
        let pace = self.pace.clone();
        let rows = self.inner.read(unit, scan).then(move |batch| {
            let pace = pace.clone();
            async move {
                if let Ok(batch) = &batch {
                    pace.wait(batch).await;
                }
                batch
            }
        });
        Rows::new(scan.schema.clone(), rows)
    }

    async fn split(&self, unit: &WorkUnit, most: u64) -> Option<(WorkUnit, WorkUnit)> {
        self.inner.split(unit, most).await
    }

    fn can_filter(&self, filter: &Filter) -> bool {
        self.inner.can_filter(filter)
    }

    fn can_aggregate(&self, aggregation: &Aggregation, filters: &[Filter]) -> bool {
        // The source would look at all rows as fast as it can, and nobody would see how many there were.
        let could = self.inner.can_aggregate(aggregation, filters);
        self.declined.note(could.then(|| "the connection's rate is limited".to_owned()));
        false
    }

    async fn stats(&self) -> SourceStats {
        self.inner.stats().await
    }

    async fn unchanged(&self) -> Result<()> {
        self.inner.unchanged().await
    }

    async fn diagnose(&self) -> Option<gristmill_model::Error> {
        self.inner.diagnose().await
    }

    // Files are not offered to the engine's own scan, which knows no pace: `native` stays none.
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::source_suite;
    use gristmill_model::spec::GenerateSpec;
    use gristmill_model::yaml::parse;

    fn pace(yaml: &str) -> Result<Option<Arc<Pace>>, Vec<Diagnostic>> {
        take_limit(&mut parse("gristmill.yaml", yaml).unwrap())
    }

    #[test]
    fn batches_go_one_after_the_other_at_the_pace_of_rows_or_bytes_whichever_is_slower() {
        let pace = pace("{max_rows_per_second: 1000, max_bytes_per_second: 1KB}").unwrap().unwrap();
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        assert_eq!(pace.book(begin, 500, 0), at(0));
        assert_eq!(pace.book(at(100), 100, 0), at(500));
        assert_eq!(pace.book(at(200), 1, 1024), at(600));
        assert_eq!(pace.book(at(300), 1, 0), at(1600));
        // Nobody read for a while: there is no credit for it.
        assert_eq!(pace.book(at(9000), 1000, 0), at(9000));
        assert_eq!(pace.book(at(9000), 1, 0), at(10_000));
    }

    #[test]
    fn a_limit_that_cannot_be_is_said_with_its_key() {
        assert!(pace("{url: x}").unwrap().is_none());
        for (yaml, key) in
            [("{max_rows_per_second: 0}", "max_rows_per_second"), ("{max_bytes_per_second: 0}", "max_bytes_per_second")]
        {
            let mistakes = pace(yaml).unwrap_err();
            assert!(mistakes[0].message.contains(key), "{mistakes:?}");
        }
        assert!(pace("{max_rows_per_second: fast}").is_err());
        assert!(pace("{max_bytes_per_second: fast}").is_err());
    }

    fn limited(yaml: &str) -> Arc<dyn Source> {
        let spec = "{rows: 3000, columns: [{name: n, kind: sequence}]}";
        let spec: GenerateSpec = decode(&parse("p.yaml", spec).unwrap()).unwrap();
        let inner = Arc::new(crate::sources::generate::GenerateSource::new(&spec).unwrap());
        Arc::new(LimitedSource::new(inner, pace(yaml).unwrap().unwrap()))
    }

    #[tokio::test]
    async fn a_limited_source_is_a_source_as_the_contract_says() {
        source_suite(&|| limited("{max_rows_per_second: 1000000000}"), Some(3000)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn all_lanes_of_a_connection_share_its_pace() {
        let source = limited("{max_rows_per_second: 1000}");
        let schema = source.schema().await.unwrap();
        let plan = source.plan(&ReadRequest { parallelism: 4, ..ReadRequest::default() }).await.unwrap();
        let scan = Scan { schema, batch_size: 100, on_bad_row: gristmill_model::spec::OnFail::Fail, rejects: None };
        let begin = Instant::now();
        let reading = plan.units.iter().map(|unit| source.read(unit, &scan).collect());
        futures::future::try_join_all(reading).await.unwrap();
        // All but the batch that was last, of at most a hundred rows.
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(2900) && took <= Duration::from_millis(3000), "{took:?}");
    }
}
