//! The kinds of column there are: one list, read by the compiler, the hints and the reference page.

/// A kind of column, as it is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The word for `kind:`.
    pub name: &'static str,
    /// The SQL type it makes.
    pub makes: &'static str,
    /// The keys it takes beside `name`, `kind` and `nulls`.
    pub takes: &'static [&'static str],
    /// What it makes, in a line.
    pub about: &'static str,
}

const fn kind(name: &'static str, makes: &'static str, takes: &'static [&'static str], about: &'static str) -> Kind {
    Kind { name, makes, takes, about }
}

const BOUNDS: &[&str] = &["min", "max"];

const KINDS: &[Kind] = &[
    kind("sequence", "bigint", BOUNDS, "1, 2, 3, … from `min`; after `max` it starts over, which makes duplicates"),
    kind("integer", "bigint", BOUNDS, "a whole number from `min` (0) to `max` (1,000,000), both included"),
    kind("float", "double", BOUNDS, "a number from `min` (0) to `max` (1)"),
    kind(
        "decimal",
        "decimal(precision, scale)",
        &["min", "max", "precision", "scale"],
        "an exact number from `min` (0) to `max` (10,000), both included; decimal(12,2) unless said otherwise",
    ),
    kind("boolean", "boolean", &[], "true or false, evenly; for other shares take `choice` of true and false"),
    kind("date", "date", BOUNDS, "a day from `min` (2020-01-01) to `max` (2024-12-31), both included"),
    kind(
        "timestamp",
        "timestamp",
        BOUNDS,
        "a second from `min` (2020-01-01) to `max` (2024-12-31), both included; without a time zone",
    ),
    kind("choice", "type of `values`", &["values", "weights"], "one of `values`, as often as `weights` say"),
    kind("constant", "type of `values`", &["values"], "always the one value of `values`"),
    kind("pattern", "text", &["pattern", "min"], "`pattern` with `{}` as the row number from `min` (1): `ORD-{:06}`"),
    kind("uuid", "text", &[], "a random UUID (version 4)"),
    kind("name", "text", &[], "a first and a last name: `Nina Okuneva`"),
    kind("first_name", "text", &[], "a first name"),
    kind("last_name", "text", &[], "a last name"),
    kind(
        "email",
        "text",
        &[],
        "an address at example.com, .net or .org, different in every row; of the row's own `first_name` and `last_name`, \
         where the table has such columns",
    ),
    kind("phone", "text", &[], "a telephone number: `(555) 010-4477`"),
    kind("street", "text", &[], "a house number and a street: `4021 Ridge Road`"),
    kind("city", "text", &[], "a city"),
    kind("postcode", "text", &[], "a postal code: `90210`"),
    kind("country", "text", &[], "a country's English name"),
    kind("country_code", "text", &[], "a country's two letters"),
    kind("currency", "text", &[], "a currency's three letters"),
    kind("company", "text", &[], "a company: `Kuhn and Sons`"),
    kind("job", "text", &[], "a job title"),
    kind("word", "text", &[], "a Latin word"),
    kind("sentence", "text", &[], "a sentence of four to nine Latin words"),
];

/// Every kind of column, for the reference of `generate`.
#[must_use]
pub fn kinds() -> &'static [Kind] {
    KINDS
}
