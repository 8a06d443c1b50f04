use super::*;

fn options() -> Options {
    Options {
        nodes: 3,
        proxy_mode: ProxyMode::Nftables,
        families: Families::Dual,
        underlay_mtu: 1500,
    }
}

#[test]
fn words_of_the_command_line_round_trip() {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        assert_eq!(mode.to_string().parse::<ProxyMode>().unwrap(), mode);
    }
    for families in [Families::V4, Families::Dual] {
        assert_eq!(families.to_string().parse::<Families>().unwrap(), families);
    }
    assert_eq!(
        "ipvs".parse::<ProxyMode>().unwrap_err().to_string(),
        "unknown proxy mode \"ipvs\"; use iptables or nftables"
    );
    assert_eq!(
        "v6".parse::<Families>().unwrap_err().to_string(),
        "unknown families \"v6\"; use v4 or dual"
    );
}

#[test]
fn options_are_shown_as_they_are_typed() {
    assert_eq!(
        options().to_string(),
        "--nodes 3 --proxy-mode nftables --families dual --underlay-mtu 1500"
    );
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    options().validate().unwrap();
    let refuse = |options: Options| options.validate().unwrap_err().to_string();
    assert_eq!(
        refuse(Options {
            nodes: 0,
            ..options()
        }),
        "--nodes 0 is out of range; use 1 to 100"
    );
    assert_eq!(
        refuse(Options {
            nodes: 101,
            ..options()
        }),
        "--nodes 101 is out of range; use 1 to 100"
    );
    assert_eq!(
        refuse(Options {
            underlay_mtu: 1279,
            ..options()
        }),
        "--underlay-mtu 1279 is out of range; use 1280 to 65535"
    );
}
