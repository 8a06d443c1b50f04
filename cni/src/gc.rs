//! GC.

use weft_socket::code;

use crate::{
    conf::{NetConf, Version},
    error::Failure,
    host::{Mark, Router},
    netlink::Netlink,
};

/// Takes back what belongs to no attachment of the runtime's list: host ends here, everything else
/// by the router. Links that are not marked as ours are never touched. Goes on past errors.
pub(crate) fn gc(conf: &NetConf) -> Result<(), Failure> {
    if conf.version < Version::V1_1_0 {
        return Err(Failure::new(
            code::INCOMPATIBLE_VERSION,
            format!("GC is not part of CNI {}", conf.version.text()),
            "configurations from cniVersion 1.1.0 on have it",
        ));
    }
    let Some(valid) = &conf.valid else {
        // Absent must never mean "nothing is valid".
        return Err(Failure::new(
            code::INVALID_NETWORK_CONFIG,
            "GC without cni.dev/valid-attachments",
            "the runtime must hand in the attachments that exist",
        ));
    };
    let mut host = Netlink::open()?;
    // Looked up first: an attachment that appears later is not in the list and must stay.
    let strays: Vec<_> = host
        .links()?
        .into_iter()
        .filter(|link| {
            Mark::of(link).is_some_and(|mark| {
                let ours = conf
                    .cluster_id
                    .as_deref()
                    .is_none_or(|id| id == mark.cluster);
                let listed = valid.iter().any(|id| mark.is_of(id));
                ours && !listed
            })
        })
        .collect();
    let mut failures: Vec<Failure> = strays
        .into_iter()
        .filter_map(|link| host.delete(link.index, &link.name).err())
        .map(Failure::from)
        .collect();
    // A link that stays keeps its address in use: the router sees it and does not free it.
    failures.extend(Router(conf).gc(valid.clone()).err().map(Failure::from));
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => Err(failures.fold(first, |mut all, next| {
            all.details = format!("{}; {next}", all.details);
            all
        })),
    }
}
