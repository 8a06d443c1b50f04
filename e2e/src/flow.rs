//! Who reaches whom.

use std::time::Duration;

use anyhow::{bail, ensure};
use weft_probe::{
    cluster::{PORT, Running, eventually},
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

/// A flow and what shall become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    from: Running,
    target: String,
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
            target: format!("{}:{port}", to.ip),
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
            target: target.into(),
            proto,
            passes,
            words: format!("{} -> {target}/{}", from.name, proto.word().to_uppercase()),
        }
    }

    fn judge(&self, report: &Report) -> anyhow::Result<()> {
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
        let attempts = flows.iter().map(async |flow| {
            let report = self
                .cluster
                .connect(
                    &flow.from,
                    &flow.target,
                    &["--proto", flow.proto.word(), "--timeout", "700ms"],
                )
                .await?;
            flow.judge(&report)
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
        Running {
            namespace: "e2e".into(),
            name: name.into(),
            node: "n1".into(),
            ip: "10.32.0.5".into(),
            host_ip: "172.30.0.11".into(),
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
    fn flow_that_must_pass_must_come_back_every_time() {
        let flow = Flow::new(&pod("a"), &pod("b"), true);
        assert!(flow.judge(&report(1, None)).is_ok());
        assert!(flow.judge(&report(0, Some(ErrorClass::Timeout))).is_err());
    }
}
