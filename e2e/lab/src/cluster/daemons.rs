//! Daemons of the lab: stopped and started one by one.

use std::time::Duration;

use super::{Component, Lab, require_root};
use crate::control_plane;
use crate::network::{HUB, node_index};
use crate::node;
use crate::state::{State, Store, key};
use crate::underlay;

impl Lab {
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

    /// Starts one daemon of a member and records it.
    pub(super) fn start_daemon(
        &self,
        store: &Store,
        member: &str,
        process: &str,
    ) -> anyhow::Result<()> {
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

    /// Waits until a daemon of a node says that it is well.
    pub(super) fn wait_healthy(
        &self,
        state: &State,
        name: &str,
        process: &str,
    ) -> anyhow::Result<()> {
        node::wait_healthy(&self.layout, &self.namespaces(state, name)?, name, process)
    }
}
