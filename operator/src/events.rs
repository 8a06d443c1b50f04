//! Events: what a person should hear of, on the object they look at.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// Publishes Events. An Event that cannot be written is logged and forgotten: nothing depends on it.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, pod: &str) -> Self {
        let reporter = Reporter {
            controller: "weft-operator".into(),
            instance: Some(pod.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// A Warning on `object`: `reason` as in the condition, `action` is what was tried.
    pub(crate) async fn warn(
        &self,
        object: &ObjectReference,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        self.publish(object, reason, action, note).await;
    }

    async fn publish(&self, object: &ObjectReference, reason: &str, action: &str, note: &str) {
        // The API refuses notes of more than 1 kB.
        let note: String = note.chars().take(900).collect();
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::warn!(%error, reason, "cannot publish an event");
        }
    }
}
