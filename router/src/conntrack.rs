//! Flows of an address that is about to belong to somebody else.

use std::net::IpAddr;

use crate::exec;

/// Forgets every tracked flow from or to `address`, in any direction. Failures are logged: the
/// address rests before it is given out again, and its flows time out.
pub(crate) async fn flush(address: IpAddr) {
    let text = address.to_string();
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    for side in ["--orig-src", "--orig-dst", "--reply-src", "--reply-dst"] {
        let done = exec::run("conntrack", &["-D", "-f", family, side, &text], "").await;
        if let Err(error) = done
            // conntrack fails when there was nothing to delete.
            && !error.cause.contains("0 flow entries")
        {
            tracing::warn!(%address, %error, "Cannot flush flows of a released address");
        }
    }
}
