//! A watched kind as a table of rows: list, watch, keep. Old rows stay visible during a relist, and
//! only a row that changed wakes the controllers.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

/// Wakes one controller. Wakes that come before it looks are one.
pub(crate) type Wake = Arc<Notify>;

/// Rows by `namespace/name` (or name).
pub(crate) struct Table<R> {
    rows: Mutex<BTreeMap<String, Arc<R>>>,
    synced: watch::Sender<bool>,
    wakes: Vec<Wake>,
}

impl<R: PartialEq> Table<R> {
    pub(crate) fn new(wakes: &[&Wake]) -> Arc<Self> {
        Arc::new(Self {
            rows: Mutex::default(),
            synced: watch::Sender::new(false),
            wakes: wakes.iter().map(|w| Arc::clone(w)).collect(),
        })
    }

    /// An empty table that wakes the same controllers.
    pub(crate) fn sibling(&self) -> Arc<Self> {
        Self::new(&self.wakes.iter().collect::<Vec<_>>())
    }

    /// Every row, by key.
    pub(crate) fn rows(&self) -> Vec<Arc<R>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<R>> {
        self.lock().get(key).cloned()
    }

    /// Waits until the first list is complete.
    pub(crate) async fn synced(&self) {
        // The sender lives in `self`.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn put(&self, key: String, row: R) {
        let mut rows = self.lock();
        if rows.get(&key).is_some_and(|old| **old == row) {
            return;
        }
        rows.insert(key, Arc::new(row));
        drop(rows);
        self.wake();
    }

    fn remove(&self, key: &str) {
        if self.lock().remove(key).is_some() {
            self.wake();
        }
    }

    fn replace(&self, new: BTreeMap<String, R>) {
        let mut rows = self.lock();
        let same = rows.len() == new.len()
            && new
                .iter()
                .all(|(k, v)| rows.get(k).is_some_and(|old| **old == *v));
        if !same {
            *rows = new.into_iter().map(|(k, v)| (k, Arc::new(v))).collect();
        }
        drop(rows);
        let first = !self.synced.send_replace(true);
        if first || !same {
            self.wake();
        }
    }

    fn wake(&self) {
        for wake in &self.wakes {
            wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<R>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps `table` up to date for ever: watches `api`, makes a row of every object. A kind that is
/// not there yet (before the CRDs are) is tried again with back-off.
pub(crate) async fn follow<K, R>(
    table: Arc<Table<R>>,
    api: Api<K>,
    config: watcher::Config,
    row: impl Fn(K) -> R,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    R: PartialEq,
{
    let stream = watcher(api, config).default_backoff();
    pin_mut!(stream);
    let mut listed = BTreeMap::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(key(&object), row(object));
            }
            Ok(watcher::Event::InitDone) => table.replace(std::mem::take(&mut listed)),
            Ok(watcher::Event::Apply(object)) => table.put(key(&object), row(object)),
            Ok(watcher::Event::Delete(object)) => table.remove(&key(&object)),
            Err(error) => tracing::debug!(kind = std::any::type_name::<K>(), %error, "watch"),
        }
    }
}

fn key<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn woken(wake: &Wake) -> bool {
        wake.notified().now_or_never().is_some()
    }

    #[test]
    fn only_a_row_that_changed_wakes() {
        let wake = Wake::default();
        let table = Table::new(&[&wake]);
        table.put("a".into(), 1);
        assert!(woken(&wake));
        table.put("a".into(), 1);
        assert!(!woken(&wake));
        table.remove("b");
        assert!(!woken(&wake));
        table.put("a".into(), 2);
        table.remove("a");
        assert!(woken(&wake), "two changes");
        assert!(!woken(&wake), "are one wake");
    }

    #[test]
    fn the_first_list_wakes_even_when_it_is_empty_and_an_equal_relist_does_not() {
        let wake = Wake::default();
        let table = Table::<u8>::new(&[&wake]);
        assert_eq!(table.synced().now_or_never(), None);
        table.replace(BTreeMap::new());
        assert_eq!(table.synced().now_or_never(), Some(()));
        assert!(woken(&wake));
        table.replace(BTreeMap::new());
        assert!(!woken(&wake));
        table.replace([("a".to_owned(), 1)].into());
        assert!(woken(&wake));
    }
}
