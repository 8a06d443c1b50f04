use super::*;
use crate::command::command;

#[test]
fn a_name_with_parentheses_does_not_shift_the_fields() {
    let line =
        "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2 18446744";
    assert_eq!(parse_stat(line), Some(('S', 98765)));
    assert_eq!(parse_stat("42 (short) S 1"), None);
}

#[test]
fn a_recycled_number_is_another_process() {
    let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
    assert!(own.is_alive());
    let earlier = ProcessId {
        start_time: own.start_time - 1,
        ..own
    };
    assert!(!earlier.is_alive());
    // Must be no signal to ourselves.
    earlier.signal(Signal::SIGKILL);
}

#[test]
fn a_sweep_ends_marked_processes_and_no_others() {
    let pair = format!("{LAB_MARK}=test-{}", std::process::id());
    let (name, value) = pair.split_once('=').unwrap();
    let mut ours = command("sleep").arg("60").env(name, value).spawn().unwrap();
    let mut foreign = command("sleep").arg("60").spawn().unwrap();
    // The kernel shows the new environment only after exec.
    let id = ours.id().cast_signed();
    wait::until(
        "exec",
        Duration::from_secs(5),
        Duration::from_millis(1),
        || {
            if has_environment(id, std::slice::from_ref(&pair)) {
                Ok(())
            } else {
                Err("no".into())
            }
        },
    )
    .unwrap();

    sweep(
        Marks {
            environment: vec![pair],
            ..Marks::default()
        },
        BTreeSet::new,
    )
    .unwrap();

    assert!(!ours.wait().unwrap().success());
    assert_eq!(foreign.try_wait().unwrap(), None);
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}
