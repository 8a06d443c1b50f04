//! Events: what is wrong with a policy, on the policy; what somebody did to our rules, on the Node.
//!
//! The sync loop decides what is new; a task of its own talks to the API, so that a slow API never
//! delays a rule.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_policy::{PolicyModel, Problem};

use crate::state::State;

/// An event to publish.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notice {
    on: ObjectReference,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// Longest note the API takes, in bytes.
const MAX_NOTE: usize = 1000;

/// Decides what is news.
pub(crate) struct Announcer {
    node: String,
    state: Arc<State>,
    /// Problems and warnings.
    known: Mutex<(BTreeSet<Problem>, BTreeSet<Problem>)>,
    queue: mpsc::Sender<Notice>,
}

impl Announcer {
    /// An announcer and the queue that [`publish`] reads.
    pub(crate) fn new(node: &str, state: Arc<State>) -> (Self, mpsc::Receiver<Notice>) {
        let (queue, notices) = mpsc::channel(256);
        let announcer = Self {
            node: node.to_owned(),
            state,
            known: Mutex::default(),
            queue,
        };
        (announcer, notices)
    }

    /// Announces problems of policies with subjects on this node, and limits that they are near,
    /// each once until it is solved.
    pub(crate) fn problems(&self, model: &PolicyModel) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (problems, warnings) = &mut *known;
        if *problems != model.problems {
            for problem in model.problems.difference(problems) {
                tracing::warn!("{problem}");
                self.on_policy(
                    "PolicyProblem",
                    problem,
                    &format!("its pods on node {} allow nothing by this part", self.node),
                );
            }
            problems.clone_from(&model.problems);
        }
        if *warnings != model.warnings {
            for warning in model.warnings.difference(warnings) {
                tracing::warn!("{warning}");
                let note = format!("it is still enforced on node {}", self.node);
                self.on_policy("PolicyNearLimit", warning, &note);
            }
            warnings.clone_from(&model.warnings);
        }
    }

    fn on_policy(&self, reason: &'static str, problem: &Problem, note: &str) {
        self.send(Notice {
            on: ObjectReference {
                api_version: Some("networking.k8s.io/v1".to_owned()),
                kind: Some("NetworkPolicy".to_owned()),
                namespace: Some(problem.policy.namespace.to_string()),
                name: Some(problem.policy.name.to_string()),
                uid: self.state.policy_uid(&problem.policy),
                ..ObjectReference::default()
            },
            reason,
            action: "Enforce",
            note: format!("{}: {} ({note})", problem.field, problem.message),
        });
    }

    /// Announces a repair.
    pub(crate) fn drift(&self, plan: &str) {
        self.on_node(
            "PolicyRulesRepaired",
            format!("something else changed the rules of weft's npc; it ran:\n{plan}"),
        );
    }

    /// Announces that repairs do not last.
    pub(crate) fn fight(&self, repairs: usize, plan: &str) {
        self.on_node(
            "PolicyRulesContested",
            format!(
                "something else changes the rules of weft's npc again and again ({repairs} repairs \
                 in a minute): until each repair, policies may not be enforced; find and stop it \
                 (`nft monitor`, another network plugin or firewall). The last repair ran:\n{plan}"
            ),
        );
    }

    fn on_node(&self, reason: &'static str, note: String) {
        self.send(Notice {
            on: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(self.node.clone()),
                // As the kubelet does: `kubectl describe node` looks for the name here.
                uid: Some(self.node.clone()),
                ..ObjectReference::default()
            },
            reason,
            action: "Repair",
            note,
        });
    }

    fn send(&self, mut notice: Notice) {
        let mut end = notice.note.len().min(MAX_NOTE);
        while !notice.note.is_char_boundary(end) {
            end -= 1;
        }
        notice.note.truncate(end);
        // A full queue means the API is away or drowning: the log has it, and the problem is still
        // on the metric.
        if self.queue.try_send(notice).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}

/// Publishes notices until `token` is cancelled.
pub(crate) async fn publish(
    client: Client,
    node: String,
    mut notices: mpsc::Receiver<Notice>,
    token: CancellationToken,
) {
    let recorder = Recorder::new(
        client,
        Reporter {
            controller: "weft-npc".to_owned(),
            instance: Some(node),
        },
    );
    let work = async {
        while let Some(notice) = notices.recv().await {
            let event = Event {
                type_: EventType::Warning,
                reason: notice.reason.to_owned(),
                note: Some(notice.note),
                action: notice.action.to_owned(),
                secondary: None,
            };
            if let Err(error) = recorder.publish(&event, &notice.on).await {
                tracing::warn!(%error, reason = notice.reason, "cannot publish an event");
            }
        }
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = work => {}
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::ObjectKey;

    use super::*;

    #[tokio::test]
    async fn an_api_that_does_not_answer_keeps_nobody_from_ending() {
        let api = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", api.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let (announcer, notices) = Announcer::new("n1", Arc::new(State::new("n1")));
        announcer.drift("a plan");
        let token = CancellationToken::new();
        let publishing = tokio::spawn(publish(client, "n1".to_owned(), notices, token.clone()));
        let _asked = api.accept().await.unwrap();
        token.cancel();
        // The client itself would wait for minutes.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), publishing).await;
        ended.expect("in time").expect("ended");
    }

    #[test]
    fn a_problem_and_a_limit_that_is_near_are_told_once_and_again_after_they_were_solved() {
        let (announcer, mut queue) = Announcer::new("n1", Arc::new(State::new("n1")));
        let problem = |field: &str| Problem {
            policy: ObjectKey::new("x", "p"),
            field: field.to_owned(),
            message: "is odd".to_owned(),
        };
        let model = PolicyModel {
            problems: [problem("spec.ingress")].into(),
            warnings: [problem("spec.egress")].into(),
            ..PolicyModel::default()
        };
        let mut told = |model: &PolicyModel| {
            announcer.problems(model);
            let notices = std::iter::from_fn(|| queue.try_recv().ok());
            notices
                .map(|notice| (notice.reason, notice.note))
                .collect::<Vec<_>>()
        };
        let all = [
            (
                "PolicyProblem",
                "spec.ingress: is odd (its pods on node n1 allow nothing by this part)",
            ),
            (
                "PolicyNearLimit",
                "spec.egress: is odd (it is still enforced on node n1)",
            ),
        ];
        let all = all.map(|(reason, note)| (reason, note.to_owned()));
        assert_eq!(told(&model), all);
        assert_eq!(told(&model), []);
        assert_eq!(told(&PolicyModel::default()), []);
        assert_eq!(told(&model), all);
    }
}
