//! From the reports of the probers to the counts of an experiment, and whether they will do.

use weft_probe::measured::{Expect, Lane, Measured};

use super::row::Counts;

/// What may be wrong in an experiment. The default: nothing, and no silence of a held flow beyond
/// what the scheduler of a busy machine explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Longest time for which forbidden attempts may be answered; 0: none may.
    pub(crate) window_ms: u64,
    /// Longest silence of a held flow.
    pub(crate) gap_ms: u64,
    /// Whether packets of held flows may be lost.
    pub(crate) loss: bool,
    /// Whether allowed attempts may be refused.
    pub(crate) refusals: bool,
}

/// After somebody else took rules or devices away: repaired within a second.
pub(crate) const REPAIR_MS: u64 = 1000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_ms: 0,
            gap_ms: 500,
            loss: false,
            refusals: false,
        }
    }
}

impl Limits {
    /// After somebody else took rules away.
    pub(crate) fn of_a_flush() -> Self {
        Self {
            window_ms: REPAIR_MS,
            gap_ms: REPAIR_MS,
            ..Self::default()
        }
    }

    /// After somebody else took devices away too: what they carried is lost until they are back.
    pub(crate) fn of_a_broken_fabric() -> Self {
        Self {
            loss: true,
            refusals: true,
            ..Self::of_a_flush()
        }
    }
}

/// Sums up the reports of all probers.
pub(crate) fn count(measured: &[Measured]) -> Counts {
    let mut counts = Counts::default();
    for report in measured {
        counts.seconds = counts.seconds.max(report.length_ms.div_ceil(1000));
        for lane in &report.lanes {
            counts.untried += lane.untried;
            match lane.expect {
                Expect::Forbidden => {
                    counts.forbidden += lane.sent;
                    counts.wrongly_allowed += lane.wrong;
                    counts.longest_window_ms = counts.longest_window_ms.max(longest(lane));
                    counts.longest_pause_ms = counts.longest_pause_ms.max(lane.longest_pause_ms);
                }
                Expect::Allowed => {
                    counts.allowed += lane.sent;
                    counts.wrongly_refused += lane.wrong;
                }
            }
        }
        for flow in &report.flows {
            counts.held += flow.sent;
            counts.lost += flow.lost;
            counts.longest_gap_ms = counts
                .longest_gap_ms
                .max(flow.longest_gap_ms)
                .max(flow.server_gap_ms);
        }
    }
    counts
}

/// Length of the longest window of a lane. One wrong attempt is a window of at least a millisecond.
fn longest(lane: &Lane) -> u64 {
    lane.windows
        .iter()
        .map(|window| (window.to_ms - window.from_ms).max(1))
        .max()
        .unwrap_or(0)
}

/// What is beyond the limits, in words.
pub(crate) fn judge(counts: &Counts, measured: &[Measured], limits: Limits) -> Vec<String> {
    let mut wrong = Vec::new();
    if counts.forbidden == 0 || counts.allowed == 0 || counts.held == 0 {
        wrong.push(format!(
            "nothing was measured: {} forbidden and {} allowed attempts, {} numbers in held flows",
            counts.forbidden, counts.allowed, counts.held
        ));
    }
    if counts.longest_window_ms > limits.window_ms {
        wrong.push(format!(
            "{} forbidden attempts were answered, for up to {} ms (limit {} ms)",
            counts.wrongly_allowed, counts.longest_window_ms, limits.window_ms
        ));
    }
    if counts.wrongly_refused > 0 && !limits.refusals {
        wrong.push(format!(
            "{} of {} allowed attempts were not answered",
            counts.wrongly_refused, counts.allowed
        ));
    }
    if counts.lost > 0 && !limits.loss {
        wrong.push(format!(
            "{} of {} packets of established allowed flows were lost",
            counts.lost, counts.held
        ));
    }
    if counts.longest_gap_ms > limits.gap_ms {
        wrong.push(format!(
            "an established allowed flow was silent for {} ms (limit {} ms)",
            counts.longest_gap_ms, limits.gap_ms
        ));
    }
    if counts.untried * 100 > counts.forbidden + counts.allowed {
        let why = measured
            .iter()
            .flat_map(|report| &report.lanes)
            .find_map(|lane| lane.untried_why.clone())
            .unwrap_or_default();
        wrong.push(format!(
            "{} attempts could not be made: {why}",
            counts.untried
        ));
    }
    wrong.extend(broken(measured));
    wrong
}

/// Where the first wrong attempts were, for a person.
pub(crate) fn where_wrong(measured: &[Measured]) -> Vec<String> {
    let mut lines = Vec::new();
    for report in measured {
        for lane in report.lanes.iter().filter(|lane| lane.wrong > 0) {
            let windows: Vec<String> = lane
                .windows
                .iter()
                .take(5)
                .map(|window| {
                    format!(
                        "{} in {}..{}",
                        window.attempts, window.from_ms, window.to_ms
                    )
                })
                .collect();
            lines.push(format!(
                "{} {}/{}: {} wrong of {} (passed {}, refused {}, silent {}, no way {}), ms {}",
                match lane.expect {
                    Expect::Forbidden => "forbidden",
                    Expect::Allowed => "allowed",
                },
                lane.proto.word(),
                lane.target,
                lane.wrong,
                lane.sent,
                lane.passed,
                lane.refused,
                lane.silent,
                lane.unreachable,
                windows.join(", ")
            ));
        }
        for flow in report.flows.iter().filter(|flow| flow.lost > 0) {
            lines.push(format!(
                "held {}/{}: {} of {} lost, silent for {} ms from ms {}",
                flow.proto.word(),
                flow.target,
                flow.lost,
                flow.sent,
                flow.longest_gap_ms,
                flow.longest_gap_at_ms
            ));
        }
    }
    lines
}

/// Flows that ended before they should.
fn broken(measured: &[Measured]) -> Vec<String> {
    measured
        .iter()
        .flat_map(|report| &report.flows)
        .filter_map(|flow| {
            let why = flow.ended.as_ref()?;
            Some(format!(
                "the held flow {}/{} ended: {why}",
                flow.proto.word(),
                flow.target
            ))
        })
        .collect()
}

/// For how long after `from_unix_ms` forbidden attempts were answered, looking no further than
/// `to_unix_ms`; 0 if none was.
pub(crate) fn window_after(measured: &[Measured], from_unix_ms: u64, to_unix_ms: u64) -> u64 {
    windows(measured)
        .filter(|(_, last)| (from_unix_ms..to_unix_ms).contains(last))
        .map(|(_, last)| last - from_unix_ms)
        .max()
        .unwrap_or(0)
}

/// Whether forbidden attempts were answered before and after a moment, with none between them that
/// was not: what was forbidden before it is open still.
pub(crate) fn is_open_at(measured: &[Measured], unix_ms: u64) -> bool {
    windows(measured).any(|(first, last)| first < unix_ms && unix_ms <= last)
}

/// First and last of the forbidden attempts in a row that were answered, milliseconds since 1970.
fn windows(measured: &[Measured]) -> impl Iterator<Item = (u64, u64)> {
    measured.iter().flat_map(|report| {
        let forbidden = report
            .lanes
            .iter()
            .filter(|lane| lane.expect == Expect::Forbidden);
        forbidden.flat_map(|lane| &lane.windows).map(|window| {
            [window.from_ms, window.to_ms]
                .map(|ms| report.begun_unix_ms + ms)
                .into()
        })
    })
}

#[cfg(test)]
mod tests {
    use weft_probe::measured::{Flow, Outcome, Tally, Target};

    use super::*;

    fn target(text: &str) -> Target {
        text.parse().expect("a target")
    }

    /// A lane with an attempt every 2 ms; those of `wrong` came to something else than they should.
    fn lane(expect: Expect, count: u64, wrong: &[u64]) -> Lane {
        let mut tally = Tally::new(expect, &target("tcp/10.32.0.5:8080@500"));
        for number in 0..count {
            let right = !wrong.contains(&number);
            let outcome = match (expect, right) {
                (Expect::Forbidden, true) | (Expect::Allowed, false) => Outcome::Silent,
                (Expect::Forbidden, false) | (Expect::Allowed, true) => Outcome::Passed,
            };
            tally.count(number, number * 2, outcome);
        }
        tally.end()
    }

    fn flow(lost: u64, gap: u64) -> Flow {
        Flow {
            sent: 100,
            received: 100 - lost,
            lost,
            longest_gap_ms: gap,
            ..Flow::new(&target("udp/10.32.0.5:8080"))
        }
    }

    fn measured(wrong: &[u64], refused: &[u64], flow: Flow) -> Measured {
        Measured {
            begun_unix_ms: 1_000_000,
            length_ms: 1000,
            lanes: vec![
                lane(Expect::Forbidden, 500, wrong),
                lane(Expect::Allowed, 400, refused),
            ],
            flows: vec![flow],
        }
    }

    fn reasons(measured: Measured, limits: Limits) -> Vec<String> {
        let all = [measured];
        judge(&count(&all), &all, limits)
    }

    #[test]
    fn nothing_wrong_is_nothing_to_say() {
        assert_eq!(
            reasons(measured(&[], &[], flow(0, 12)), Limits::default()),
            [""; 0]
        );
    }

    #[test]
    fn every_kind_of_wrong_is_named() {
        let wrong = measured(&[10, 11, 12], &[7], flow(3, 700));
        let counts = count(std::slice::from_ref(&wrong));
        assert_eq!(
            counts,
            Counts {
                seconds: 1,
                forbidden: 500,
                allowed: 400,
                wrongly_allowed: 3,
                wrongly_refused: 1,
                lost: 3,
                held: 100,
                longest_gap_ms: 700,
                longest_window_ms: 4,
                ..Counts::default()
            }
        );
        assert_eq!(
            reasons(wrong, Limits::default()),
            [
                "3 forbidden attempts were answered, for up to 4 ms (limit 0 ms)",
                "1 of 400 allowed attempts were not answered",
                "3 of 100 packets of established allowed flows were lost",
                "an established allowed flow was silent for 700 ms (limit 500 ms)",
            ]
        );
    }

    #[test]
    fn window_of_a_second_is_allowed_after_a_flush_and_no_longer() {
        let short: Vec<u64> = (0..400).collect();
        assert_eq!(
            reasons(measured(&short, &[], flow(0, 900)), Limits::of_a_flush()),
            [""; 0]
        );
        let mut long = measured(&[], &[], flow(0, 0));
        long.lanes[0] = lane(Expect::Forbidden, 800, &(0..600).collect::<Vec<_>>());
        assert_eq!(
            reasons(long, Limits::of_a_flush()),
            ["600 forbidden attempts were answered, for up to 1198 ms (limit 1000 ms)"]
        );
    }

    #[test]
    fn single_wrong_attempt_is_a_window() {
        assert_eq!(
            reasons(measured(&[9], &[], flow(0, 0)), Limits::default()),
            ["1 forbidden attempts were answered, for up to 1 ms (limit 0 ms)"]
        );
    }

    #[test]
    fn measurement_of_nothing_fails() {
        let empty = Measured::default();
        assert_eq!(
            reasons(empty, Limits::default()),
            ["nothing was measured: 0 forbidden and 0 allowed attempts, 0 numbers in held flows"]
        );
    }

    #[test]
    fn attempts_that_could_not_be_made_are_no_proof() {
        let mut all = measured(&[], &[], flow(0, 0));
        all.lanes[0].untried = 10;
        all.lanes[0].untried_why = Some("no port".into());
        assert_eq!(
            reasons(all, Limits::default()),
            ["10 attempts could not be made: no port"]
        );
    }

    #[test]
    fn broken_flow_is_named() {
        let mut all = measured(&[], &[], flow(0, 0));
        all.flows[0].ended = Some("reset".into());
        assert_eq!(
            reasons(all, Limits::default()),
            ["the held flow udp/10.32.0.5:8080 ended: reset"]
        );
    }

    #[test]
    fn window_belongs_to_the_fault_before_it() {
        // Answered from ms 200 to 240, and again from 600 to 610.
        let wrong: Vec<u64> = (100..=120).chain(300..=305).collect();
        let all = [measured(&wrong, &[], flow(0, 0))];
        assert_eq!(window_after(&all, 1_000_190, 1_000_500), 50);
        assert_eq!(window_after(&all, 1_000_500, 1_001_000), 110);
        assert_eq!(window_after(&all, 1_000_700, 1_001_000), 0);
    }

    #[test]
    fn what_is_answered_before_and_after_a_moment_is_open_at_it() {
        // Answered from ms 200 to 240, and again from 600 to 610.
        let wrong: Vec<u64> = (100..=120).chain(300..=305).collect();
        let all = [measured(&wrong, &[], flow(0, 0))];
        let open = [1_000_200, 1_000_220, 1_000_240, 1_000_241, 1_000_600]
            .map(|unix_ms| is_open_at(&all, unix_ms));
        assert_eq!(open, [false, true, true, false, false]);
        let allowed = [measured(&[], &wrong, flow(0, 0))];
        assert!(!is_open_at(&allowed, 1_000_220));
    }
}
