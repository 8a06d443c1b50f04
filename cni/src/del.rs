//! DEL.

use weft_socket::{AttachmentId, HOST_IFNAME_PREFIX};

use crate::{
    call::Call,
    conf::NetConf,
    error::Failure,
    host::{Mark, Router},
    netlink::{Link, Netlink},
    uninstall,
};

/// Detaches a pod. Works without its network namespace, twice, and without the router (then a
/// tombstone is left). The link goes first: the address may be given to another pod after that.
pub(crate) fn del(call: &Call, conf: &NetConf) -> Result<(), Failure> {
    let mut host = Netlink::open()?;
    if let Some(link) = find(&mut host, &call.id)? {
        host.delete(link.index, &link.name)?;
    }
    if conf.uninstalled.exists() {
        // There is no router any more, and its state is about to go.
        uninstall::schedule(&mut host, conf);
        return Ok(());
    }
    Router(conf).del(&call.id)
}

/// The host end of an attachment. By its usual name first, which costs one message; else among all.
pub(crate) fn find(host: &mut Netlink, id: &AttachmentId) -> Result<Option<Link>, Failure> {
    let usual: String = HOST_IFNAME_PREFIX
        .chars()
        .chain(id.container_id.chars().take(7))
        .collect();
    let ours = |link: &Link| Mark::of(link).is_some_and(|mark| mark.is_of(id));
    if let Some(link) = host.link(&usual)?.filter(|l| ours(l)) {
        return Ok(Some(link));
    }
    Ok(host.links()?.into_iter().find(ours))
}
