//! Durations as people write them: `10s`, `500ms`, `2m`, `24h`.

use std::time::Duration;

/// Reads a duration; a number needs its unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("`{text}` is not a duration (expected a number and ms, s, m or h, as in 10s)");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let number: u32 = text[..unit_at].parse().map_err(|_| bad())?;
    let unit = match &text[unit_at..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        _ => return Err(bad()),
    };
    Ok(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_its_unit_and_nothing_else() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("2m"), Ok(Duration::from_mins(2)));
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "10d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
