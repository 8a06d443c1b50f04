use super::*;

#[test]
fn only_the_default_route_leaves_the_range_free() {
    assert_eq!(occupied("").unwrap(), None);
    assert_eq!(occupied("[]").unwrap(), None);
    assert_eq!(
        occupied(r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]}]"#).unwrap(),
        None
    );
    let routes = r#"[{"dst":"default","dev":"eth0"},{"dst":"172.16.0.0/12","dev":"tun0"}]"#;
    assert_eq!(
        occupied(routes).unwrap().as_deref(),
        Some("172.16.0.0/12 dev tun0")
    );
    assert!(occupied("no json").is_err());
}

#[test]
fn the_devices_alias_says_whose_it_is() {
    let owner = Owner {
        lab: "0a1b2c3d".into(),
        root: "/a b/target/lab".into(),
    };
    assert_eq!(owner.alias(), "weft-lab 0a1b2c3d /a b/target/lab");
    assert_eq!(
        Owner::parse("weft-lab 0a1b2c3d /a b/target/lab\n"),
        Some(owner)
    );
    assert_eq!(Owner::parse(""), None);
    assert_eq!(Owner::parse("uplink"), None);
}
