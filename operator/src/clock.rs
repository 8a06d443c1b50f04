//! The wall clock, as an argument to decisions.

use k8s_openapi::jiff::Timestamp;

/// Seconds since the Unix epoch.
pub(crate) fn seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default()
}

/// RFC 3339 with seconds, as conditions carry it.
pub(crate) fn rfc3339() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}
