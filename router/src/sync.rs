//! The sync loop: one task owns the kernel's side.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use weft_fabric::{Fabric, Input, device_mac, fabric, names::WEAVE};
use weft_ipam::node::{Durability, Start};
use weft_netfilter::exec::Monitor;
use weft_netlink::{Events, Kernel, Network};
use weft_runtime::{backoff::Backoff, health::Health};

use crate::{
    clock, conflist, input, ipam,
    kernel::{self, Applier, Outcome},
    rules::Rules,
    shared::Shared,
    view::{Verdict, View},
};

/// Events come in bursts (a pod is a dozen).
const CALM: Duration = Duration::from_millis(50);
/// Rules are read back so often, whatever happens.
const VERIFY: Duration = Duration::from_secs(5);
/// And at most so often when the kernel says that somebody changed some.
const VERIFY_SOON: Duration = Duration::from_millis(700);

/// The loop's own state.
pub(crate) struct Sync {
    shared: Arc<Shared>,
    applier: Applier<Kernel>,
    start: Option<Start>,
    health: Health,
    rules: Rules,
    rule_events: Monitor,
}

impl Sync {
    pub(crate) fn new(
        shared: Arc<Shared>,
        applier: Applier<Kernel>,
        start: Start,
        health: Health,
        rules: Rules,
        rule_events: Monitor,
    ) -> Self {
        Self {
            shared,
            applier,
            start: Some(start),
            health,
            rules,
            rule_events,
        }
    }

    /// Runs until `token` is cancelled. What is in the kernel stays.
    pub(crate) async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        let pulse = self.health.heartbeat("sync", Duration::from_secs(120));
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            ready = self.shared.stores.ready() => anyhow::ensure!(ready, "a watch of the API ended"),
        }
        tracing::info!("First lists are here");
        let mut changes = self.shared.stores.changes();
        let mut events = Events::subscribe()?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut due = Instant::now();
        let mut verify_at = due;
        let mut verified = due;
        loop {
            let soon = Instant::now() + CALM;
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = self.shared.look.notified() => due = due.min(soon),
                changed = changes.changed() => {
                    anyhow::ensure!(changed.is_ok(), "the watches of the API ended");
                    due = due.min(soon);
                }
                alive = events.changed() => {
                    if !alive {
                        events = Events::subscribe()?;
                    }
                    due = due.min(soon);
                }
                alive = self.rule_events.changed() => {
                    if !alive {
                        self.rule_events = self.rule_events.again()?;
                    }
                    verify_at = verify_at.min((verified + VERIFY_SOON).max(soon));
                }
                alive = self.rules.changed() => {
                    if !alive {
                        return Ok(());
                    }
                    due = due.min(soon);
                }
                () = sleep_until(due.min(verify_at)) => {
                    let begin = Instant::now();
                    let verify = begin >= verify_at;
                    let result = self.pass(verify).await;
                    self.shared.metrics.sync(begin.elapsed(), result.is_ok());
                    let now = Instant::now();
                    if verify {
                        verified = now;
                        verify_at = now + VERIFY;
                    }
                    due = match result {
                        Ok(()) => {
                            backoff.reset();
                            now + VERIFY
                        }
                        Err(why) => {
                            tracing::warn!(why, "Sync incomplete, trying again");
                            now + backoff.next(weft_runtime::backoff::random())
                        }
                    };
                }
            }
            pulse.beat();
        }
    }

    /// One pass: what shall be, what is, make it so, say so.
    async fn pass(&mut self, verify: bool) -> Result<(), String> {
        let observed = self.applier.observe().await.map_err(|e| e.to_string())?;
        self.take_up(&observed).await;
        self.grant();
        let result = self.decide_and_apply(&observed, verify).await;
        let config = &self.shared.config;
        match result {
            Ok(done) => {
                let complete = done.outcome.is_complete();
                let verdict = verdict(&done);
                let problem = (!complete).then(|| verdict.message.clone());
                self.publish(verdict, &done);
                if self.shared.view.borrow().fabric.ok {
                    conflist::write(
                        &self.shared.args.paths,
                        config,
                        !self.shared.view.borrow().blocks.is_empty(),
                    );
                }
                // A foreign device is waited out, not an error to be retried every moment.
                match problem {
                    Some(why) => Err(why),
                    None => Ok(()),
                }
            }
            Err(verdict) => {
                let why = format!("{}: {}", verdict.reason, verdict.message);
                self.shared.update(|view| view.fabric = verdict);
                self.health_of(&why);
                Err(why)
            }
        }
    }

    /// First pass only: what the kernel shows and the log does not know.
    async fn take_up(&mut self, observed: &Network) {
        let Some(start) = self.start.take() else {
            return;
        };
        let shown = ipam::from_kernel(
            observed,
            self.applier.owner(),
            &kernel::listed_addresses().await,
            &self.shared.stores,
            clock::now(),
        );
        let mut allocator = self.shared.ipam();
        let durability = match start {
            Start::NeedsRebuild(damage) => {
                tracing::warn!(%damage, pods = shown.len(), "Addresses rebuilt from the kernel");
                allocator.rebuild(shown, clock::now())
            }
            Start::Ready { cut } => {
                let (added, durability) = allocator.adopt(shown, clock::now());
                tracing::info!(cut, adopted = added.len(), "Address log read");
                durability
            }
        };
        if let Durability::Pending(error) = durability {
            tracing::warn!(%error, "The address log cannot be written; ADD will be refused");
        }
    }

    /// Confirmed blocks and gateways into the allocator.
    fn grant(&self) {
        let stores = &self.shared.stores;
        let blocks = ipam::node_blocks(&stores.blocks.state(), stores);
        let gateways = stores.weft_node.state().into_iter().next();
        let gateways = gateways
            .map(|n| {
                n.spec
                    .gateways
                    .iter()
                    .filter_map(|g| g.parse().ok())
                    .collect()
            })
            .unwrap_or_default();
        let change = self.shared.ipam().set_blocks(blocks, gateways);
        for stranded in change.stranded {
            tracing::warn!(
                container = stranded.id.container_id,
                addresses = ?stranded.addresses,
                "A pod has an address in no confirmed block of this node: its port is closed"
            );
        }
        if let Durability::Pending(error) = change.durability {
            tracing::warn!(%error, "Blocks are not on disk yet");
        }
    }

    async fn decide_and_apply(
        &mut self,
        observed: &Network,
        verify: bool,
    ) -> Result<Done, Verdict> {
        if !self.applier.has_bridge_netfilter() {
            return Err(Verdict::bad(
                "NoBridgeNetfilter",
                "the kernel module br_netfilter is not loaded, so policies could not be enforced \
                 between pods; load it on the node (modprobe br_netfilter)",
            ));
        }
        let shared = &self.shared;
        let mut gathered = input::gather(
            &shared.args.node_name,
            &shared.config,
            &shared.stores,
            &shared.open_reservations(),
            observed,
        )?;
        let decide = |input: &Input| {
            fabric(input).map_err(|e| Verdict::bad("InvalidConfiguration", e.to_string()))
        };
        let first = decide(&gathered.input)?;
        // Rules name devices and need none: they are there before the first frame passes.
        let hindered = self.rules.want(&first.rules).await;
        let pods = || shared.pod_ports();
        let ports = shared.ports.write(&first.ports, pods, verify).await;
        // An ADD does not wait for a pass: look again, and list the pods after the look.
        let observed = self.applier.observe().await;
        let observed = observed.map_err(|e| Verdict::bad("ApplyFailed", e.to_string()))?;
        gathered.input.pods = pods();
        let fabric = decide(&gathered.input)?;
        let mut outcome = self.applier.apply(&observed, &fabric, verify).await;
        match ports {
            Ok(change) => outcome.changes.extend(change),
            Err(error) => outcome.problems.push(error.to_string()),
        }
        outcome.problems.extend(hindered);
        let allowed = if outcome.is_complete() {
            Ok(&fabric.ports)
        } else {
            let why = verdict_of(&outcome).unwrap_or_else(|| Verdict::bad("ApplyFailed", ""));
            Err(format!("{}: {}", why.reason, why.message))
        };
        shared.ports.allow(allowed).await;
        for change in &outcome.changes {
            tracing::info!(change, "Applied");
        }
        shared.metrics.changes(outcome.changes.len());
        Ok(Done {
            gathered,
            fabric,
            outcome,
        })
    }

    fn publish(&self, verdict: Verdict, done: &Done) {
        let blocks = self.shared.ipam().blocks();
        if verdict.ok {
            self.health.ready("fabric");
        } else {
            self.health_of(&verdict.message);
        }
        let input = &done.gathered.input;
        self.shared.update(|view| {
            *view = View {
                fabric: verdict,
                node_uid: input.node_uid.clone(),
                underlay: vec![input.underlay],
                mtu: Some(done.fabric.mtu),
                bridge_mac: Some(device_mac(&input.node_uid, WEAVE)),
                gateways: input.gateways.clone(),
                pools: input.pools.clone(),
                blocks: blocks.iter().map(|b| b.cidr).collect(),
                peers: input.peers.clone(),
                generation: if done.outcome.is_complete() {
                    done.gathered.generation
                } else {
                    view.generation
                },
                policy: view.policy.clone(),
                unreachable: view.unreachable.clone(),
                npc_backend: view.npc_backend.clone(),
                npc_version: view.npc_version.clone(),
            };
        });
    }

    fn health_of(&self, why: &str) {
        self.health.not_ready("fabric", why);
    }
}

struct Done {
    gathered: input::Gathered,
    fabric: Fabric,
    outcome: Outcome,
}

/// What an incomplete pass comes to.
fn verdict_of(outcome: &Outcome) -> Option<Verdict> {
    if let Some(foreign) = outcome.foreign.first() {
        return Some(Verdict::bad("ForeignDevice", foreign.to_string()));
    }
    let failed = !outcome.problems.is_empty();
    failed.then(|| Verdict::bad("ApplyFailed", outcome.problems.join("; ")))
}

fn verdict(done: &Done) -> Verdict {
    if let Some(verdict) = verdict_of(&done.outcome) {
        return verdict;
    }
    if done.gathered.input.gateways.is_empty() {
        return Verdict::bad(
            "NoGateway",
            "the operator has not granted this node a gateway address yet; see its log and `kubectl \
             get ippools,weftnodes`",
        );
    }
    Verdict::good("FabricUp", "devices, rules and peers are in the kernel")
}
