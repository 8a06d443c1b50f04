//! The experiment of `make e2e-faults` whose short form holds in every run of the cluster tests.

use weft_e2e::faults::{Size, chosen, row::Verdict, row::table, run};

/// Runs one experiment; its table is the message of a failure.
async fn experiment(id: &str) {
    let experiments = chosen(&[id.to_owned()]).expect("an experiment");
    let rows = run(
        &Size::short(),
        &experiments,
        std::future::pending(),
        |row| {
            eprintln!("{}", table(std::slice::from_ref(row)));
        },
    )
    .await
    .expect("a lab with weft");
    let passed = rows.iter().all(|row| row.verdict == Verdict::Passed);
    assert!(passed, "{}", table(&rows));
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn flows_that_a_stricter_policy_forbids_are_cut_and_no_others() {
    experiment("E28").await;
}
