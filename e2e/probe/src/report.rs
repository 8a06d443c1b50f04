//! What a probe reports, and how a failed attempt is named.

use std::{collections::BTreeMap, io, process::ExitCode, time::Duration};

use serde::{Deserialize, Serialize};

use crate::duration::millis;

/// Why an attempt failed, in the words of a person who debugs a network: a silent drop is
/// `TIMEOUT`, a reset is `REFUSED`, an ICMP error or a missing route is `UNREACHABLE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorClass {
    /// No answer in time.
    Timeout,
    /// The other host answered: nobody listens, or the connection was reset.
    Refused,
    /// A router or our own kernel said that there is no way.
    Unreachable,
    /// The packet is larger than the path MTU and must not be fragmented.
    TooLong,
    /// Anything else.
    Other,
}

impl ErrorClass {
    /// The class of an I/O error.
    #[must_use]
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "io::ErrorKind is open-ended and not ours"
    )]
    pub fn of(error: &io::Error) -> Self {
        const EMSGSIZE: i32 = nix::errno::Errno::EMSGSIZE as i32;
        if error.raw_os_error() == Some(EMSGSIZE) {
            return Self::TooLong;
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Refused,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// Result of `connect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Attempts made (or, with `--hold`, sequence numbers sent).
    pub sent: u64,
    /// Attempts answered (or sequence numbers that came back).
    pub received: u64,
    /// Failed attempts by class.
    pub errors: BTreeMap<ErrorClass, u64>,
    /// Our address and port as the server saw them, from the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub you: Option<String>,
    /// Host name of the server, from the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub me: Option<String>,
    /// Longest time without an answer, milliseconds, from the first attempt to the last answer due.
    pub longest_gap_ms: u64,
    /// Text of the last error, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Report {
    /// Counts a failed attempt.
    pub fn failed(&mut self, error: &io::Error) {
        *self.errors.entry(ErrorClass::of(error)).or_default() += 1;
        self.last_error = Some(error.to_string());
    }

    /// Counts an answered attempt.
    pub fn answered(&mut self, greeting: Greeting) {
        self.received += 1;
        self.you = Some(greeting.you);
        self.me = Some(greeting.me);
    }

    /// Notes a stretch without an answer.
    pub fn gap(&mut self, gap: Duration) {
        self.longest_gap_ms = self.longest_gap_ms.max(millis(gap));
    }

    /// Success means at least one answer.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        exit(self.received > 0)
    }
}

/// What a server says first: whom it sees and who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Address and port of the client as the server sees them.
    pub you: String,
    /// Host name of the server.
    pub me: String,
    /// UDP only: the first bytes of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<String>,
}

/// Prints one JSON document on stdout.
///
/// # Errors
/// The report cannot be written as JSON.
#[allow(
    clippy::print_stdout,
    reason = "the report is the product of this program"
)]
pub fn print(report: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

/// Exit code 0 or 1.
#[must_use]
pub fn exit(success: bool) -> ExitCode {
    if success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classed_by_what_the_network_did() {
        let cases = [
            (nix::errno::Errno::ETIMEDOUT, ErrorClass::Timeout),
            (nix::errno::Errno::ECONNREFUSED, ErrorClass::Refused),
            (nix::errno::Errno::ECONNRESET, ErrorClass::Refused),
            (nix::errno::Errno::EHOSTUNREACH, ErrorClass::Unreachable),
            (nix::errno::Errno::ENETUNREACH, ErrorClass::Unreachable),
            (nix::errno::Errno::EMSGSIZE, ErrorClass::TooLong),
            (nix::errno::Errno::EINVAL, ErrorClass::Other),
        ];
        for (errno, class) in cases {
            let error = io::Error::from_raw_os_error(errno as i32);
            assert_eq!(ErrorClass::of(&error), class, "{errno}");
        }
    }

    #[test]
    fn report_is_written_in_the_promised_words() {
        let mut report = Report {
            sent: 2,
            ..Report::default()
        };
        report.failed(&io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        report.answered(Greeting {
            you: "10.32.0.5:4000".into(),
            me: "server".into(),
            echo: None,
        });
        assert_eq!(
            serde_json::to_value(&report).expect("a report is JSON"),
            serde_json::json!({
                "sent": 2, "received": 1, "errors": {"TIMEOUT": 1},
                "you": "10.32.0.5:4000", "me": "server",
                "longest_gap_ms": 0, "last_error": "no answer",
            })
        );
    }
}
