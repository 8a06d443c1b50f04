//! Structured logs on standard error.

use std::{fmt, io, str::FromStr};

use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format {other:?}: text or json")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not one.
    #[error("log filter {filter:?} is not valid (example: info,weft_router=debug): {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody was quicker.
    #[error("logging is already set up")]
    Twice,
}

/// Sends `tracing` events to standard error, as `format`, those that pass `filter` (the syntax of
/// `RUST_LOG`; the caller read it from its arguments). Call once, in `main`.
///
/// # Errors
/// See [`InitError`].
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    let env = EnvFilter::try_new(filter).map_err(|error| InitError::Filter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(env)
        .with_writer(io::stderr)
        .with_ansi(false);
    match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_| InitError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_reads_back_as_it_is_written() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
    }

    #[test]
    fn a_bad_filter_is_refused_with_an_example() {
        let error = init(Format::Text, "weft=loud").unwrap_err().to_string();
        assert!(error.contains("info,weft_router=debug"), "{error}");
    }
}
