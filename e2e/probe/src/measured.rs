//! What `weft-probe meter` reports: words that the fault experiments of `e2e` read.
//!
//! Times are milliseconds since [`Measured::begun_unix_ms`], so that what was done to the network
//! meanwhile (by somebody with the same clock) can be laid beside them.

use std::{
    net::SocketAddr,
    str::FromStr,
    time::{SystemTime, SystemTimeError, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::duration::millis;

/// Attempts in a row that may lie between two wrong ones of the same window: attempts under way at
/// the same time overtake each other.
const APART: u64 = 3;
/// Windows that are written out; all are counted in [`Lane::wrong`].
const WINDOWS: usize = 1000;

/// Transport protocol of a lane or flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP: an attempt is a handshake.
    Tcp,
    /// UDP: an attempt is a datagram and its answer.
    Udp,
}

impl Transport {
    /// As it is written in a [`Target`].
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `tcp/10.32.0.5:8080@250`: where to, and how many attempts a second (flows have no rate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Protocol.
    pub proto: Transport,
    /// Address and port.
    pub address: SocketAddr,
    /// Attempts a second.
    pub rate: u32,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no target: write for example tcp/10.32.0.5:8080@250 or udp/[fd32::5]:8080"
            )
        };
        let (proto, rest) = text.split_once('/').ok_or_else(wrong)?;
        let proto = match proto {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(wrong()),
        };
        let (address, rate) = match rest.split_once('@') {
            Some((address, rate)) => (address, rate.parse().map_err(|_| wrong())?),
            None => (rest, 1),
        };
        if !(1..=10_000).contains(&rate) {
            return Err(format!("{text:?}: the rate must be 1 to 10000 a second"));
        }
        Ok(Self {
            proto,
            address: address.parse().map_err(|_| wrong())?,
            rate,
        })
    }
}

/// What an attempt should come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Nothing may come back; a refusal is an answer too.
    Forbidden,
    /// It must be answered.
    Allowed,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Passed,
    /// The other host refused it: the packet arrived.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// A router or our own kernel said that there is no way.
    Unreachable,
    /// It could not be made (no socket, no port): it says nothing of the network.
    Untried(String),
}

/// Wrong attempts in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Start of the first one.
    pub from_ms: u64,
    /// Start of the last one.
    pub to_ms: u64,
    /// How many.
    pub attempts: u64,
}

/// Attempts on one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// What they should come to.
    pub expect: Expect,
    /// Protocol.
    pub proto: Transport,
    /// Address and port.
    pub target: String,
    /// Attempts that say something of the network.
    pub sent: u64,
    /// Answered.
    pub passed: u64,
    /// Refused by the other host.
    pub refused: u64,
    /// Not answered in time.
    pub silent: u64,
    /// There was no way.
    pub unreachable: u64,
    /// Attempts that could not be made.
    pub untried: u64,
    /// Why the last of them could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untried_why: Option<String>,
    /// Attempts that came to something else than they should.
    pub wrong: u64,
    /// Those, as windows; the first thousand.
    pub windows: Vec<Window>,
    /// Longest time between the starts of two attempts: a shorter window can have been missed.
    pub longest_pause_ms: u64,
}

/// Sums up one lane while it runs.
#[derive(Debug)]
pub struct Tally {
    lane: Lane,
    /// Number and start of each wrong attempt.
    wrong: Vec<(u64, u64)>,
}

impl Tally {
    /// Of a lane in which nothing happened yet.
    #[must_use]
    pub fn new(expect: Expect, target: &Target) -> Self {
        Self {
            lane: Lane {
                expect,
                proto: target.proto,
                target: target.address.to_string(),
                sent: 0,
                passed: 0,
                refused: 0,
                silent: 0,
                unreachable: 0,
                untried: 0,
                untried_why: None,
                wrong: 0,
                windows: Vec::new(),
                longest_pause_ms: 0,
            },
            wrong: Vec::new(),
        }
    }

    /// Counts the attempt `number` that started at `at_ms`; attempts may end in any order.
    pub fn count(&mut self, number: u64, at_ms: u64, outcome: Outcome) {
        let lane = &mut self.lane;
        let arrived = match outcome {
            Outcome::Untried(why) => {
                lane.untried += 1;
                lane.untried_why = Some(why);
                return;
            }
            Outcome::Passed => {
                lane.passed += 1;
                true
            }
            Outcome::Refused => {
                lane.refused += 1;
                lane.expect == Expect::Forbidden
            }
            Outcome::Silent => {
                lane.silent += 1;
                false
            }
            Outcome::Unreachable => {
                lane.unreachable += 1;
                false
            }
        };
        lane.sent += 1;
        if arrived == (lane.expect == Expect::Forbidden) {
            lane.wrong += 1;
            self.wrong.push((number, at_ms));
        }
    }

    /// Notes the time between the starts of two attempts.
    pub fn pause(&mut self, pause_ms: u64) {
        self.lane.longest_pause_ms = self.lane.longest_pause_ms.max(pause_ms);
    }

    /// The lane, when all its attempts have ended.
    #[must_use]
    pub fn end(mut self) -> Lane {
        self.wrong.sort_unstable();
        let mut windows: Vec<Window> = Vec::new();
        let mut last = 0;
        for (number, at_ms) in self.wrong {
            match windows.last_mut() {
                Some(window) if number - last <= APART => {
                    window.from_ms = window.from_ms.min(at_ms);
                    window.to_ms = window.to_ms.max(at_ms);
                    window.attempts += 1;
                }
                Some(_) | None => windows.push(Window {
                    from_ms: at_ms,
                    to_ms: at_ms,
                    attempts: 1,
                }),
            }
            last = number;
        }
        windows.truncate(WINDOWS);
        self.lane.windows = windows;
        self.lane
    }
}

/// One flow that lived through everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Protocol.
    pub proto: Transport,
    /// Address and port.
    pub target: String,
    /// Numbers sent.
    pub sent: u64,
    /// Numbers that the server had (TCP), or that came back (UDP).
    pub received: u64,
    /// The others. TCP repeats what is lost on the way, so there only a broken flow loses any.
    pub lost: u64,
    /// Numbers that the server sent by itself and that came (TCP).
    pub pushed: u64,
    /// Longest time in which nothing came from the server.
    pub longest_gap_ms: u64,
    /// When that began.
    pub longest_gap_at_ms: u64,
    /// Longest time in which nothing came to the server, as it said (TCP).
    pub server_gap_ms: u64,
    /// When the last thing came from the server.
    pub last_ms: u64,
    /// Why it ended before it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl Flow {
    /// Before anything was sent.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self {
            proto: target.proto,
            target: target.address.to_string(),
            sent: 0,
            received: 0,
            lost: 0,
            pushed: 0,
            longest_gap_ms: 0,
            longest_gap_at_ms: 0,
            server_gap_ms: 0,
            last_ms: 0,
            ended: None,
        }
    }

    /// Something came from the server.
    pub fn heard(&mut self, at_ms: u64) {
        self.quiet(at_ms);
        self.last_ms = at_ms;
    }

    /// Nothing came until now.
    pub fn quiet(&mut self, at_ms: u64) {
        let gap = at_ms.saturating_sub(self.last_ms);
        if gap > self.longest_gap_ms {
            self.longest_gap_ms = gap;
            self.longest_gap_at_ms = self.last_ms;
        }
    }
}

/// Result of `meter`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Wall clock at the start, milliseconds since 1970.
    pub begun_unix_ms: u64,
    /// Until it was told to stop.
    pub length_ms: u64,
    /// Attempts, by target.
    pub lanes: Vec<Lane>,
    /// Flows.
    pub flows: Vec<Flow>,
}

/// The wall clock, milliseconds since 1970: by it others lay their times beside those of a report.
///
/// # Errors
/// The clock stands before 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn unix_ms() -> Result<u64, SystemTimeError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(millis(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().expect("a target")
    }

    #[test]
    fn targets_are_read_as_people_write_them() {
        assert_eq!(
            target("tcp/10.32.0.5:8080@250"),
            Target {
                proto: Transport::Tcp,
                address: "10.32.0.5:8080".parse().expect("an address"),
                rate: 250,
            }
        );
        assert_eq!(
            target("udp/[fd32::5]:53"),
            Target {
                proto: Transport::Udp,
                address: "[fd32::5]:53".parse().expect("an address"),
                rate: 1,
            }
        );
        for wrong in [
            "10.32.0.5:8080",
            "sctp/10.32.0.5:1",
            "tcp/a:1",
            "tcp/1.2.3.4:5@x",
        ] {
            let error = wrong.parse::<Target>().expect_err(wrong);
            assert!(error.contains("write for example"), "{error}");
        }
        assert_eq!(
            "tcp/1.2.3.4:5@0".parse::<Target>(),
            Err("\"tcp/1.2.3.4:5@0\": the rate must be 1 to 10000 a second".into())
        );
    }

    #[test]
    fn forbidden_attempts_that_were_answered_or_refused_are_wrong() {
        let mut tally = Tally::new(Expect::Forbidden, &target("tcp/10.32.0.5:8081@500"));
        let outcomes = [
            Outcome::Silent,
            Outcome::Passed,
            Outcome::Silent,
            Outcome::Refused,
            Outcome::Unreachable,
            Outcome::Untried("no port".into()),
            Outcome::Silent,
            Outcome::Silent,
            Outcome::Passed,
        ];
        for (number, outcome) in outcomes.into_iter().enumerate().rev() {
            let number = number as u64;
            tally.count(number, number * 2, outcome);
        }
        tally.pause(3);
        tally.pause(2);
        assert_eq!(
            tally.end(),
            Lane {
                expect: Expect::Forbidden,
                proto: Transport::Tcp,
                target: "10.32.0.5:8081".into(),
                sent: 8,
                passed: 2,
                refused: 1,
                silent: 4,
                unreachable: 1,
                untried: 1,
                untried_why: Some("no port".into()),
                wrong: 3,
                windows: vec![
                    Window {
                        from_ms: 2,
                        to_ms: 6,
                        attempts: 2
                    },
                    Window {
                        from_ms: 16,
                        to_ms: 16,
                        attempts: 1
                    },
                ],
                longest_pause_ms: 3,
            }
        );
    }

    #[test]
    fn allowed_attempts_that_were_not_answered_are_wrong() {
        let mut tally = Tally::new(Expect::Allowed, &target("udp/10.32.0.5:8080@50"));
        for (number, outcome) in [
            Outcome::Passed,
            Outcome::Refused,
            Outcome::Silent,
            Outcome::Unreachable,
        ]
        .into_iter()
        .enumerate()
        {
            tally.count(number as u64, number as u64 * 20, outcome);
        }
        let lane = tally.end();
        assert_eq!((lane.sent, lane.passed, lane.wrong), (4, 1, 3));
        assert_eq!(
            lane.windows,
            [Window {
                from_ms: 20,
                to_ms: 60,
                attempts: 3
            }]
        );
    }

    #[test]
    fn gap_of_a_flow_is_the_longest_silence() {
        let mut flow = Flow::new(&target("udp/10.32.0.5:8080"));
        for at in [10, 20, 95, 100] {
            flow.heard(at);
        }
        assert_eq!(
            (flow.longest_gap_ms, flow.longest_gap_at_ms, flow.last_ms),
            (75, 20, 100)
        );
        flow.quiet(300);
        assert_eq!(
            (flow.longest_gap_ms, flow.longest_gap_at_ms, flow.last_ms),
            (200, 100, 100)
        );
    }
}
