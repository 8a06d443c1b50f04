//! What the caller may set, and where things lie. The environment is read here and nowhere else.

use std::path::PathBuf;

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use weft_probe::cluster::Cluster;

/// Image of weft when `WEFT_IMAGE` does not name another.
const IMAGE: &str = "docker.io/weft/weft:0.1.0";

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The files of `KUBECONFIG`; the lab's when unset. Never the caller's `~/.kube/config`: the
    /// tests delete things.
    pub kubeconfigs: Vec<PathBuf>,
    /// `WEFT_IMAGE`: image of the probe pods.
    pub image: String,
    /// The checkout.
    pub workspace: PathBuf,
}

impl Settings {
    /// Reads the environment.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn new() -> Self {
        let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            kubeconfigs: set("KUBECONFIG").map_or_else(
                || vec![workspace.join("target/lab/admin.kubeconfig")],
                |list| std::env::split_paths(&list).collect(),
            ),
            image: set("WEFT_IMAGE").unwrap_or_else(|| IMAGE.into()),
            workspace,
        }
    }

    /// Whether the cluster is the lab of this checkout.
    ///
    /// # Errors
    /// It is another cluster; the message says what the test needs.
    pub fn need_lab(&self) -> anyhow::Result<()> {
        let lab = self.workspace.join("target/lab/admin.kubeconfig");
        let same = |path: &PathBuf| path.canonicalize().ok();
        anyhow::ensure!(
            matches!(&self.kubeconfigs[..], [only] if same(&lab).is_some() && same(&lab) == same(only)),
            "this test needs the lab of this checkout (it has a host outside the cluster and can \
             add nodes): make lab-up, and don't set KUBECONFIG"
        );
        Ok(())
    }

    /// Connects to the cluster.
    ///
    /// # Errors
    /// There is no kubeconfig, or it is broken.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        let mut kubeconfig = Kubeconfig::default();
        for file in &self.kubeconfigs {
            let next = Kubeconfig::read_from(file).with_context(|| {
                format!(
                    "read {}: start a cluster with `make lab-up` and install weft with \
                     `make install`, or set KUBECONFIG",
                    file.display()
                )
            })?;
            kubeconfig = kubeconfig
                .merge(next)
                .with_context(|| format!("merge {}", file.display()))?;
        }
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("use the kubeconfig")?;
        // Background traffic holds an exec open for as long as it runs.
        config.read_timeout = None;
        Ok(Cluster {
            client: Client::try_from(config).context("make a client")?,
            image: self.image.clone(),
            pull_policy: "IfNotPresent".into(),
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}
