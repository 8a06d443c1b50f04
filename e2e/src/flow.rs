//! Who reaches whom.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use weft_probe::{
    cluster::{PORT, Running, eventually, socket},
    report::{ErrorClass, Report},
};

use crate::Scenario;

/// How long a change may take until every node follows it. The budget is far lower; this is the
/// limit beyond which the test calls it broken.
const FOLLOWS: Duration = Duration::from_secs(15);

/// Transport protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// As `weft-probe` wants it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Limit for an answer that must come. A machine under load may take that long.
const ANSWER: &str = "2s";
/// Time without an answer after which a flow counts as dropped.
const SILENCE: &str = "700ms";

/// A flow and what shall become of it. Between pods it is tried in every family that both have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    from: Running,
    targets: Vec<String>,
    proto: Proto,
    passes: bool,
    words: String,
}

impl Flow {
    /// TCP from a pod to [`PORT`] of another.
    #[must_use]
    pub fn new(from: &Running, to: &Running, passes: bool) -> Self {
        Self::port(from, to, PORT, Proto::Tcp, passes)
    }

    /// From a pod to a port of another.
    #[must_use]
    pub fn port(from: &Running, to: &Running, port: u16, proto: Proto, passes: bool) -> Self {
        Self {
            from: from.clone(),
            targets: from
                .pairs(to)
                .into_iter()
                .map(|(_, theirs)| socket(theirs, port))
                .collect(),
            proto,
            passes,
            words: format!(
                "{} -> {}:{port}/{}",
                from.name,
                to.name,
                proto.word().to_uppercase()
            ),
        }
    }

    /// From a pod to an address and port.
    #[must_use]
    pub fn to(from: &Running, target: &str, proto: Proto, passes: bool) -> Self {
        Self {
            from: from.clone(),
            targets: vec![target.into()],
            proto,
            passes,
            words: format!("{} -> {target}/{}", from.name, proto.word().to_uppercase()),
        }
    }

    /// The same over IPv4 alone, for a policy that speaks of IPv4 addresses.
    #[must_use]
    pub fn ipv4(mut self) -> Self {
        self.targets.retain(|target| !target.starts_with('['));
        self
    }

    /// Tries it once.
    async fn attempt(&self, scenario: &Scenario, target: &str) -> anyhow::Result<()> {
        let timeout = if self.passes { ANSWER } else { SILENCE };
        let more = ["--proto", self.proto.word(), "--timeout", timeout];
        let report = scenario.cluster.connect(&self.from, target, &more).await?;
        self.judge(&report).with_context(|| target.to_owned())
    }

    fn judge(&self, report: &Report) -> anyhow::Result<()> {
        ensure!(report.sent > 0, "{} was not tried", self.words);
        let dropped = report.received == 0
            && report
                .errors
                .keys()
                .all(|class| *class == ErrorClass::Timeout);
        let passed = report.received == report.sent;
        match (self.passes, passed, dropped) {
            (true, true, _) | (false, _, true) => Ok(()),
            (true, false, _) => bail!(
                "{} must pass, but {} of {} came back, errors {:?}",
                self.words,
                report.received,
                report.sent,
                report.errors
            ),
            (false, _, false) => bail!(
                "{} must be dropped, but {} of {} came back, errors {:?}",
                self.words,
                report.received,
                report.sent,
                report.errors
            ),
        }
    }
}

impl Scenario {
    /// Waits until every flow fares as told, twice in a row.
    ///
    /// # Errors
    /// The flows that still fare otherwise after the deadline.
    pub async fn expect(&self, flows: &[Flow]) -> anyhow::Result<()> {
        eventually(FOLLOWS, "connectivity", async || self.once(flows).await).await?;
        self.once(flows).await
    }

    /// Tries every flow once.
    ///
    /// # Errors
    /// The flows that fare otherwise.
    pub async fn once(&self, flows: &[Flow]) -> anyhow::Result<()> {
        for flow in flows {
            ensure!(
                !flow.targets.is_empty(),
                "{}: the pods have no family in common",
                flow.words
            );
        }
        let attempts = flows.iter().flat_map(|flow| {
            flow.targets
                .iter()
                .map(move |target| flow.attempt(self, target))
        });
        let wrong: Vec<String> = futures::future::join_all(attempts)
            .await
            .into_iter()
            .filter_map(|result| result.err().map(|error| format!("{error:#}")))
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pod(name: &str) -> Running {
        let ips = vec!["10.32.0.5".to_owned(), "fd32::5".to_owned()];
        Running {
            namespace: "e2e".into(),
            name: name.into(),
            node: "n1".into(),
            ip: ips[0].clone(),
            ips,
            host_ip: "172.30.0.11".into(),
            host_ips: vec!["172.30.0.11".into()],
        }
    }

    fn report(received: u64, class: Option<ErrorClass>) -> Report {
        Report {
            sent: 1,
            received,
            errors: class
                .into_iter()
                .map(|class| (class, 1))
                .collect::<BTreeMap<_, _>>(),
            ..Report::default()
        }
    }

    #[test]
    fn flow_that_must_be_dropped_may_not_be_refused() {
        let flow = Flow::new(&pod("a"), &pod("b"), false);
        assert!(flow.judge(&report(0, Some(ErrorClass::Timeout))).is_ok());
        assert_eq!(
            flow.judge(&report(0, Some(ErrorClass::Refused)))
                .expect_err("a refusal came back")
                .to_string(),
            "a -> b:8080/TCP must be dropped, but 0 of 1 came back, errors {Refused: 1}"
        );
        assert!(flow.judge(&report(1, None)).is_err());
    }

    #[test]
    fn flow_between_pods_is_tried_in_each_family() {
        let flow = Flow::new(&pod("a"), &pod("b"), true);
        assert_eq!(flow.targets, ["10.32.0.5:8080", "[fd32::5]:8080"]);
        assert_eq!(flow.ipv4().targets, ["10.32.0.5:8080"]);
    }

    #[test]
    fn flow_that_was_not_tried_proves_nothing() {
        let report = Report::default();
        for passes in [true, false] {
            let flow = Flow::new(&pod("a"), &pod("b"), passes);
            assert_eq!(
                flow.judge(&report)
                    .expect_err("nothing was sent")
                    .to_string(),
                "a -> b:8080/TCP was not tried"
            );
        }
    }

    #[test]
    fn flow_that_must_pass_must_come_back_every_time() {
        let flow = Flow::new(&pod("a"), &pod("b"), true);
        assert!(flow.judge(&report(1, None)).is_ok());
        assert!(flow.judge(&report(0, Some(ErrorClass::Timeout))).is_err());
    }
}
