use serde_json::json;
use weft_socket::AttachmentId;

use super::{NetConf, Previous, PreviousInterface, PreviousIp, PreviousRoute, Version, version_of};

fn parse(value: &serde_json::Value) -> Result<NetConf, (u32, String)> {
    NetConf::parse(value.to_string().as_bytes()).map_err(|f| (f.code, f.msg))
}

#[test]
fn the_least_configuration_has_the_usual_paths() {
    assert_eq!(
        parse(&json!({"cniVersion": "1.0.0", "name": "weft", "type": "weft-cni"})),
        Ok(NetConf {
            version: Version::V1_0_0,
            previous: None,
            valid: None,
            dns: None,
            router: "/run/weft/router.sock".into(),
            del_dir: "/run/weft/del".into(),
            uninstalled: "/var/lib/weft/uninstalled".into(),
            cluster_id: None,
        })
    );
}

#[test]
fn text_that_is_not_json_has_code_6() {
    for text in ["", "{", "{\"cniVersion\": ", "\u{0}", "{} {}"] {
        assert_eq!(
            NetConf::parse(text.as_bytes()).unwrap_err().code,
            6,
            "{text:?}"
        );
    }
}

#[test]
fn json_that_is_no_configuration_has_code_7_and_names_the_field() {
    for (conf, part) in [
        (json!([]), "cannot be used"),
        (json!({"cniVersion": 1}), "expected a string"),
        (json!({"cniVersion": "1.0.0"}), "network name \"\""),
        (
            json!({"cniVersion": "1.0.0", "name": "a b"}),
            "network name \"a b\"",
        ),
        (
            json!({"cniVersion": "1.0.0", "name": "-a"}),
            "network name \"-a\"",
        ),
        (
            json!({"cniVersion": "1.0.0", "name": "w", "ipam": {"type": "host-local"}}),
            "remove \"ipam\"",
        ),
        (
            json!({"cniVersion": "1.0.0", "name": "w", "prevResult": {"ips": [{"address": "x"}]}}),
            "invalid IP address syntax",
        ),
        (
            json!({"cniVersion": "1.1.0", "name": "w", "cni.dev/valid-attachments": [{"ifname": "eth0"}]}),
            "containerID",
        ),
    ] {
        let (code, msg) = parse(&conf).unwrap_err();
        assert_eq!(code, 7, "{conf}: {msg}");
        assert!(msg.contains(part), "{conf}: {msg}");
    }
}

#[test]
fn versions_we_do_not_speak_have_code_1() {
    for (version, named) in [
        (json!("0.3.1"), "cniVersion \"0.3.1\""),
        (json!("2.0.0"), "cniVersion \"2.0.0\""),
        (json!(""), "no cniVersion"),
    ] {
        let (code, msg) = parse(&json!({"cniVersion": version, "name": "w"})).unwrap_err();
        assert_eq!(code, 1);
        assert!(msg.contains(named), "{msg}");
        assert!(msg.contains("0.4.0, 1.0.0, 1.1.0"), "{msg}");
    }
    assert_eq!(parse(&json!({"name": "w"})).unwrap_err().0, 1);
}

#[test]
fn previous_results_of_every_version_are_read() {
    let expected = Previous {
        interfaces: vec![PreviousInterface {
            name: "eth0".into(),
            mac: "0a:58:0a:20:00:05".into(),
            mtu: None,
            sandbox: "/run/netns/x".into(),
        }],
        ips: vec![PreviousIp {
            address: "10.32.0.5/12".parse().unwrap(),
            interface: Some(0),
        }],
        routes: vec![PreviousRoute {
            dst: "0.0.0.0/0".parse().unwrap(),
            gw: Some("10.32.0.1".parse().unwrap()),
        }],
    };
    let interfaces =
        json!([{"name": "eth0", "mac": "0a:58:0a:20:00:05", "sandbox": "/run/netns/x"}]);
    let routes = json!([{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}]);
    for (version, ip) in [
        (
            "0.4.0",
            json!({"version": "4", "address": "10.32.0.5/12", "gateway": "10.32.0.1", "interface": 0}),
        ),
        ("1.0.0", json!({"address": "10.32.0.5/12", "interface": 0})),
        ("1.1.0", json!({"address": "10.32.0.5/12", "interface": 0})),
    ] {
        let conf = parse(&json!({
            "cniVersion": version, "name": "weft",
            "runtimeConfig": {"portMappings": [{"hostPort": 80}]},
            "prevResult": {"cniVersion": version, "interfaces": interfaces, "ips": [ip],
                           "routes": routes, "dns": {"nameservers": ["10.96.0.10"]}},
        }))
        .unwrap();
        assert_eq!(conf.previous.as_ref(), Some(&expected), "{version}");
    }
}

#[test]
fn attachments_are_read_under_both_keys_and_an_empty_list_is_a_list() {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let conf = |list| parse(&json!({"cniVersion": "1.1.0", "name": "w", key: list})).unwrap();
        assert_eq!(conf(json!([])).valid, Some(vec![]));
        assert_eq!(
            conf(json!([{"containerID": "a", "ifname": "eth0"}])).valid,
            Some(vec![AttachmentId {
                container_id: "a".into(),
                ifname: "eth0".into()
            }])
        );
    }
}

#[test]
fn answers_to_bad_input_use_its_version_if_it_can_be_found() {
    assert_eq!(version_of(br#"{"cniVersion":"0.4.0","x":[]}"#), "0.4.0");
    assert_eq!(version_of(b"{"), "1.1.0");
    assert_eq!(version_of(br#"{"cniVersion":7}"#), "1.1.0");
}
