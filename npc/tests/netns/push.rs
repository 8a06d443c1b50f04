//! Flows in which the server talks and the client is silent: a number every 10 ms, so that a gap or
//! a loss shows.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket as open,
};
use weft_testkit::{eventually::eventually, netns::Netns};

/// How often a server says something.
const PACE: Duration = Duration::from_millis(10);
/// How often a client looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(200);
/// Bytes of a number.
const NUMBER: usize = 8;

/// Ends all its flows when it is dropped.
#[derive(Default)]
pub(crate) struct Traffic(Arc<AtomicBool>);

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a client has got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The number after the last one.
    pub(crate) next: u64,
    /// Numbers that were left out.
    pub(crate) lost: u64,
    /// When the last one came.
    pub(crate) last: Instant,
    /// The longest time between two.
    pub(crate) longest: Duration,
}

impl Seen {
    fn got(&mut self, number: u64) {
        let now = Instant::now();
        self.lost += number.saturating_sub(self.next);
        self.next = number + 1;
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }
}

/// A flow, as its client sees it.
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    seen: Arc<Mutex<Seen>>,
}

impl Flow {
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock().expect("a client that did not panic")
    }

    /// Waits until it has got so many numbers more.
    pub(crate) fn goes_on(&self, patience: Duration) {
        let before = self.seen().next;
        eventually(patience, || match self.seen() {
            seen if seen.next > before + 20 => Ok(()),
            seen => Err(format!("{}: {before}, {seen:?}", self.name)),
        });
    }

    /// Waits until nothing has come for half a second: when the last number came.
    pub(crate) fn ends(&self, patience: Duration) -> Instant {
        eventually(patience, || match self.seen() {
            seen if seen.last.elapsed() > Duration::from_millis(500) => Ok(seen.last),
            seen => Err(format!("{}: {seen:?}", self.name)),
        })
    }
}

#[allow(clippy::disallowed_methods, reason = "the pace of the traffic")]
fn pace() {
    std::thread::sleep(PACE);
}

fn numbers(stop: &AtomicBool, mut say: impl FnMut([u8; NUMBER]) -> bool) {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) || !say(number.to_be_bytes()) {
            return;
        }
        pace();
    }
}

impl Traffic {
    /// Talks to everybody who connects, or who sends a datagram.
    pub(crate) fn serve(&self, ns: &Netns, at: SocketAddr) {
        let (stop, stop_udp) = (Arc::clone(&self.0), Arc::clone(&self.0));
        ns.run(move || {
            let listener = TcpListener::bind(at).expect("a port");
            listener.set_nonblocking(true).expect("non-blocking");
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let stop = Arc::clone(&stop);
                            std::thread::spawn(move || talk(stream, &stop));
                        }
                        Err(_) => pace(),
                    }
                }
            });
            let socket = UdpSocket::bind(at).expect("a port");
            socket.set_read_timeout(Some(LOOK)).expect("timeout");
            std::thread::spawn(move || {
                while !stop_udp.load(Ordering::Relaxed) {
                    let Ok((_, client)) = socket.recv_from(&mut [0; 16]) else {
                        continue;
                    };
                    let (socket, stop) = (socket.try_clone().expect("socket"), stop_udp.clone());
                    std::thread::spawn(move || {
                        // A drop by our own node's rules is an error of the call.
                        numbers(&stop, |number| {
                            let _ = socket.send_to(&number, client);
                            true
                        });
                    });
                }
            });
        });
    }

    /// A client of `ns` that connects from `source` and then only listens.
    pub(crate) fn tcp(
        &self,
        name: &'static str,
        ns: &Netns,
        source: &str,
        server: SocketAddr,
    ) -> Flow {
        let source: IpAddr = source.parse().expect("address");
        let (flow, seen, stop) = self.flow(name);
        ns.run(move || {
            let mut stream = connected(source, server);
            stream.set_read_timeout(Some(LOOK)).expect("timeout");
            std::thread::spawn(move || {
                let (mut number, mut filled) = ([0; NUMBER], 0);
                while !stop.load(Ordering::Relaxed) {
                    match stream.read(&mut number[filled..]) {
                        Ok(0) => return,
                        Ok(read) => filled += read,
                        Err(error) if is_patience(error.kind()) => {}
                        Err(_) => return,
                    }
                    if filled == NUMBER {
                        filled = 0;
                        seen.lock().expect("seen").got(u64::from_be_bytes(number));
                    }
                }
            });
        });
        flow
    }

    /// The same with datagrams: one is sent, to make the flow.
    pub(crate) fn udp(
        &self,
        name: &'static str,
        ns: &Netns,
        source: &str,
        server: SocketAddr,
    ) -> Flow {
        let source: IpAddr = source.parse().expect("address");
        let (flow, seen, stop) = self.flow(name);
        ns.run(move || {
            let socket = UdpSocket::bind((source, 0)).expect("socket");
            socket.connect(server).expect("a route");
            socket.set_read_timeout(Some(LOOK)).expect("timeout");
            socket.send(b"hello").expect("sent");
            std::thread::spawn(move || {
                let mut number = [0; NUMBER];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(NUMBER) = socket.recv(&mut number) {
                        seen.lock().expect("seen").got(u64::from_be_bytes(number));
                    }
                }
            });
        });
        flow
    }

    fn flow(&self, name: &'static str) -> (Flow, Arc<Mutex<Seen>>, Arc<AtomicBool>) {
        let seen = Arc::new(Mutex::new(Seen {
            next: 0,
            lost: 0,
            last: Instant::now(),
            longest: Duration::ZERO,
        }));
        let flow = Flow {
            name,
            seen: Arc::clone(&seen),
        };
        (flow, seen, Arc::clone(&self.0))
    }
}

fn talk(mut stream: TcpStream, stop: &AtomicBool) {
    stream.set_nodelay(true).expect("no delay");
    // An accepted socket must block: the kernel keeps what a cut flow does not take.
    stream.set_nonblocking(false).expect("blocking");
    numbers(stop, |number| stream.write_all(&number).is_ok());
}

fn is_patience(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn connected(source: IpAddr, server: SocketAddr) -> TcpStream {
    let family = match source {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = open(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    let local = SockaddrStorage::from(SocketAddr::new(source, 0));
    socket::bind(fd.as_raw_fd(), &local).expect("an address of ours");
    connect(fd.as_raw_fd(), &SockaddrStorage::from(server)).expect("connected");
    TcpStream::from(fd)
}
