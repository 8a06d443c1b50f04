//! `up`: a control plane in the hub, a host outside, nodes that have registered.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Lab, in_parallel, require_root};
use crate::control_plane;
use crate::image::hex;
use crate::namespace::{Namespaces, environment, hold};
use crate::network::{HUB, OUTSIDE, OUTSIDE_HOST, node_name};
use crate::node;
use crate::options::Options;
use crate::packages;
use crate::pki::{self, Authority};
use crate::programs;
use crate::progress::Progress;
use crate::state::{Phase, State, Store};
use crate::status;
use crate::underlay;
use crate::wait;

impl Lab {
    /// Starts a lab. Returns when every node has registered; nodes become Ready with a CNI.
    ///
    /// A lab that is up with the same options is left as it is.
    ///
    /// # Errors
    /// Options that cannot work, no root, a lab that is up with other options or half up, addresses
    /// or device names that are taken, anything that fails to start (with the end of its log). What
    /// was made until then stays for a look; `down` removes it.
    pub fn up(&self, options: &Options) -> anyhow::Result<()> {
        options.validate()?;
        require_root("up")?;
        let _lock = self.lock()?;
        if let Some(state) = State::read(&self.layout.state())? {
            return self.already(&state, options);
        }
        if let Some(owner) = underlay::owner()? {
            bail!(
                "the lab of {} is up on this machine, and there can be one only; run \
                 `cargo xtask lab down` there first",
                owner.root.display()
            );
        }
        underlay::require_free(options)?;
        packages::ensure(self.progress)?;
        let programs = programs::ensure(&self.layout, self.progress)?;
        let started = Progress::start();

        if self.layout.root().exists() {
            fs::remove_dir_all(self.layout.root()).with_context(|| {
                format!(
                    "cannot remove what is left in {}",
                    self.layout.root().display()
                )
            })?;
        }
        let state = State::new(random_id()?, options.clone());
        let store = Store::create(self.layout.state(), state)?;
        store.change(|state| state.images = programs.images())?;
        self.link_programs(&programs)?;
        let result = self.start_all(&store, options, started);
        if let Err(error) = result {
            return Err(error.context(format!(
                "the lab did not come up; its logs are in {}, and `cargo xtask lab down` removes it",
                self.layout.root().join("log").display()
            )));
        }
        store.change(|state| state.phase = Phase::Up)?;
        started.say(format!("the lab is up: {options}"));
        Ok(())
    }

    fn already(&self, state: &State, options: &Options) -> anyhow::Result<()> {
        let down = "run `cargo xtask lab down` first";
        match state.phase {
            Phase::Starting => bail!("a lab is here that did not finish starting; {down}"),
            Phase::Stopping => bail!("a lab is here that did not finish stopping; {down}"),
            Phase::Up => {}
        }
        let status = status::of(&self.layout, state);
        if state.options != *options {
            bail!("a lab with other options is up ({}); {down}", state.options);
        }
        if !status.is_healthy() {
            bail!("the lab is up, but parts of it are stopped or dead; {down}\n\n{status}");
        }
        self.progress.say("the lab is up already");
        Ok(())
    }

    fn start_all(&self, store: &Store, options: &Options, said: Progress) -> anyhow::Result<()> {
        let authority = Authority::create(&self.layout)?;
        for subject in pki::control_plane() {
            authority.issue(&self.layout, &subject)?;
        }
        fs::create_dir_all(self.layout.root().join("log")).context("cannot create the logs")?;

        let hub = self.make_host(store, HUB)?;
        let lab = store.get().id;
        let owner = underlay::Owner {
            lab,
            root: self.layout.root().to_owned(),
        };
        underlay::create(&hub, &owner, options)?;
        for process in ["etcd", "kube-apiserver"] {
            self.start_daemon(store, HUB, process)?;
        }
        said.say("etcd and the API server start");

        let outside = self.make_host(store, OUTSIDE)?;
        underlay::join(&hub, &outside, OUTSIDE, OUTSIDE_HOST, options)?;

        let indexes: Vec<u8> = (1..=options.nodes).collect();
        in_parallel(&indexes, |index| {
            self.make_node(store, &hub, &authority, *index)
        })?;
        said.say("nodes have containerd and images");

        control_plane::wait_ready(&self.layout)?;
        said.say("the API server is ready");
        for process in ["kube-controller-manager", "kube-scheduler"] {
            self.start_daemon(store, HUB, process)?;
        }
        for index in &indexes {
            self.start_kubernetes(store, *index)?;
        }
        let names: Vec<String> = indexes.iter().map(|index| node_name(*index)).collect();
        self.wait_registered(&names)?;
        let state = store.get();
        for name in &names {
            self.wait_healthy(&state, name, "kube-proxy")?;
        }
        self.wait_service_accounts()
    }

    /// A member that is no node.
    fn make_host(&self, store: &Store, name: &str) -> anyhow::Result<Namespaces> {
        let environment = environment(&store.get().id, name, &self.layout.programs());
        let host = hold(name, environment, || node::mount_host(&self.layout, name))?;
        store.change(|state| state.holders.insert(name.to_owned(), host.holder))?;
        Ok(host)
    }

    /// Until the controller manager has made it, no pod can be created.
    fn wait_service_accounts(&self) -> anyhow::Result<()> {
        let (limit, step) = (Duration::from_secs(60), Duration::from_millis(300));
        wait::until("the default service accounts", limit, step, || {
            for namespace in ["default", "kube-system"] {
                let arguments = ["--namespace", namespace, "get", "serviceaccount", "default"];
                control_plane::kubectl(&self.layout, &arguments)
                    .map_err(|error| format!("{error:#}"))?;
            }
            Ok(())
        })
    }

    fn link_programs(&self, programs: &programs::Programs) -> anyhow::Result<()> {
        let directory = self.layout.programs();
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let mut links: BTreeMap<String, PathBuf> = programs.links().into_iter().collect();
        // The control of the CNI measurements.
        links.insert("cni-plugins".to_owned(), programs.cni_plugins().to_owned());
        for (name, target) in links {
            std::os::unix::fs::symlink(&target, directory.join(&name))
                .with_context(|| format!("cannot link {name} to {}", target.display()))?;
        }
        Ok(())
    }
}

/// A name that no other lab has had on this machine.
fn random_id() -> anyhow::Result<String> {
    let mut bytes = [0; 4];
    std::io::Read::read_exact(
        &mut fs::File::open("/dev/urandom").context("cannot open /dev/urandom")?,
        &mut bytes,
    )
    .context("cannot read /dev/urandom")?;
    Ok(hex(&bytes))
}
