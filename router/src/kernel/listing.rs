//! How `nft` lists a table of ours: what was listed first after it was written is what it holds.

use crate::exec;

/// What is believed of a table that was just written.
#[derive(Debug, Default)]
pub(super) struct Listing(Option<String>);

impl Listing {
    /// Lists `table` (family and name) and compares with the first time. A table that cannot be
    /// listed has changed.
    pub(super) async fn is_unchanged(&mut self, table: &str) -> bool {
        let (family, name) = table.split_once(' ').unwrap_or(("ip", table));
        let Ok(now) = exec::run("nft", &["list", "table", family, name], "").await else {
            return false;
        };
        *self.0.get_or_insert_with(|| now.clone()) == now
    }
}
