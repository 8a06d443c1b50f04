//! Durations as people write them on a command line: `250ms`, `2s`, `1m`.

use std::time::Duration;

/// Parses `250ms`, `2s` or `1m`; a bare number is seconds.
///
/// # Errors
/// The text is none of these; the message says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no duration: write for example 250ms, 2s or 1m"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        other => Err(format!(
            "unknown unit {other:?} in {text:?}: use ms, s or m"
        )),
    }
}

/// Whole milliseconds, for reports.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("250ms", Ok(Duration::from_millis(250))),
            ("2s", Ok(Duration::from_secs(2))),
            ("3", Ok(Duration::from_secs(3))),
            ("1m", Ok(Duration::from_secs(60))),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(
            parse("1h"),
            Err("unknown unit \"h\" in \"1h\": use ms, s or m".to_owned())
        );
        assert_eq!(
            parse("soon"),
            Err("\"soon\" is no duration: write for example 250ms, 2s or 1m".to_owned())
        );
    }
}
