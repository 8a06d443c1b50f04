//! Which pod reaches which, tried by TCP from inside each pod.

use std::collections::BTreeMap;

use anyhow::Result;

use super::pods::{NAMESPACE, PORT, Pod};
use crate::{
    cluster::kubectl,
    command::{finish, start},
};

/// (from, to) -> reached.
pub(super) type Matrix = BTreeMap<(String, String), bool>;

/// Tries every pair; one pod's attempts run together.
pub(super) fn measure(pods: &[Pod]) -> Result<Matrix> {
    let mut matrix = Matrix::new();
    for from in pods {
        let mut attempts = Vec::new();
        for to in pods {
            let target = format!("{}:{PORT}", to.address);
            let attempt = start(kubectl(&[
                "exec",
                "-n",
                NAMESPACE,
                &from.name,
                "--",
                "/usr/bin/weft-probe",
                "connect",
                &target,
                "--proto",
                "tcp",
                "--timeout",
                "1s",
            ]))?;
            attempts.push((to, attempt));
        }
        for (to, attempt) in attempts {
            let said = finish(attempt)?;
            matrix.insert((from.name.clone(), to.name.clone()), reached(&said));
        }
    }
    Ok(matrix)
}

/// Whether the probe's answer counts a success.
fn reached(said: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(said.trim())
        .is_ok_and(|report| report["received"].as_u64().is_some_and(|count| count > 0))
}

/// Whether every pair is as `expected` says.
pub(super) fn agrees(pods: &[Pod], matrix: &Matrix, expected: impl Fn(&Pod, &Pod) -> bool) -> bool {
    pods.iter().all(|from| {
        pods.iter().all(|to| {
            matrix.get(&(from.name.clone(), to.name.clone())) == Some(&expected(from, to))
        })
    })
}

/// A table: rows are clients, columns servers.
pub(super) fn draw(pods: &[Pod], matrix: &Matrix) -> String {
    let mut text = format!("{:<18}", "from \\ to");
    for to in pods {
        text.push_str(&format!(" {:>14}", to.name));
    }
    text.push('\n');
    for from in pods {
        text.push_str(&format!("{:<18}", format!("{} ({})", from.name, from.node)));
        for to in pods {
            let word = match matrix.get(&(from.name.clone(), to.name.clone())) {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "?",
            };
            text.push_str(&format!(" {word:>14}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        Pod {
            name: name.into(),
            node: "n1".into(),
            address: String::new(),
            ready: true,
        }
    }

    #[test]
    fn table_has_a_row_per_client() {
        let pods = [pod("a"), pod("b")];
        let matrix = Matrix::from([
            (("a".into(), "a".into()), true),
            (("a".into(), "b".into()), false),
            (("b".into(), "a".into()), true),
        ]);
        assert_eq!(
            draw(&pods, &matrix),
            "from \\ to                       a              b\n\
             a (n1)                        yes             NO\n\
             b (n1)                        yes              ?\n"
        );
        assert!(!agrees(&pods, &matrix, |_, _| true));
    }

    #[test]
    fn an_answer_counts_only_when_something_came_back() {
        assert!(reached("{\"sent\":1,\"received\":1}\n"));
        assert!(!reached("{\"sent\":1,\"received\":0}"));
        assert!(!reached("error: no such pod"));
    }
}
