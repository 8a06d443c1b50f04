//! A node of both families with a bridge and pods, on which npc runs.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use weft_socket::NpcRequest;
use weft_testkit::{eventually::eventually, netns::Netns};

use crate::{
    api::PODS,
    dual::{addresses, endpoint},
    world::{PATIENCE, World, arrives, pod},
};

/// The node and its pods: `pod2` lets nobody in, `pod3` everybody; who sends is `pod4`.
pub(crate) struct Node {
    pub(crate) world: World,
    pods: BTreeMap<u8, Netns>,
}

/// Who lets nobody in.
pub(crate) const CLOSED: u8 = 2;
/// Who lets everybody in.
pub(crate) const OPEN: u8 = 3;
const SENDER: u8 = 4;

impl Node {
    /// npc runs with this section `policy` of its configuration, and everything is in force.
    pub(crate) fn new(policy: &Value) -> Self {
        let mut world = World::with(policy);
        world.dual_bridge();
        world.close(CLOSED);
        world.start_router();
        world.start();
        world.ready();
        let mut node = Self {
            world,
            pods: BTreeMap::new(),
        };
        for n in [CLOSED, OPEN, SENDER] {
            node.come(n);
        }
        for family in 0..2 {
            // A port that has just come up may miss the first question for an address.
            eventually(PATIENCE, || match node.reaches(OPEN, family) {
                true => Ok(()),
                false => Err(family),
            });
            assert!(!node.reaches(CLOSED, family), "family {family}");
        }
        node
    }

    fn come(&mut self, n: u8) {
        self.pods.insert(n, self.world.dual_wire(n));
        self.world.api.add(PODS, &pod(n).build());
        let attached = endpoint(n);
        self.world.attach(attached.clone());
        self.world
            .ask::<Option<()>>(&NpcRequest::Pod(attached))
            .expect("let in");
    }

    /// Does a connection of the sender get to the pod, by its address of family 0 (IPv4) or 1?
    pub(crate) fn reaches(&self, n: u8, family: usize) -> bool {
        let to = addresses(n)[family];
        // What must not come would come at once.
        let patience = Duration::from_millis(if n == CLOSED { 60 } else { 2_000 });
        self.pods[&SENDER].run(move || arrives(to, patience))
    }

    /// The closed pod is closed in both families.
    pub(crate) fn is_closed(&self) -> bool {
        (0..2).all(|family| !self.reaches(CLOSED, family))
    }

    /// A namespace of the sender, to work in.
    pub(crate) fn sender(&self) -> &Netns {
        &self.pods[&SENDER]
    }

    /// Repairs that were counted.
    pub(crate) fn repairs(&self) -> u32 {
        let metrics = self.world.metrics();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("weft_npc_drift_repairs_total "));
        count.expect("the metric").parse().expect("a number")
    }

    /// Notes of events that hold these words.
    pub(crate) fn notes(&self, words: &str) -> usize {
        let notes = self.world.api.notes.lock().expect("notes");
        notes.iter().filter(|note| note.contains(words)).count()
    }
}
