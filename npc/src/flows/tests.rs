use std::sync::Mutex;

use tokio::time::sleep;
use weft_netfilter::{Ruleset, nfnetlink::Answer};
use weft_policy::Index;
use weft_policy_compile::NodeView;

use super::*;
use crate::state::tests::attached;

/// A node with a pod; `closed`: one that nobody may speak with.
fn rules(closed: bool) -> Arc<Compiled> {
    let mut index = Index::new("n1");
    if closed {
        let (id, endpoint) = attached("x/late", &["10.32.0.2"]);
        index.apply_endpoint(id, endpoint);
    }
    Arc::new(Compiled {
        model: index.model(),
        view: NodeView::default(),
        ruleset: Ruleset::default(),
    })
}

/// A cutter at work, and when it made passes.
struct Stage {
    flows: Flows,
    health: Health,
    start: Instant,
    passes: Arc<Mutex<Vec<Duration>>>,
    /// What the next passes find; then nothing.
    results: Arc<Mutex<Vec<Result<Found, NfError>>>>,
}

impl Stage {
    fn new() -> Self {
        let (flows, rules) = Flows::new();
        let stage = Self {
            flows,
            health: Health::default(),
            start: Instant::now(),
            passes: Arc::default(),
            results: Arc::default(),
        };
        let (start, passes) = (stage.start, Arc::clone(&stage.passes));
        let results = Arc::clone(&stage.results);
        let pass = move |_: &Compiled| {
            passes.lock().expect("passes").push(start.elapsed());
            let mut results = results.lock().expect("results");
            results.pop().unwrap_or_else(|| Ok(Found::default()))
        };
        let cutter = Cutter {
            pass,
            rules,
            metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
            health: stage.health.clone(),
        };
        tokio::spawn(cutter.run(CancellationToken::new()));
        stage
    }

    /// Milliseconds at which passes were made, until now.
    fn passes(&self) -> Vec<u128> {
        let passes = self.passes.lock().expect("passes");
        passes.iter().map(Duration::as_millis).collect()
    }

    fn finds(&self, result: Result<Found, NfError>) {
        self.results.lock().expect("results").insert(0, result);
    }
}

fn found(cut: u64) -> Result<Found, NfError> {
    Ok(Found {
        cut,
        ..Found::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_change_is_followed_by_a_pass_at_once_and_a_second_one_soon() {
    let stage = Stage::new();
    stage.flows.in_force(&rules(true));
    sleep(Duration::from_secs(50)).await;
    assert_eq!(stage.passes(), [0, 150]);
    // And one from time to time.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.passes(), [0, 150, 60_150]);
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_fast_share_passes() {
    let stage = Stage::new();
    for _ in 0..100 {
        stage.flows.in_force(&rules(true));
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.passes(), [0, 100, 200, 300, 400, 500, 650]);
}

#[tokio::test(start_paused = true)]
async fn without_policies_flows_are_looked_at_until_none_is_cut() {
    let stage = Stage::new();
    // What an npc before us left.
    stage.finds(found(1));
    stage.flows.in_force(&rules(false));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.passes(), [0, 150]);
    stage.flows.in_force(&rules(false));
    sleep(Duration::from_secs(200)).await;
    assert_eq!(stage.passes(), [0, 150]);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_is_told_and_repeated() {
    let stage = Stage::new();
    stage.finds(Err(NfError::Refused(Answer {
        sequence: 1,
        error: 95,
        line: None,
    })));
    stage.flows.in_force(&rules(true));
    sleep(Duration::from_millis(10)).await;
    let told = stage.health.unready();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("flows: established flows") && told[0].contains("not supported"),
        "{told:?}"
    );
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.health.unready(), [""; 0]);
    assert_eq!(stage.passes().len(), 2);
}
