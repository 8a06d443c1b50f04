//! Some of the fault experiments of `make e2e-faults`, in their short form: half a minute each.

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
async fn npc_that_is_killed_neither_opens_nor_closes_anything() {
    experiment("E2").await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pods_that_send_on_their_first_instruction_do_not_get_out() {
    experiment("E7").await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn rules_that_somebody_flushes_are_back_within_a_second() {
    experiment("E24").await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn members_of_sets_that_somebody_deletes_are_back_within_a_second() {
    experiment("E25").await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn flows_that_a_stricter_policy_forbids_are_cut_and_no_others() {
    experiment("E28").await;
}
