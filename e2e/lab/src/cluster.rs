//! The verbs of a lab.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cgroup;
use crate::control_plane;
use crate::image::hex;
use crate::layout::Layout;
use crate::lock::{Lock, try_lock};
use crate::namespace::{Namespaces, environment, hold};
use crate::network::{HUB, OUTSIDE, OUTSIDE_HOST, node_host, node_index, node_name};
use crate::node;
use crate::options::Options;
use crate::packages;
use crate::pki::{self, Authority};
use crate::process::{LAB_MARK, MEMBER_MARK, Marks, sweep};
use crate::programs;
use crate::progress::Progress;
use crate::state::{Phase, State, Store, key};
use crate::status::{self, Status};
use crate::underlay;
use crate::wait;

mod component;
mod teardown;

pub use component::Component;

/// A checkout's lab.
#[derive(Debug, Clone)]
pub struct Lab {
    layout: Layout,
    progress: Progress,
}

impl Lab {
    /// The lab with these directories; nothing is looked at yet.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            progress: Progress::start(),
        }
    }

    /// Where the lab keeps its files.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Builds every program and image that is not in the cache.
    ///
    /// # Errors
    /// A missing Go or C compiler, a package that cannot be installed, a failed build (with the end
    /// of its log).
    pub fn build(&self) -> anyhow::Result<()> {
        packages::ensure(self.progress)?;
        programs::ensure(&self.layout, self.progress).map(drop)
    }

    /// Path of helm, in the version of the lab; built when it is not in the cache.
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn helm(&self) -> anyhow::Result<PathBuf> {
        programs::helm(&self.layout, self.progress)
    }

    /// Directory of the reference CNI plugins (`bandwidth`, `bridge`, `host-local`, `loopback`,
    /// `portmap`; static) for a processor; `goarch` is Go's word for it.
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn cni_plugins(&self, goarch: &str) -> anyhow::Result<PathBuf> {
        programs::cni_plugins(&self.layout, goarch, self.progress)
    }

    /// Path of upstream's NetworkPolicy suite, a program with the flags of `e2e.test`.
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn netpol(&self) -> anyhow::Result<PathBuf> {
        programs::netpol(&self.layout, self.progress)
    }

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

    /// A node with containerd and all images, but no kubelet yet.
    fn make_node(
        &self,
        store: &Store,
        hub: &Namespaces,
        authority: &Authority,
        index: u8,
    ) -> anyhow::Result<()> {
        let name = node_name(index);
        let State {
            id,
            options,
            images,
            ..
        } = store.change(|state| {
            state.nodes.insert(name.clone(), index);
            state.clone()
        })?;
        cgroup::create(&id, &name)?;
        let addresses = crate::network::node_addresses(index, options.families);
        authority.issue(&self.layout, &pki::node(&name, &addresses))?;
        node::configure(&self.layout, &id, index, &options)?;

        let environment = environment(&id, &name, &self.layout.programs());
        let node = hold(&name, environment, || node::mount_node(&self.layout, &name))?;
        store.change(|state| state.holders.insert(name.clone(), node.holder))?;
        node::set_sysctls(&node, &options)?;
        underlay::join(hub, &node, &name, node_host(index), &options)?;
        underlay::default_routes(&node, &options)?;

        self.start_daemon(store, &name, "containerd")?;
        node::wait_healthy(&self.layout, &node, &name, "containerd")?;
        for image in &images {
            node::import(&node, image).with_context(|| format!("{name}: {}", image.display()))?;
        }
        Ok(())
    }

    fn start_kubernetes(&self, store: &Store, index: u8) -> anyhow::Result<()> {
        let name = node_name(index);
        self.start_daemon(store, &name, "kubelet")?;
        self.start_daemon(store, &name, "kube-proxy")
    }

    /// Waits until a daemon of a node says that it is well.
    fn wait_healthy(&self, state: &State, name: &str, process: &str) -> anyhow::Result<()> {
        node::wait_healthy(&self.layout, &self.namespaces(state, name)?, name, process)
    }

    fn wait_registered(&self, names: &[String]) -> anyhow::Result<()> {
        let (limit, step) = (Duration::from_secs(60), Duration::from_millis(300));
        wait::until("the nodes to register", limit, step, || {
            let registered = status::registered(&self.layout);
            let missing: Vec<&str> = names
                .iter()
                .filter(|name| !registered.contains(name))
                .map(String::as_str)
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let log = self.layout.log(missing[0], "kubelet");
            let end = crate::command::tail(&log, 10);
            Err(format!(
                "{} did not; end of {}:\n{end}",
                missing.join(", "),
                log.display()
            ))
        })
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

    /// Starts one daemon of a member and records it.
    fn start_daemon(&self, store: &Store, member: &str, process: &str) -> anyhow::Result<()> {
        let state = store.get();
        let namespaces = self.namespaces(&state, member)?;
        let daemon = if member == HUB {
            control_plane::daemon(&self.layout, &state.options, process)
        } else {
            node::daemon(&self.layout, &state.options, node_index(member)?, process)
        };
        let started = daemon.start(&namespaces)?;
        let key = key(member, process);
        store.change(|state| {
            state.stopped.remove(&key);
            state.daemons.insert(key, started)
        })?;
        Ok(())
    }

    /// Adds a node to a running lab: `name`, or the next one.
    ///
    /// # Errors
    /// No lab, a name that exists or cannot be a node's, anything that fails to start.
    pub fn add_node(&self, name: Option<&str>) -> anyhow::Result<String> {
        require_root("add-node")?;
        let _lock = self.lock()?;
        let store = self.open()?;
        let state = store.get();
        let index = match name {
            Some(name) => node_index(name)?,
            None => state.next_index,
        };
        let name = node_name(index);
        node_index(&name)?;
        if state.nodes.contains_key(&name) {
            bail!("node {name} exists already");
        }
        store.change(|state| state.next_index = state.next_index.max(index + 1))?;
        let hub = self.namespaces(&state, HUB)?;
        let authority = Authority::open(&self.layout)?;
        self.make_node(&store, &hub, &authority, index)
            .and_then(|()| self.start_kubernetes(&store, index))
            .and_then(|()| self.wait_registered(std::slice::from_ref(&name)))
            .and_then(|()| self.wait_healthy(&store.get(), &name, "kube-proxy"))
            .with_context(|| {
                format!("cannot add {name}; `cargo xtask lab remove-node {name}` removes its parts")
            })?;
        self.progress.say(format!("{name} has registered"));
        Ok(name)
    }

    /// Stops a node and removes everything of it; its Node object too, if asked.
    ///
    /// # Errors
    /// No lab, no such node, an API server that does not delete the object.
    pub fn remove_node(&self, name: &str, delete_object: bool) -> anyhow::Result<()> {
        require_root("remove-node")?;
        let _lock = self.lock()?;
        let store = self.open()?;
        let state = store.get();
        require_node(&state, name)?;
        // The node's mount namespace belongs to nobody else, so everything in it is the node's.
        let namespaces = self.namespaces(&state, name).map(|node| node.identities());
        let marks = Marks {
            environment: [(LAB_MARK, state.id.as_str()), (MEMBER_MARK, name)]
                .map(|(mark, value)| format!("{mark}={value}"))
                .into(),
            namespaces: namespaces.unwrap_or_default().into_iter().collect(),
            ..Marks::default()
        };
        sweep(marks, || cgroup::processes(&state.id, Some(name)))?;
        underlay::leave(&self.namespaces(&state, HUB)?, name);
        cgroup::remove(&state.id, Some(name))?;
        let storage = self.layout.member(name);
        if storage.exists() {
            fs::remove_dir_all(&storage)
                .with_context(|| format!("cannot remove {}", storage.display()))?;
        }
        store.change(|state| {
            let prefix = key(name, "");
            state.nodes.remove(name);
            state.holders.remove(name);
            state.daemons.retain(|key, _| !key.starts_with(&prefix));
            state.stopped.retain(|key| !key.starts_with(&prefix));
        })?;
        if delete_object {
            let arguments = [
                "delete",
                "node",
                name,
                "--ignore-not-found",
                "--timeout=30s",
            ];
            control_plane::kubectl(&self.layout, &arguments)
                .with_context(|| format!("{name} is gone, but its Node object is not"))?;
        }
        self.progress.say(format!("{name} is removed"));
        Ok(())
    }

    /// Stops a component; `start` brings it back. Stopping what is stopped is fine.
    ///
    /// # Errors
    /// No lab, a node missing or given where none belongs.
    pub fn stop(&self, component: Component, node: Option<&str>) -> anyhow::Result<()> {
        require_root("stop")?;
        let _lock = self.lock()?;
        let store = self.open()?;
        let state = store.get();
        let (member, process) = component.place(&state, node)?;
        let key = key(&member, process);
        store.change(|state| state.stopped.insert(key.clone()))?;
        if component == Component::Link {
            return underlay::set_link(&self.namespaces(&state, HUB)?, &member, false);
        }
        if let Some(running) = state.daemons.get(&key) {
            // The API server would wait for its watchers for a minute.
            running.stop(&key, Duration::from_secs(5))?;
        }
        store.change(|state| state.daemons.remove(&key))?;
        Ok(())
    }

    /// Starts a component that was stopped or died. Starting what runs is fine.
    ///
    /// # Errors
    /// No lab, a node missing or given where none belongs, a component that does not start.
    pub fn start(&self, component: Component, node: Option<&str>) -> anyhow::Result<()> {
        require_root("start")?;
        let _lock = self.lock()?;
        let store = self.open()?;
        let state = store.get();
        let (member, process) = component.place(&state, node)?;
        if component == Component::Link {
            underlay::set_link(&self.namespaces(&state, HUB)?, &member, true)?;
            let key = key(&member, process);
            store.change(|state| state.stopped.remove(&key))?;
            return Ok(());
        }
        if state
            .daemons
            .get(&key(&member, process))
            .is_some_and(|running| running.is_alive())
        {
            return Ok(());
        }
        self.start_daemon(&store, &member, process)?;
        match component {
            Component::ApiServer | Component::Etcd => control_plane::wait_ready(&self.layout),
            Component::Containerd | Component::Kubelet | Component::Proxy => {
                self.wait_healthy(&state, &member, process)
            }
            Component::ControllerManager | Component::Scheduler | Component::Link => Ok(()),
        }
    }

    /// Gives every node an image archive, and every node that is added later.
    ///
    /// # Errors
    /// No lab, an archive that cannot be read or imported.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        require_root("load-image")?;
        let _lock = self.lock()?;
        let store = self.open()?;
        let name = archive
            .file_name()
            .context("the archive has no file name")?;
        let images = self.layout.root().join("images");
        let kept = images.join(name);
        fs::create_dir_all(&images)
            .and_then(|()| fs::copy(archive, &kept))
            .with_context(|| format!("cannot read the image archive {}", archive.display()))?;
        store.change(|state| {
            if !state.images.contains(&kept) {
                state.images.push(kept.clone());
            }
        })?;
        let state = store.get();
        let names: Vec<&String> = state.nodes.keys().collect();
        in_parallel(&names, |name| {
            node::import(&self.namespaces(&state, name)?, &kept)
                .with_context(|| format!("{name}: cannot import {}", archive.display()))
        })?;
        self.progress
            .say(format!("{} is on {} nodes", archive.display(), names.len()));
        Ok(())
    }

    /// What is up; `None` when nothing is.
    ///
    /// # Errors
    /// A broken state file.
    pub fn status(&self) -> anyhow::Result<Option<Status>> {
        Ok(State::read(&self.layout.state())?.map(|state| status::of(&self.layout, &state)))
    }

    /// Replaces this process by a command in a member's namespaces.
    ///
    /// # Errors
    /// No lab, no such member, a command that cannot be run; otherwise it does not return.
    pub fn enter(&self, member: &str, words: &[String]) -> anyhow::Result<()> {
        require_root("enter")?;
        let state = self.state()?;
        crate::enter::enter(&self.namespaces(&state, member)?, words)
    }

    fn lock(&self) -> anyhow::Result<Lock> {
        let busy = "another lab command is at work in this checkout; wait for it or end it";
        try_lock(&self.layout.lock(), busy)
    }

    fn state(&self) -> anyhow::Result<State> {
        State::read(&self.layout.state())?
            .context("no lab is up in this checkout; start one by `cargo xtask lab up`")
    }

    /// The state of a lab that is up, to change it.
    fn open(&self) -> anyhow::Result<Store> {
        let state = self.state()?;
        if state.phase != Phase::Up {
            bail!(
                "the lab is not up but {:?}; run `cargo xtask lab down`",
                state.phase
            );
        }
        Store::create(self.layout.state(), state)
    }

    fn namespaces(&self, state: &State, member: &str) -> anyhow::Result<Namespaces> {
        let Some(holder) = state.holders.get(member) else {
            let members: Vec<&str> = state.holders.keys().map(String::as_str).collect();
            bail!("the lab has no {member:?}; it has {}", members.join(", "));
        };
        let environment = environment(&state.id, member, &self.layout.programs());
        Ok(Namespaces {
            holder: *holder,
            environment,
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

/// Runs `work` for every item on a thread of its own; the first error counts.
fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        // All are waited for, also after an error: nobody works on in the background.
        let results: Vec<anyhow::Result<()>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("a thread of the lab panicked"))
            })
            .collect();
        results.into_iter().collect()
    })
}

fn require_root(verb: &str) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "`lab {verb}` makes namespaces, mounts and cgroups and needs root; run it by sudo \
             (with your PATH: `sudo --preserve-env=PATH,HOME cargo xtask lab {verb}`)"
        );
    }
    Ok(())
}

fn require_node(state: &State, name: &str) -> anyhow::Result<()> {
    if !state.nodes.contains_key(name) {
        let nodes: Vec<&str> = state.nodes.keys().map(String::as_str).collect();
        bail!("the lab has no node {name:?}; it has {}", nodes.join(", "));
    }
    Ok(())
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
