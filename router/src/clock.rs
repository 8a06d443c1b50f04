//! The clock of the router.

use k8s_openapi::jiff::Timestamp;

/// Seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// RFC 3339, in seconds, as conditions carry it.
pub(crate) fn now_text() -> String {
    let second = Timestamp::now().as_second();
    Timestamp::from_second(second).map_or_else(|_| String::new(), |t| t.to_string())
}
