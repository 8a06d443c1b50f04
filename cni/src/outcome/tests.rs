use serde_json::json;

use super::Added;
use crate::{conf::Version, error::Failure};

fn dual() -> Added {
    Added {
        bridge: ("weave".into(), "0a:58:0a:20:00:01".into()),
        host: ("vethwepl1a2b3c4".into(), "3e:00:00:00:00:01".into()),
        pod: ("eth0".into(), "0a:58:0a:20:00:05".into()),
        sandbox: "/run/netns/x".into(),
        mtu: 1450,
        addresses: vec![
            "10.32.0.5/12".parse().unwrap(),
            "fd00:10::5/64".parse().unwrap(),
        ],
        gateways: vec!["10.32.0.1".parse().unwrap(), "fd00:10::1".parse().unwrap()],
        on_link: vec!["10.64.0.0/16".parse().unwrap()],
        dns: None,
    }
}

#[test]
fn result_0_4_0() {
    assert_eq!(
        dual().to_json(Version::V0_4_0),
        json!({
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": "weave", "mac": "0a:58:0a:20:00:01"},
                {"name": "vethwepl1a2b3c4", "mac": "3e:00:00:00:00:01"},
                {"name": "eth0", "mac": "0a:58:0a:20:00:05", "sandbox": "/run/netns/x"},
            ],
            "ips": [
                {"version": "4", "address": "10.32.0.5/12", "gateway": "10.32.0.1", "interface": 2},
                {"version": "6", "address": "fd00:10::5/64", "gateway": "fd00:10::1", "interface": 2},
            ],
            "routes": [
                {"dst": "0.0.0.0/0", "gw": "10.32.0.1"},
                {"dst": "::/0", "gw": "fd00:10::1"},
                {"dst": "10.64.0.0/16"},
            ],
            "dns": {},
        })
    );
}

#[test]
fn result_1_0_0_has_no_version_in_addresses() {
    let mut expected = dual().to_json(Version::V0_4_0);
    expected["cniVersion"] = json!("1.0.0");
    for ip in expected["ips"].as_array_mut().unwrap() {
        ip.as_object_mut().unwrap().remove("version");
    }
    assert_eq!(dual().to_json(Version::V1_0_0), expected);
}

#[test]
fn result_1_1_0_has_mtu_and_scope() {
    let mut expected = dual().to_json(Version::V1_0_0);
    expected["cniVersion"] = json!("1.1.0");
    expected["interfaces"][1]["mtu"] = json!(1450);
    expected["interfaces"][2]["mtu"] = json!(1450);
    expected["routes"][2]["scope"] = json!(253);
    assert_eq!(dual().to_json(Version::V1_1_0), expected);
}

#[test]
fn dns_of_the_configuration_is_handed_on() {
    let added = Added {
        dns: Some(json!({"nameservers": ["10.96.0.10"]})),
        ..dual()
    };
    assert_eq!(
        added.to_json(Version::V1_0_0)["dns"],
        json!({"nameservers": ["10.96.0.10"]})
    );
}

#[test]
fn errors_carry_the_version_of_the_configuration_or_the_latest() {
    let failure = Failure::new(11, "the router is down", "wait");
    let expected = |version| json!({"cniVersion": version, "code": 11, "msg": "the router is down", "details": "wait"});
    assert_eq!(failure.to_json("0.4.0"), expected("0.4.0"));
    assert_eq!(failure.to_json("9.9.9"), expected("1.1.0"));
}
