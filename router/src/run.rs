//! `weft-router run`: puts the tasks together.

use std::{
    fmt::Write,
    future::Future,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{Router, extract::Query, routing::get};
use kube::{Client, runtime::events::Recorder};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use weft_crds::NodeConfig;
use weft_ipam::gc::Suspects;
use weft_netfilter::exec::{Interest, Monitor, NftFamily};
use weft_netlink::Kernel;
use weft_runtime::{
    health::Health,
    http::{self, Listen},
    shutdown,
};

use crate::{
    args::RunArgs,
    claims, clock, heartbeat, ipam,
    kernel::{Applier, PortTable, Ports, RuleTable},
    leaks,
    metrics::Metrics,
    report, rules, server,
    shared::Shared,
    stores::Stores,
    sync::Sync,
};

/// Runs the router until a signal. What was built stays.
///
/// # Errors
/// The configuration cannot be read, the API client cannot be made, or a task that must not end
/// ended.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let token = shutdown::token()?;
    let path = args.paths.config.display().to_string();
    let text = std::fs::read_to_string(&args.paths.config)
        .with_context(|| format!("cannot read the configuration {path}"))?;
    let config: NodeConfig = serde_json::from_str(&text)
        .with_context(|| format!("the configuration {path} is not what the operator renders"))?;
    anyhow::ensure!(
        !config.cluster_id.is_empty(),
        "the configuration {path} has no clusterId; the operator renders it"
    );
    let client = Client::try_default()
        .await
        .context("cannot find the API server: no kubeconfig and no service account")?;
    for dir in [&args.paths.state_dir, &args.paths.run_dir] {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let registry = Arc::new(registry);
    let health = Health::new(&["fabric"]);
    let mut watches = JoinSet::new();
    let stores = Stores::start(&client, &args.node_name, &mut watches);
    let (allocator, start) = ipam::open(&args.paths.state_dir, &config.cluster_id, &args.node_name);
    let rules = RuleTable::new(config.network.policy.iptables_variant);
    let (rules, worker) = rules::pair(rules, metrics.clone());
    let kernel = Kernel::connect().context("cannot open a netlink socket")?;
    let applier = Applier::new(kernel, &config.cluster_id, args.paths.sysctl_dir.clone());
    let table = PortTable::new(true);
    // The tables that passes write.
    let (_, name) = weft_fabric::TABLE_KEY;
    let tables = Interest::default()
        .in_table(NftFamily::Bridge, name)
        .in_table(NftFamily::Netdev, name)
        .but_of(table.netlink_port());
    let rule_events = Monitor::subscribe(tables).context("cannot subscribe to changes of rules")?;
    let kernel = Kernel::connect().context("cannot open a netlink socket")?;
    let shared = Arc::new(Shared::new(
        args,
        config,
        stores,
        Ports::new(table),
        kernel,
        metrics,
        allocator,
    ));
    let sync = Sync::new(
        Arc::clone(&shared),
        applier,
        start,
        health.clone(),
        rules,
        rule_events,
    );

    let mut tasks = Tasks::default();
    let with = || (Arc::clone(&shared), token.clone());
    let (_, stop) = with();
    tasks.start("rules", worker.run(stop));
    let (_, stop) = with();
    tasks.start("sync", async move { sync.run(stop).await });
    let (s, stop) = with();
    tasks.start(
        "router.sock",
        async move { Ok(server::serve(s, stop).await?) },
    );
    let (s, stop) = with();
    let (api, reporting) = (client.clone(), client.clone());
    tasks.start("claims", async move {
        claims::run(s, api, stop).await;
        Ok(())
    });
    let (s, stop) = with();
    tasks.start("report", async move {
        report::run(s, client, stop).await;
        Ok(())
    });
    let (s, stop) = with();
    tasks.start("npc", async move {
        report::watch_npc(s, stop).await;
        Ok(())
    });
    let (s, stop) = with();
    tasks.start("heartbeat", async move { heartbeat::run(s, stop).await });
    let (s, stop) = with();
    let recorder = report::recorder(&s, reporting);
    tasks.start("housekeeping", async move {
        housekeeping(s, recorder, stop).await;
        Ok(())
    });
    for (name, address, page) in [
        ("status", shared.args.status_address, status_page(&shared)),
        ("metrics", metrics_address(&shared.args), Router::new()),
    ] {
        let routes = page.merge(http::routes(health.clone(), Arc::clone(&registry)));
        let stop = token.clone();
        tasks.start(name, async move {
            Ok(http::serve(Listen::Tcp(address), routes, stop).await?)
        });
    }

    let result = tasks.finish(&token).await;
    watches.abort_all();
    result
}

/// All addresses of both families, or of IPv4 where the kernel has no IPv6.
fn metrics_address(args: &RunArgs) -> SocketAddr {
    let asked = args.metrics_address;
    if asked.ip() == Ipv6Addr::UNSPECIFIED && !args.paths.sysctl_dir.join("ipv6").is_dir() {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, asked.port()));
    }
    asked
}

/// The router's tasks: none may end before the others do.
#[derive(Default)]
struct Tasks(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Tasks {
    fn start(
        &mut self,
        name: &'static str,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.0.spawn(async move { (name, work.await) });
    }

    /// Waits for all; the first that ends by itself stops the others.
    async fn finish(mut self, token: &CancellationToken) -> anyhow::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.0.join_next().await {
            let why = match ended {
                Ok((name, Ok(()))) if token.is_cancelled() => {
                    tracing::debug!(name, "Task ended");
                    continue;
                }
                Ok((name, Ok(()))) => anyhow::anyhow!("the task {name} ended by itself"),
                Ok((name, Err(error))) => error.context(format!("the task {name} failed")),
                Err(panic) => anyhow::Error::new(panic).context("a task panicked"),
            };
            tracing::error!(error = format!("{why:#}"), "The router stops");
            if result.is_ok() {
                result = Err(why);
            }
            token.cancel();
        }
        result
    }
}

/// What must be looked at from time to time.
async fn housekeeping(shared: Arc<Shared>, recorder: Recorder, token: CancellationToken) {
    if !shared.stores.ready().await {
        return;
    }
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    let mut suspects = Suspects::default();
    let mut sweep_at = Instant::now();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Not before the log and the kernel were compared: a release must find its reservation.
        if shared.view.borrow().node_uid.is_empty() {
            continue;
        }
        leaks::replay_tombstones(&shared).await;
        if Instant::now() >= sweep_at {
            sweep_at = Instant::now() + leaks::SWEEP;
            if let Err(error) = leaks::collect(&shared, &mut suspects, &recorder).await {
                tracing::warn!(%error, "Cannot look for leaked addresses");
            }
        }
        let pending = tokio::task::block_in_place(|| shared.ipam().flush_if_pending());
        if let weft_ipam::node::Durability::Pending(error) = pending {
            tracing::warn!(%error, "The address log cannot be written; ADD is refused");
        }
        if let Ok(arp) = std::fs::read_to_string("/proc/thread-self/net/arp") {
            shared
                .metrics
                .neighbours(arp.lines().count().saturating_sub(1));
        }
    }
}

#[derive(Deserialize)]
struct Format {
    format: Option<String>,
}

fn status_page(shared: &Arc<Shared>) -> Router {
    let shared = Arc::clone(shared);
    Router::new().route(
        "/status",
        get(async move |Query(query): Query<Format>| {
            if query.format.as_deref() == Some("json") {
                status_json(&shared).to_string()
            } else {
                status_text(&shared)
            }
        }),
    )
}

fn status_json(shared: &Shared) -> serde_json::Value {
    let view = shared.view.borrow().clone();
    let counts = shared.ipam().counts(clock::now());
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": shared.args.node_name,
        "fabric": view.fabric,
        "policy": view.policy,
        "underlay": view.underlay,
        "mtu": view.mtu,
        "bridgeMAC": view.bridge_mac.map(|m| m.to_string()),
        "gateways": view.gateways,
        "pools": view.pools,
        "blocks": counts.iter().map(|(cidr, c)| serde_json::json!({
            "cidr": cidr, "used": c.used, "cooling": c.cooling, "free": c.free,
        })).collect::<Vec<_>>(),
        "peersGeneration": view.generation,
        "peers": view.peers,
        "unreachablePeers": view.unreachable,
        "endpoints": server::endpoints(shared).endpoints,
    })
}

fn status_text(shared: &Shared) -> String {
    let view = shared.view.borrow().clone();
    let mut text = String::new();
    let word = |ok| if ok { "ready" } else { "not ready" };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "        Version: {}", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "           Node: {}", shared.args.node_name);
    let _ = writeln!(
        text,
        "         Fabric: {} ({})",
        word(view.fabric.ok),
        view.fabric.message
    );
    let _ = writeln!(
        text,
        "         Policy: {} ({})",
        word(view.policy.ok),
        view.policy.message
    );
    let _ = writeln!(
        text,
        "       Underlay: {:?}, MTU of pods {:?}",
        view.underlay, view.mtu
    );
    let _ = writeln!(text, "        Gateway: {:?}", view.gateways);
    let _ = writeln!(
        text,
        "          Peers: {} ({} unreachable: {:?})",
        view.peers.len(),
        view.unreachable.len(),
        view.unreachable
    );
    for (cidr, c) in shared.ipam().counts(clock::now()) {
        let _ = writeln!(
            text,
            "          Block: {cidr} ({} used, {} resting, {} free)",
            c.used, c.cooling, c.free
        );
    }
    for e in server::endpoints(shared).endpoints {
        let _ = writeln!(
            text,
            "            Pod: {}/{} {:?} {}",
            e.pod.namespace, e.pod.name, e.addresses, e.host_ifname
        );
    }
    text
}
