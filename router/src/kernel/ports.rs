//! `table bridge weft`, through `nft`.

use weft_fabric::{PortRules, TABLE};

use crate::exec::{self, ExecError};

/// The table as we last wrote it.
#[derive(Debug, Default)]
pub struct PortTable {
    written: Option<Written>,
}

#[derive(Debug)]
struct Written {
    rules: PortRules,
    /// How `nft` lists it; anything else means that somebody changed it.
    listing: Option<String>,
}

impl PortTable {
    /// Makes the table hold `rules`: by a delta if we know what it holds, else as a whole. Each is
    /// one transaction. Returns what was done.
    ///
    /// # Errors
    /// `nft` failed; the table is as it was, and the next call writes it as a whole.
    pub async fn apply(
        &mut self,
        rules: &PortRules,
        verify: bool,
    ) -> Result<Option<String>, ExecError> {
        if verify {
            self.check().await;
        }
        let (text, whole) = match &self.written {
            None => (Some(rules.render()), true),
            Some(written) => (rules.delta(&written.rules), false),
        };
        let Some(text) = text else {
            return Ok(None);
        };
        // Until the kernel took it, we do not know what is there.
        let known = self.written.take();
        let run = exec::run("nft", &["-f", "-"], &text).await;
        if let Err(delta_error) = run {
            if whole {
                return Err(delta_error);
            }
            tracing::warn!(error = %delta_error, "Port rules differ from what was written, writing all");
            drop(known);
            exec::run("nft", &["-f", "-"], &rules.render()).await?;
        }
        self.written = Some(Written {
            rules: rules.clone(),
            listing: None,
        });
        Ok(Some(if whole {
            format!("write table {TABLE} ({} ports)", rules.ports.len())
        } else {
            format!("change table {TABLE} ({} ports)", rules.ports.len())
        }))
    }

    /// Forgets what is believed if the kernel lists the table in another way than the first time
    /// after it was written.
    async fn check(&mut self) {
        let Some(written) = &mut self.written else {
            return;
        };
        match (list().await, &written.listing) {
            (Ok(listing), None) => written.listing = Some(listing),
            (Ok(listing), Some(expected)) if listing == *expected => {}
            (Ok(_) | Err(_), _) => {
                tracing::warn!(
                    table = TABLE,
                    "Port rules were changed by somebody, writing all"
                );
                self.written = None;
            }
        }
    }
}

async fn list() -> Result<String, ExecError> {
    exec::run("nft", &["list", "table", "bridge", "weft"], "").await
}
