//! `table netdev weft`, through `nft`.

use weft_fabric::{SHORTCUT, Shortcut};
use weft_netlink::Step;

use super::listing::{Before, Listing, Look};
use crate::exec;

/// The table as we last wrote it.
#[derive(Debug, Default)]
pub(super) struct ShortcutTable {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is known of the kernel's table.
    #[default]
    Unknown,
    /// We wrote it.
    Written {
        shortcut: Shortcut,
        listing: Listing,
    },
    /// This kernel does not take it: the bridge does the work.
    Refused(Shortcut),
}

impl ShortcutTable {
    /// Makes the table hold `shortcut`, after `steps` were carried out on the devices. Returns what
    /// was done. A kernel that refuses is no error: frames then take the longer way.
    pub(super) async fn apply(
        &mut self,
        shortcut: &Shortcut,
        steps: &[Step],
        verify: bool,
    ) -> Option<String> {
        if touched(shortcut, steps) {
            self.state = State::Unknown;
        } else if verify {
            self.check().await;
        }
        match &self.state {
            State::Written { shortcut: held, .. } | State::Refused(held) if held == shortcut => {
                return None;
            }
            State::Unknown | State::Written { .. } | State::Refused(_) => {}
        }
        let [one, other] = &shortcut.ends;
        let before = Before::now();
        match exec::run("nft", &["-f", "-"], &shortcut.render()).await {
            Ok(_) => {
                self.state = State::Written {
                    shortcut: shortcut.clone(),
                    listing: Listing::written(SHORTCUT, before).await,
                };
                Some(format!("write table {SHORTCUT} ({one} <-> {other})"))
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "No short cut between {one} and {other} on this kernel, the bridge forwards"
                );
                self.state = State::Refused(shortcut.clone());
                None
            }
        }
    }

    /// Forgets what is believed if the kernel does not certainly hold it.
    async fn check(&mut self) {
        let State::Written { listing, .. } = &mut self.state else {
            return;
        };
        match listing.look(SHORTCUT).await {
            Look::Right => return,
            Look::Changed => {
                tracing::warn!(table = SHORTCUT, "Changed by somebody, writing it again");
            }
            Look::Unsure => {
                tracing::debug!(
                    table = SHORTCUT,
                    "Others wrote rules meanwhile, writing it again"
                );
            }
        }
        self.state = State::Unknown;
    }
}

/// A link that was made anew has lost its hook.
fn touched(shortcut: &Shortcut, steps: &[Step]) -> bool {
    steps.iter().any(|step| {
        matches!(step, Step::CreateLink { .. } | Step::DeleteLink(_))
            && step
                .links()
                .into_iter()
                .any(|link| shortcut.ends.contains(link))
    })
}
