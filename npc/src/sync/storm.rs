//! A pod that is relabelled without end, and pods that come meanwhile.

use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use weft_netfilter::{backend::Iptables, fake::FakeKernel};
use weft_policy::{EndpointId, PolicyModel};
use weft_testkit::builders::{make_namespace, make_network_policy, make_pod};

use super::tests::{ready, sync};
use super::*;
use crate::state::tests::attached;

/// Longer than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

fn attach(state: &State, name: &str, last: u8) {
    state.update(|index| {
        let pod = make_pod("x", name).uid(name).node("n1").label("app", name);
        index.apply_pod(&pod.build())
    });
    let (id, endpoint) = attached(&format!("x/{name}"), &[&format!("10.32.0.{last}")]);
    state.attach(id, endpoint);
}

fn relabel(state: &State, turn: u32) {
    state.update(|index| {
        let pod = make_pod("x", "busy").uid("busy").node("n1");
        let pod = pod.label(
            "app",
            if turn.is_multiple_of(2) {
                "busy"
            } else {
                "idle"
            },
        );
        index.apply_pod(&pod.label("turn", &turn.to_string()).build())
    });
}

fn last_model(running: &Wanted) -> PolicyModel {
    running
        .get()
        .map(|compiled| compiled.model.clone())
        .unwrap_or_default()
}

#[tokio::test]
async fn pods_get_in_while_another_changes_its_labels_a_thousand_times_a_second() {
    let state = ready();
    state.update(|index| {
        index.apply_namespace(&make_namespace("x", &[]));
        let policy = make_network_policy("x", "closed").selects(&[("app", "busy")]);
        index.apply_network_policy(&policy.build())
    });
    attach(&state, "busy", 2);
    let sync: Sync<Iptables<FakeKernel>> = sync(&state);
    let wanted = sync.wanted.clone();
    let token = CancellationToken::new();
    let running = tokio::spawn(sync.run(token.clone()));

    let (turns, mut seen) = watch::channel(0);
    let (storm, stop) = (Arc::clone(&state), CancellationToken::new());
    let stopped = stop.clone();
    let storm = tokio::spawn(async move {
        let mut tick = interval(Duration::from_millis(1));
        while !stopped.is_cancelled() {
            tick.tick().await;
            turns.send_modify(|turn| *turn += 1);
            relabel(&storm, *turns.borrow());
        }
        *turns.borrow()
    });
    let mut applied = state.watch_applied();
    for last in 10..30 {
        // A machine that lets a pod in faster than labels change would leave the storm behind.
        let before = *seen.borrow();
        let blows = timeout(PATIENCE, seen.wait_for(|turn| *turn > before + 1)).await;
        blows.expect("in time").expect("the storm lasts");
        let name = format!("pod{last}");
        attach(&state, &name, last);
        let at = state.is_known(&EndpointId::new(&name, "eth0"));
        assert!(at.known);
        let let_in = applied.wait_for(|applied| *applied >= at.version);
        let let_in = timeout(PATIENCE, let_in).await;
        let_in.expect("in time").expect("the loop runs");
    }
    stop.cancel();
    let turns = storm.await.expect("ended");
    assert!(turns > 20, "only {turns} changes");

    // What was last is what is in force.
    relabel(&state, 1);
    let version = *state.watch_changed().borrow();
    let done = timeout(PATIENCE, applied.wait_for(|applied| *applied >= version)).await;
    done.expect("in time").expect("the loop runs");
    let expected = state.snapshot().expect("every list is there").model;
    assert_eq!(last_model(&wanted), expected);
    assert_eq!(expected.subjects.len(), 21);
    token.cancel();
    running.await.expect("ended");
}
