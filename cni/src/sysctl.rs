//! Kernel settings of single interfaces, of the current thread's network namespace.

use std::{fs, io};

/// Settings of the host end: it is a bridge port and must not take part in anything (CVE-2020-11091:
/// a pod's router advertisement must not configure the host).
pub(crate) fn harden_host(ifname: &str) {
    set(&format!("ipv6/conf/{ifname}/accept_ra"), "0");
}

/// Settings of the pod's interface. Weave Net's ARP tuning, so that an address that moved is noticed
/// in seconds; no router advertisements; no duplicate address detection, because the address is ours
/// by allocation (it would cost a second).
pub(crate) fn tune_pod(ifname: &str, ipv6: bool) {
    for family in ["ipv4", "ipv6"] {
        let neigh = format!("{family}/neigh/{ifname}");
        set(&format!("{neigh}/base_reachable_time"), "5");
        set(&format!("{neigh}/delay_first_probe_time"), "2");
        set(&format!("{neigh}/ucast_solicit"), "1");
    }
    // What crate::announce relies on.
    set(&format!("ipv4/conf/{ifname}/arp_notify"), "1");
    set(&format!("ipv6/conf/{ifname}/ndisc_notify"), "1");
    set(&format!("ipv6/conf/{ifname}/accept_ra"), "0");
    set(&format!("ipv6/conf/{ifname}/accept_dad"), "0");
    if ipv6 {
        set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0");
    }
}

/// Best effort: a kernel without IPv6, or a `/proc/sys` that is read-only, has none of these, and
/// the pod works without.
fn set(key: &str, value: &str) {
    let path = format!("/proc/sys/net/{key}");
    match fs::write(&path, value) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => eprintln!("weft-cni: cannot set {path}: {e}"),
    }
}
