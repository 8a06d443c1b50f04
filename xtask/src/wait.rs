//! Waiting for what nobody announces: a look a second, what changed is said, and a deadline.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::command::pause;

/// Looks until a look breaks; `Continue` says what is still missing. `look_at` tells a person where
/// to look when it is missing still after `limit`.
///
/// # Errors
/// A look failed, or the time is over.
pub(crate) fn until(
    limit: Duration,
    look_at: &str,
    mut look: impl FnMut() -> Result<ControlFlow<String, String>>,
) -> Result<()> {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let seen = look()?;
        let (ControlFlow::Break(now) | ControlFlow::Continue(now)) = &seen;
        if *now != said {
            println!("{:>4} s: {now}", begun.elapsed().as_secs());
            said.clone_from(now);
        }
        if seen.is_break() {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < limit,
            "after {} s {said}; look at {look_at}",
            limit.as_secs()
        );
        pause(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_at_the_deadline_is_the_error() {
        let mut looks = 0;
        let error = until(Duration::ZERO, "the nodes", || {
            looks += 1;
            Ok(ControlFlow::Continue("1 of 3 nodes are Ready".into()))
        });
        assert_eq!(
            (looks, error.unwrap_err().to_string().as_str()),
            (1, "after 0 s 1 of 3 nodes are Ready; look at the nodes")
        );
    }

    #[test]
    fn what_is_there_is_not_waited_for() {
        let there = until(Duration::ZERO, "nothing", || {
            Ok(ControlFlow::Break("all is there".into()))
        });
        assert!(there.is_ok());
    }
}
