//! The namespace guard against the kernel.

use weft_testkit::netns::{Netns, join};

#[test]
#[ignore = "needs root: own network namespaces"]
fn two_namespaces_are_joined_and_removed() {
    let (a, b) = (Netns::new(), Netns::new());
    join(&a, "ab", "192.0.2.1/24", &b, "ba", "192.0.2.2/24");
    a.sh("ping -c 1 -W 2 192.0.2.2");
    assert_eq!(
        a.try_sh("ip link show ba"),
        Err("exit status: 1:  Device \"ba\" does not exist.".into())
    );
    let path = a.path();
    drop(a);
    assert!(!std::path::Path::new(&path).exists());
}
