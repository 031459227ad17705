//! The sales job once more, in plain integers and hash maps: what the pipeline's answers are held against.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A raw order; `total` in cents, `created_at` as `2024-01-15 11:47:44`.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) customer: i64,
    pub(crate) product: i64,
    pub(crate) currency: String,
    pub(crate) total: i64,
    pub(crate) status: String,
    pub(crate) created_at: String,
}

/// What the job reads.
pub(crate) struct Inputs {
    pub(crate) orders: Vec<Order>,
    /// Category and name by product.
    pub(crate) products: HashMap<i64, (String, String)>,
    /// Region and name by customer.
    pub(crate) customers: HashMap<i64, (String, String)>,
    /// Rates in units of 1e-8.
    pub(crate) rates: HashMap<String, i128>,
}

/// An enriched order as comparable text, by order id.
pub(crate) type Enriched = BTreeMap<i64, String>;
/// Revenue and average in millionths, orders, customers; by category and region.
pub(crate) type Metrics = BTreeMap<(String, String), (i128, i64, i64, i128)>;

/// What the job must answer.
pub(crate) struct Answer {
    pub(crate) cleaned: usize,
    pub(crate) orphans: usize,
    pub(crate) without_rate: usize,
    pub(crate) enriched: Enriched,
    pub(crate) metrics: Metrics,
}

/// `numerator / denominator`, halves away from zero; both positive.
fn half_up(numerator: i128, denominator: i128) -> i128 {
    (2 * numerator + denominator) / (2 * denominator)
}

pub(crate) fn decimal(value: i128, scale: u32) -> String {
    let unit = 10_i128.pow(scale);
    format!("{}.{:0width$}", value / unit, value % unit, width = scale as usize)
}

/// A decimal number's digits, moved by `scale`.
pub(crate) fn scaled(text: &str, scale: usize) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= scale, "{text} has more than {scale} digits");
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let whole: i128 = whole.trim_start_matches('-').parse().unwrap();
    let fraction: i128 = format!("{fraction:0<scale$}").parse().unwrap_or(0);
    sign * (whole * 10_i128.pow(scale as u32) + fraction)
}

impl Inputs {
    pub(crate) fn answer(&self) -> Answer {
        let mut newest: HashMap<i64, &Order> = HashMap::new();
        for order in &self.orders {
            if order.total <= 0 || !["completed", "shipped"].contains(&order.status.as_str()) {
                continue;
            }
            let rank = |order: &Order| (order.created_at.clone(), order.total);
            let best = newest.entry(order.id).or_insert(order);
            if rank(order) > rank(best) {
                *best = order;
            }
        }
        let (mut orphans, mut without_rate, mut cleaned) = (0, 0, 0);
        let mut enriched = Enriched::new();
        let mut groups: BTreeMap<(String, String), (i128, i64, BTreeSet<i64>)> = BTreeMap::new();
        for order in newest.into_values() {
            let Some((category, product_name)) = self.products.get(&order.product) else {
                orphans += 1;
                continue;
            };
            cleaned += 1;
            let (region, customer_name) = &self.customers[&order.customer];
            let Some(rate) = self.rates.get(&order.currency) else {
                without_rate += 1;
                continue;
            };
            // Cents are 1e-2, rates 1e-8, dollars wanted in 1e-6: cents * 10^12 / rate.
            let usd = half_up(i128::from(order.total) * 10_i128.pow(12), *rate);
            let text = [
                order.id.to_string(),
                order.customer.to_string(),
                customer_name.clone(),
                region.clone(),
                order.product.to_string(),
                product_name.clone(),
                category.clone(),
                order.currency.clone(),
                decimal(order.total.into(), 2),
                decimal(*rate, 8),
                decimal(usd, 6),
                order.status.clone(),
                order.created_at.clone(),
            ];
            enriched.insert(order.id, text.join("|"));
            let group = groups.entry((category.clone(), region.clone())).or_default();
            group.0 += usd;
            group.1 += 1;
            group.2.insert(order.customer);
        }
        let metrics = groups
            .into_iter()
            .map(|(key, (sum, count, customers))| {
                (key, (sum, count, customers.len() as i64, half_up(sum, count.into())))
            })
            .collect();
        Answer { cleaned, orphans, without_rate, enriched, metrics }
    }
}

/// Every row of the Parquet files in a folder.
fn batches(folder: &Path) -> Vec<RecordBatch> {
    let mut files = Vec::new();
    crate::support::walk(folder, &mut files);
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
        .iter()
        .flat_map(|file: &PathBuf| {
            let file = std::fs::File::open(file).unwrap();
            ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap)
        })
        .collect()
}

fn integers(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let column = batch.column_by_name(column).unwrap();
    assert_eq!(column.null_count(), 0);
    column.as_primitive::<Int64Type>().values().to_vec()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap();
    assert_eq!(column.null_count(), 0);
    column.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

fn decimals(batch: &RecordBatch, column: &str, scale: i8) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_primitive::<Decimal128Type>();
    assert_eq!((column.scale(), column.null_count()), (scale, 0));
    column.values().iter().map(|value| decimal(*value, scale as u32)).collect()
}

/// Products or customers: two text columns by an id.
pub(crate) fn lookup(folder: &Path, id: &str, first: &str, second: &str) -> HashMap<i64, (String, String)> {
    let mut found = HashMap::new();
    for batch in batches(folder) {
        let values = texts(&batch, first).into_iter().zip(texts(&batch, second));
        found.extend(integers(&batch, id).into_iter().zip(values));
    }
    found
}

/// The rates of a day's folder of NDJSON files.
pub(crate) fn rates(folder: &Path) -> HashMap<String, i128> {
    let mut files = Vec::new();
    crate::support::walk(folder, &mut files);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    text.lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            // The number's own digits: a float in between would not be exact.
            let digits = line.split("\"exchange_rate\":").nth(1).unwrap().trim_end_matches('}').to_owned();
            (record["currency_code"].as_str().unwrap().to_owned(), scaled(&digits, 8))
        })
        .collect()
}

/// The enriched orders that lie in one partition's folder.
pub(crate) fn enriched(folder: &Path) -> Enriched {
    let mut found = Enriched::new();
    for batch in batches(folder) {
        let ids = integers(&batch, "order_id");
        let times = batch.column_by_name("created_at").unwrap().as_primitive::<TimestampMicrosecondType>();
        let times: Vec<String> = times
            .values()
            .iter()
            .map(|micros| {
                chrono::DateTime::from_timestamp_micros(*micros).unwrap().format("%Y-%m-%d %H:%M:%S").to_string()
            })
            .collect();
        let number = |column: &str| integers(&batch, column).iter().map(ToString::to_string).collect::<Vec<_>>();
        let columns = [
            number("order_id"),
            number("customer_id"),
            texts(&batch, "customer_name"),
            texts(&batch, "region"),
            number("product_id"),
            texts(&batch, "product_name"),
            texts(&batch, "category"),
            texts(&batch, "currency"),
            decimals(&batch, "total", 2),
            decimals(&batch, "exchange_rate", 8),
            decimals(&batch, "total_usd", 6),
            texts(&batch, "status"),
            times,
        ];
        for (row, id) in ids.into_iter().enumerate() {
            let text: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
            assert!(found.insert(id, text.join("|")).is_none(), "order {id} is there twice");
        }
    }
    found
}
