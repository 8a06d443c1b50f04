//! Packets at a steady pace, of which a busy machine loses none by itself.

use std::{
    net::{ToSocketAddrs, UdpSocket},
    time::Instant,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

/// Bytes of the kernel's that datagrams may take that wait for their reader. The usual buffer holds
/// less than 300 small ones: half a second of 500 a second in which the reader has no processor, or
/// what a sender that had none makes up for.
const ROOM: usize = 32 << 20;

/// A socket that loses nothing when its reader is slow.
pub(crate) fn receiver(at: impl ToSocketAddrs) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("bound");
    setsockopt(&socket, RcvBufForce, &ROOM).expect("room");
    socket
}

#[allow(clippy::disallowed_methods, reason = "a steady pace is what is sent")]
pub(crate) fn pause(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}
