use std::collections::BTreeMap;

use weft_socket::{AttachmentId, PodRef};

use super::{Call, Verb, verb};
use crate::error::Failure;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn msg(result: Result<Call, Failure>) -> (u32, String) {
    let failure = result.unwrap_err();
    (failure.code, failure.msg)
}

#[test]
fn every_missing_variable_is_named() {
    assert_eq!(
        msg(Call::parse(
            Verb::Add,
            &environment(&[("CNI_COMMAND", "ADD")])
        )),
        (
            4,
            "required environment variables missing: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME".into()
        )
    );
    assert_eq!(
        msg(Call::parse(Verb::Del, &environment(&[("CNI_IFNAME", "")]))),
        (
            4,
            "required environment variables missing: CNI_CONTAINERID, CNI_IFNAME".into()
        )
    );
    for free in [Verb::Gc, Verb::Status, Verb::Version] {
        assert!(Call::parse(free, &BTreeMap::new()).is_ok());
    }
}

#[test]
fn a_verb_is_known_or_refused_by_name() {
    let of = |text: &str| verb(&environment(&[("CNI_COMMAND", text)])).map_err(|f| f.msg);
    assert_eq!(of("ADD"), Ok(Verb::Add));
    assert_eq!(of("STATUS"), Ok(Verb::Status));
    assert_eq!(of("add"), Err("unknown CNI_COMMAND \"add\"".into()));
    assert_eq!(
        of(""),
        Err("required environment variables missing: CNI_COMMAND".into())
    );
}

#[test]
fn the_pod_is_read_from_the_arguments_whatever_else_is_there() {
    let call = Call::parse(
        Verb::Add,
        &environment(&[
            ("CNI_CONTAINERID", "abc"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=1-2;",
            ),
        ]),
    )
    .unwrap();
    assert_eq!(
        call,
        Call {
            id: AttachmentId {
                container_id: "abc".into(),
                ifname: "eth0".into()
            },
            netns: "/run/netns/x".into(),
            pod: PodRef {
                namespace: "ns".into(),
                name: "web-0".into(),
                uid: "1-2".into()
            },
        }
    );
}

#[test]
fn values_that_cannot_be_used_are_refused() {
    let with = |id: &str, ifname: &str, args: &str| {
        Call::parse(
            Verb::Del,
            &environment(&[
                ("CNI_CONTAINERID", id),
                ("CNI_IFNAME", ifname),
                ("CNI_ARGS", args),
            ]),
        )
        .map(|_| ())
        .map_err(|f| f.code)
    };
    assert_eq!(with("a-b_c.1", "net1", "A=B"), Ok(()));
    assert_eq!(with("-a", "net1", ""), Err(4));
    assert_eq!(with("a/b", "net1", ""), Err(4));
    assert_eq!(with("../../etc/passwd", "net1", ""), Err(4));
    assert_eq!(with(&"a".repeat(201), "net1", ""), Err(4));
    for ifname in ["a/b", "a b", "..", ".", "a:1", "sixteen-bytes-xx", "a\nb"] {
        assert_eq!(with("abc", ifname, ""), Err(4), "{ifname:?}");
    }
    assert_eq!(with("abc", "eth0", "K8S_POD_NAME"), Err(4));
}
