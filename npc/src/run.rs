//! `weft-npc run`: puts the tasks together.

use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use weft_crds::{NodeConfig, Toggle};
use weft_netfilter::backend::Backend as _;
use weft_runtime::{
    health::Health,
    http::{self, Listen},
    shutdown,
};

use crate::{
    args::RunArgs,
    denial::{self, Reader},
    drift::Lookout,
    early::Early,
    events::{self, Announcer},
    flows::{self, Cutter, Flows},
    kernel::{self, InUse},
    metrics::Metrics,
    off, router,
    server::{self, Server},
    snapshot::{self, SnapshotFile},
    state::State,
    sync::{Sync, Tracer, Wanted},
    watch,
};

type Tasks = JoinSet<anyhow::Result<&'static str>>;

fn spawn(
    tasks: &mut Tasks,
    name: &'static str,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(async move { work.await.context(name).map(|()| name) });
}

/// A task that only a signal ends.
fn forever(tasks: &mut Tasks, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    spawn(tasks, name, async move {
        work.await;
        Ok(())
    });
}

/// Runs npc until a signal. The rules stay.
///
/// # Errors
/// The configuration cannot be read, the tools cannot be run, or a task that must not end ended.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let token = shutdown::token()?;
    let path = args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("cannot read the configuration {path}"))?;
    let config: NodeConfig = serde_json::from_str(&text)
        .with_context(|| format!("the configuration {path} is not what the operator renders"))?;
    if config.network.policy.enforcement == Toggle::Disabled {
        return off::run(&args, token).await;
    }
    let client = Client::try_default()
        .await
        .context("cannot find the API server: no kubeconfig and no service account")?;
    let run_dir = &args.sockets.run_dir;
    std::fs::create_dir_all(run_dir)
        .with_context(|| format!("cannot make the directory {}", run_dir.display()))?;
    let snapshot = SnapshotFile::new(&args.state_dir, &config.cluster_id, &args.node_name);
    let kept = snapshot.last();
    let last = kept.as_ref().map(|kept| kept.backend.as_str());
    let backend = kernel::backend(&config.network.policy, last)
        .await
        .context(
            "cannot run nft, or iptables and ipset; the image has them, is this a changed one?",
        )?;

    // Before the first look at the kernel: no change is missed between them.
    let lookout = Lookout::new(backend.name(), &config.cluster_id)
        .context("cannot watch the kernel's rules by netlink")?;

    let in_use = InUse::new(backend.name());
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let registry = Arc::new(registry);
    let health = Health::new(&["lists", "rules"]);
    let state = Arc::new(State::new(&args.node_name));
    let wanted = Wanted::default();
    let (announcer, notices) = Announcer::new(&args.node_name, Arc::clone(&state));
    let (kernel, questions) = Tracer::new();
    let (in_force, rules) = Flows::new();
    let cutter = Cutter {
        pass: flows::pass,
        rules,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    let server = Arc::new(Server {
        state: Arc::clone(&state),
        health: health.clone(),
        backend: in_use.clone(),
        wanted: wanted.clone(),
        kernel,
    });
    let early = Early::new(kept);
    let keep = (snapshot, in_use.clone(), early.in_force());
    let log_denials = config.network.policy.deny_log == Toggle::Enabled;
    let sync = Sync {
        state: Arc::clone(&state),
        backend,
        in_use,
        metrics: metrics.clone(),
        health: health.clone(),
        announcer,
        wanted: wanted.clone(),
        lookout,
        flows: in_force,
        log_group: log_denials.then_some(denial::GROUP),
        in_kernel: false,
        unrepaired: false,
        questions,
        early,
    };

    let mut tasks = Tasks::new();
    let end = || token.clone();
    let shared = || Arc::clone(&state);
    {
        let token = end();
        spawn(&mut tasks, "sync", async move {
            sync.run(token).await;
            Ok(())
        });
    }
    {
        let (path, token) = (run_dir.join("npc.sock"), end());
        spawn(&mut tasks, "npc.sock", async move {
            Ok(server::serve(&path, server, token).await?)
        });
    }
    {
        let routes = http::routes(health, registry);
        let serve = http::serve(Listen::Tcp(args.metrics_address), routes, end());
        spawn(&mut tasks, "metrics", async move { Ok(serve.await?) });
    }
    forever(&mut tasks, "flows", cutter.run(end()));
    if log_denials {
        let reader = Reader {
            state: shared(),
            wanted,
            metrics,
        };
        forever(&mut tasks, "denials", reader.run(end()));
    }
    let (file, name, in_force) = keep;
    forever(
        &mut tasks,
        "snapshot",
        snapshot::run(file, name, in_force, end()),
    );
    forever(
        &mut tasks,
        "endpoints",
        router::run(shared(), run_dir.join("router.sock"), end()),
    );
    forever(
        &mut tasks,
        "pods",
        watch::pods(client.clone(), shared(), end()),
    );
    forever(
        &mut tasks,
        "namespaces",
        watch::namespaces(client.clone(), shared(), end()),
    );
    forever(
        &mut tasks,
        "policies",
        watch::network_policies(client.clone(), shared(), end()),
    );
    forever(
        &mut tasks,
        "events",
        events::publish(client, args.node_name.clone(), notices, end()),
    );

    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended
            .context("a task panicked")
            .and_then(|ended| ended)
            .and_then(|name| {
                anyhow::ensure!(token.is_cancelled(), "the task {name} ended by itself");
                Ok(())
            });
        if let Err(error) = ended {
            token.cancel();
            if result.is_ok() {
                result = Err(error);
            }
        }
    }
    result
}
