use weft_netfilter::{Family, Protocol, TableName, backend::Iptables, fake::FakeKernel};

use super::*;
use crate::{
    config,
    state::{List, tests::attached},
};

pub(crate) fn sync(state: &Arc<State>) -> Sync<Iptables<FakeKernel>> {
    let (announcer, _) = Announcer::new("n1", Arc::clone(state));
    Sync {
        state: Arc::clone(state),
        backend: Iptables::new(config::owner(), FakeKernel::default()),
        in_use: InUse::default(),
        metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
        health: Health::default(),
        announcer,
        wanted: Wanted::default(),
        lookout: Lookout::blind(),
        flows: Flows::new().0,
        log_group: None,
        in_kernel: false,
        unrepaired: false,
        questions: Tracer::new().1,
        early: Early::default(),
    }
}

impl Changing for Iptables<FakeKernel> {}

pub(super) fn ready() -> Arc<State> {
    let state = Arc::new(State::new("n1"));
    for list in List::ALL {
        state.arrived(list);
    }
    state
}

pub(crate) fn forward(sync: &mut Sync<Iptables<FakeKernel>>) -> Vec<String> {
    let kernel = sync.backend.tools_mut();
    let chain = kernel.chain(Family::V4, TableName::Filter, "FORWARD");
    chain.expect("FORWARD").to_vec()
}

#[tokio::test]
async fn nothing_is_written_before_every_first_list_arrived() {
    let state = Arc::new(State::new("n1"));
    let mut sync = sync(&state);
    let untouched = sync.backend.tools_mut().clone();
    sync.sync().await.expect("nothing to do");
    sync.verify().await.expect("nothing to do");
    assert_eq!(*sync.backend.tools_mut(), untouched);
    for list in List::ALL {
        state.arrived(list);
    }
    sync.sync().await.expect("synced");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
}

#[tokio::test]
async fn a_failure_is_told_and_the_next_sync_repairs_it() {
    let state = ready();
    let mut sync = sync(&state);
    let applied = state.watch_applied();
    sync.backend.tools_mut().fail_after(0);
    assert_eq!(sync.sync().await.unwrap_err().class(), "exit");
    assert!(state.failure().is_some());
    assert_eq!(*applied.borrow(), 0);
    sync.sync().await.expect("synced");
    assert_eq!(state.failure(), None);
    assert!(*applied.borrow() > 0);
}

#[tokio::test]
async fn drift_is_repaired_by_the_rules_of_the_last_sync() {
    let state = ready();
    let mut sync = sync(&state);
    sync.sync().await.expect("synced");
    sync.backend
        .tools_mut()
        .chain_mut(Family::V4, TableName::Filter, "FORWARD")
        .clear();
    // A change that has not been applied is not mistaken for drift.
    let (id, endpoint) = attached("default/web-0", &["10.32.0.2"]);
    state.attach(id, endpoint);
    let applied = *state.watch_applied().borrow();
    sync.verify().await.expect("verified");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
    assert_eq!(*state.watch_applied().borrow(), applied);
    assert!(
        sync.wanted
            .text("iptables-nft")
            .contains(":WEFT-NPC - [0:0]")
    );
}

/// What a loop counts and announces.
pub(crate) struct Told {
    registry: prometheus_client::registry::Registry,
    notices: mpsc::Receiver<crate::events::Notice>,
}

impl Told {
    pub(crate) fn by(sync: &mut Sync<Iptables<FakeKernel>>) -> Self {
        let mut registry = prometheus_client::registry::Registry::default();
        sync.metrics = Metrics::new(&mut registry);
        let (announcer, notices) = Announcer::new("n1", Arc::clone(&sync.state));
        sync.announcer = announcer;
        Self { registry, notices }
    }

    /// Repairs that were counted, and events since the last time.
    pub(crate) fn repairs(&mut self) -> (u64, usize) {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encoded");
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("weft_npc_drift_repairs_total "));
        let count = count.expect("the metric").parse().expect("a number");
        (
            count,
            std::iter::from_fn(|| self.notices.try_recv().ok()).count(),
        )
    }
}

/// Somebody flushes FORWARD, and the next tool that changes something fails.
pub(crate) fn harm(sync: &mut Sync<Iptables<FakeKernel>>) {
    let kernel = sync.backend.tools_mut();
    let forward = kernel.chain_mut(Family::V4, TableName::Filter, "FORWARD");
    forward.clear();
    kernel.fail_after(0);
}

#[tokio::test]
async fn a_repair_that_succeeds_at_the_second_try_is_drift_like_any_other() {
    let state = ready();
    let mut sync = sync(&state);
    let mut told = Told::by(&mut sync);
    // A write of our own that fails is no drift.
    sync.backend.tools_mut().fail_after(0);
    sync.sync().await.expect_err("the tool failed");
    sync.sync().await.expect("synced");
    assert_eq!(told.repairs(), (0, 0));
    for (pod, expected) in [(None, 1), (Some("default/web-0"), 2)] {
        harm(&mut sync);
        sync.verify().await.expect_err("the tool failed");
        assert_eq!(told.repairs(), (expected - 1, 0));
        // Something of our own changes meanwhile, or does not.
        if let Some(pod) = pod {
            let (id, endpoint) = attached(pod, &["10.32.0.2"]);
            state.attach(id, endpoint);
        }
        sync.sync().await.expect("synced");
        assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
        assert_eq!(told.repairs(), (expected, 1));
        let newest = state.snapshot().expect("every list").version;
        assert_eq!(*state.watch_applied().borrow(), newest);
        sync.sync().await.expect("synced");
        sync.verify().await.expect("nothing to do");
        assert_eq!(told.repairs(), (expected, 0));
    }
}

/// Somebody asks the loop.
fn ask(sync: &mut Sync<Iptables<FakeKernel>>) {
    let (tracer, questions) = Tracer::new();
    let (source, destination) = ([10, 32, 0, 2].into(), [10, 32, 0, 3].into());
    let packet = Packet::new(source, destination, Protocol::TCP);
    let question = ((packet, Vec::new()), oneshot::channel().0);
    tracer.0.try_send(question).expect("room");
    sync.questions = questions;
}

#[tokio::test(start_paused = true)]
async fn while_changes_are_collected_questions_are_answered_and_drift_is_looked_for() {
    let state = ready();
    let mut sync = sync(&state);
    let mut waiting = Waiting::new(&state);
    waiting.sync_at = Some(Instant::now() + Duration::from_secs(3600));
    ask(&mut sync);
    let next = sync.next(&mut waiting).await;
    assert!(matches!(next, Next::Answer(_)));
    let next = sync.next(&mut waiting).await;
    assert!(matches!(next, Next::Wake(Wake::Look)));
}

#[tokio::test(start_paused = true)]
async fn a_question_does_not_put_off_another_try() {
    let state = ready();
    let mut sync = sync(&state);
    let mut waiting = Waiting::new(&state);
    let begin = tokio::time::Instant::now();
    waiting.retry_at = Some((begin + Duration::from_secs(60)).into_std());
    tokio::time::advance(Duration::from_secs(50)).await;
    ask(&mut sync);
    let next = sync.next(&mut waiting).await;
    assert!(matches!(next, Next::Answer(_)));
    assert!(matches!(sync.next(&mut waiting).await, Next::Sync));
    assert_eq!(begin.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn the_loop_applies_changes_and_ends_with_its_token() {
    let state = Arc::new(State::new("n1"));
    let sync = sync(&state);
    let health = sync.health.clone();
    let token = CancellationToken::new();
    let running = tokio::spawn(sync.run(token.clone()));
    let mut applied = state.watch_applied();
    for list in List::ALL {
        state.arrived(list);
    }
    applied.changed().await.expect("applied");
    assert_eq!(health.unready(), [""; 0]);
    token.cancel();
    running.await.expect("ended");
}
