//! Nodes: made by `up`, added to a lab that is up, removed from it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Lab, require_node, require_root};
use crate::cgroup;
use crate::control_plane;
use crate::namespace::{Namespaces, environment, hold};
use crate::network::{HUB, node_host, node_index, node_name};
use crate::node;
use crate::pki::{self, Authority};
use crate::process::{LAB_MARK, MEMBER_MARK, Marks, sweep};
use crate::state::{State, Store, key};
use crate::status;
use crate::underlay;
use crate::wait;

impl Lab {
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

    /// A node with containerd and all images, but no kubelet yet.
    pub(super) fn make_node(
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

    pub(super) fn start_kubernetes(&self, store: &Store, index: u8) -> anyhow::Result<()> {
        let name = node_name(index);
        self.start_daemon(store, &name, "kubelet")?;
        self.start_daemon(store, &name, "kube-proxy")
    }

    pub(super) fn wait_registered(&self, names: &[String]) -> anyhow::Result<()> {
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
}
