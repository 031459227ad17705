//! "Did you mean": the nearest valid name to a wrong one.

/// The valid name most like `wrong`, if one is like enough to be meant.
#[must_use]
pub fn did_you_mean<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = wrong.to_lowercase();
    valid
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&folded, &name.to_lowercase()), name))
        .filter(|(score, name)| *score > 0.8 || (folded.len() > 2 && name.to_lowercase().contains(&folded)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A hint for a wrong name: the nearest valid one, or else the valid ones (at most a dozen of them).
#[must_use]
pub fn one_of<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    if let Some(near) = did_you_mean(wrong, valid.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    match valid.len() {
        0 => "there are none".to_owned(),
        count => {
            let shown: Vec<String> = valid.iter().take(12).map(|name| format!("`{name}`")).collect();
            let more = if count > 12 { format!(" and {} more", count - 12) } else { String::new() };
            format!("valid: {}{more}", shown.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("strategi", ["strategy", "table"]), Some("strategy"));
        assert_eq!(did_you_mean("Order_ID", ["order_id", "total"]), Some("order_id"));
        assert_eq!(did_you_mean("zzz", ["strategy", "table"]), None);
        assert_eq!(one_of("zzz", ["a", "b"]), "valid: `a`, `b`");
    }
}
