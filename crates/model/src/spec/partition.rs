//! `partition_by: [date, year(ts), "hash(customer_id) % 16"]`: columns, or what is computed of one.

use crate::one_of;

/// One entry of `partition_by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionBy {
    /// The column of the rows.
    pub column: String,
    /// What is computed of it; `None`: its own values become folders, and it is not stored in the files.
    pub transform: Option<PartitionTransform>,
    /// The name of the partition column.
    pub name: String,
}

/// What a partition column is computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionTransform {
    /// The year, a whole number.
    Year,
    /// The month, 1 to 12 (Spark's `month`; Iceberg's transform counts from 1970 instead).
    Month,
    /// The day of the month, 1 to 31.
    Day,
    /// The hour, 0 to 23.
    Hour,
    /// The date (Iceberg's transform `day`).
    Date,
    /// `hash(column) % n`: Iceberg's transform `bucket[n]`, a number from 0 to n - 1. Murmur3 of 32 bits, whose results its
    /// specification fixes for all versions and machines.
    Bucket(u32),
}

/// The most buckets. More than Iceberg's `int` would hold make no sense either.
const MOST_BUCKETS: u32 = 1_000_000;

impl PartitionTransform {
    /// The functions, as they are written.
    pub const FUNCTIONS: [&'static str; 6] = ["year", "month", "day", "hour", "date", "hash"];

    /// The name of the partition column of `column`, unless the load gives one: as Spark's users name it by habit, buckets
    /// as Iceberg names them.
    fn name(self, column: &str) -> String {
        match self {
            Self::Year => "year".to_owned(),
            Self::Month => "month".to_owned(),
            Self::Day => "day".to_owned(),
            Self::Hour => "hour".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Bucket(_) => format!("{column}_bucket"),
        }
    }
}

impl PartitionBy {
    /// Understands one entry: a column, as it is called, or `function(column) [% n] [as name]`. A column whose name has
    /// parentheses is written in double quotes.
    ///
    /// # Errors
    /// What is wrong with it and what to do, in words.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let wrong = |why: String, hint: String| (format!("`partition_by` cannot be `{text}`: {why}"), hint);
        let example = || "write e.g. `date`, `year(created_at)` or `hash(customer_id) % 16 as bucket`".to_owned();
        if !text.contains('(') && !text.starts_with('"') {
            return Ok(Self { column: text.to_owned(), transform: None, name: text.to_owned() });
        }
        let mut words = words(text).map_err(|why| wrong(why, example()))?.into_iter();
        let mut next = || words.next();
        let function = match next() {
            Some(Word::Name(function)) => function,
            Some(Word::Quoted(column)) if next().is_none() => {
                return Ok(Self { name: column.clone(), column, transform: None });
            }
            _ => return Err(wrong("a column or a function is expected".to_owned(), example())),
        };
        let (Some(Word::Sign('(')), Some(Word::Name(column) | Word::Quoted(column)), Some(Word::Sign(')'))) =
            (next(), next(), next())
        else {
            return Err(wrong(format!("`{function}` takes one column in parentheses"), example()));
        };
        let mut after = next();
        let buckets = if after == Some(Word::Sign('%')) {
            let Some(Word::Name(count)) = next() else {
                return Err(wrong("a number is expected after `%`".to_owned(), example()));
            };
            after = next();
            match count.parse::<u32>() {
                Ok(count) if (1..=MOST_BUCKETS).contains(&count) => Some(count),
                _ => {
                    return Err(wrong(
                        format!("`{count}` is no number of buckets"),
                        format!("use 1 to {MOST_BUCKETS}"),
                    ));
                }
            }
        } else {
            None
        };
        let transform = match (function.to_ascii_lowercase().as_str(), buckets) {
            ("hash", Some(count)) => PartitionTransform::Bucket(count),
            ("hash", None) => {
                let hint = format!("write `hash({column}) % 16`");
                return Err(wrong("`hash` needs a number of buckets".to_owned(), hint));
            }
            ("year", None) => PartitionTransform::Year,
            ("month", None) => PartitionTransform::Month,
            ("day", None) => PartitionTransform::Day,
            ("hour", None) => PartitionTransform::Hour,
            ("date", None) => PartitionTransform::Date,
            (known, Some(_)) if PartitionTransform::FUNCTIONS.contains(&known) => {
                return Err(wrong("`%` goes with `hash` only".to_owned(), example()));
            }
            (other, _) => {
                let hint = one_of(other, PartitionTransform::FUNCTIONS);
                return Err(wrong(format!("there is no function `{function}`"), hint));
            }
        };
        let name = match (after, next(), next()) {
            (None, ..) => transform.name(&column),
            (Some(Word::Name(word)), Some(Word::Name(name) | Word::Quoted(name)), None)
                if word.eq_ignore_ascii_case("as") =>
            {
                name
            }
            _ => return Err(wrong("only `as name` can follow".to_owned(), example())),
        };
        Ok(Self { column, transform: Some(transform), name })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Name(String),
    Quoted(String),
    Sign(char),
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter.is_whitespace() => {}
            '(' | ')' | '%' => words.push(Word::Sign(letter)),
            '"' => {
                let mut name = String::new();
                loop {
                    match letters.next() {
                        Some('"') if letters.next_if_eq(&'"').is_some() => name.push('"'),
                        Some('"') => break,
                        Some(letter) => name.push(letter),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
                words.push(Word::Quoted(name));
            }
            letter => {
                let mut name = letter.to_string();
                while let Some(letter) =
                    letters.next_if(|letter| !letter.is_whitespace() && !matches!(letter, '(' | ')' | '%' | '"'))
                {
                    name.push(letter);
                }
                words.push(Word::Name(name));
            }
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> (String, Option<PartitionTransform>, String) {
        let PartitionBy { column, transform, name } = PartitionBy::parse(text).unwrap();
        (column, transform, name)
    }

    #[test]
    fn columns_and_functions_of_one_column_are_understood() {
        let of = |column: &str, transform, name: &str| (column.to_owned(), transform, name.to_owned());
        assert_eq!(parsed("order date"), of("order date", None, "order date"));
        assert_eq!(parsed("\"year(x)\""), of("year(x)", None, "year(x)"));
        assert_eq!(parsed("year(ts)"), of("ts", Some(PartitionTransform::Year), "year"));
        assert_eq!(parsed(" Date( \"a \"\"b\" ) AS d"), of("a \"b", Some(PartitionTransform::Date), "d"));
        assert_eq!(
            parsed("hash(customer_id)%16"),
            of("customer_id", Some(PartitionTransform::Bucket(16)), "customer_id_bucket")
        );
        assert_eq!(parsed("hash(id) % 4 as \"my bucket\""), of("id", Some(PartitionTransform::Bucket(4)), "my bucket"));
    }

    #[test]
    fn anything_else_is_refused_with_the_reason_and_a_way_out() {
        for (text, why, hint) in [
            ("yaer(ts)", "no function `yaer`", "did you mean `year`?"),
            ("bucket(16, id)", "takes one column", "hash(customer_id) % 16"),
            ("hash(id)", "needs a number of buckets", "write `hash(id) % 16`"),
            ("hash(id) % 0", "no number of buckets", "1 to"),
            ("hash(id) %", "a number is expected", "write e.g."),
            ("year(ts) % 4", "goes with `hash` only", "write e.g."),
            ("year(ts) as", "only `as name`", "write e.g."),
            ("year(ts) y", "only `as name`", "write e.g."),
            ("year(\"ts)", "not closed", "write e.g."),
            ("(ts)", "a column or a function", "write e.g."),
            ("year()", "takes one column", "write e.g."),
        ] {
            let (message, said) = PartitionBy::parse(text).unwrap_err();
            assert!(message.contains(why) && said.contains(hint), "{text}: {message} / {said}");
        }
    }

    proptest! {
        #[test]
        fn any_column_can_be_named(column in "\\PC{1,12}", count in 1u32..1000, name in "\\PC{1,12}") {
            let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let text = format!("hash({}) % {count} as {}", quoted(&column), quoted(&name));
            prop_assert_eq!(parsed(&text), (column, Some(PartitionTransform::Bucket(count)), name));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            drop(PartitionBy::parse(&text));
        }
    }
}
