use super::*;
use crate::{Family, TableName};

fn quiet() -> impl FnMut(&FakeKernel) {
    |_| {}
}

#[test]
fn errors_are_those_of_the_tools_and_lines_before_stay() {
    let mut kernel = FakeKernel::default();
    let error = kernel
        .ipset_restore(
            "create a hash:ip family inet\nadd a 10.0.0.1\nadd a 10.0.0.1\nadd a 10.0.0.2\n",
            &mut quiet(),
        )
        .unwrap_err();
    assert_eq!(
        error,
        "ipset v7.17: Error in line 3: Element cannot be added to the set: it's already added"
    );
    assert_eq!(kernel.sets()["a"].elements.len(), 1);
    assert!(
        kernel
            .ipset_restore("add b 10.0.0.1\n", &mut quiet())
            .is_err()
    );
    assert!(kernel.ipset_restore("destroy b\n", &mut quiet()).is_err());
}

#[test]
fn a_table_is_committed_at_once_or_not_at_all() {
    let mut kernel = FakeKernel::default();
    let before = kernel.clone();
    let text = "*filter\n:WEFT-NPC - [0:0]\n-A WEFT-NPC -m set --match-set a src -j DROP\nCOMMIT\n";
    assert!(
        kernel
            .iptables_restore(Family::V4, text, &mut quiet())
            .unwrap_err()
            .contains("Set a doesn't exist.\nError occurred at line: 3")
    );
    assert_eq!(kernel, before);
    kernel
        .ipset_restore("create a hash:ip family inet\n", &mut quiet())
        .expect("set");
    kernel
        .iptables_restore(Family::V4, text, &mut quiet())
        .expect("rules");
    assert_eq!(
        kernel.chain(Family::V4, TableName::Filter, "WEFT-NPC"),
        Some(&["-m set --match-set a src -j DROP".to_owned()][..])
    );
    assert!(
        kernel
            .ipset_restore("destroy a\n", &mut quiet())
            .unwrap_err()
            .contains("in use by a kernel component")
    );
}

#[test]
fn a_failure_hits_the_moment_that_was_asked_for() {
    let mut kernel = FakeKernel::default();
    kernel.fail_after(1);
    let text = "create a hash:ip family inet\ncreate b hash:ip family inet\n";
    assert!(kernel.ipset_restore(text, &mut quiet()).is_err());
    assert_eq!(kernel.sets().len(), 1);
}
