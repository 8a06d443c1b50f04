//! Flows in which the server talks and the client is silent: a number every 10 ms, so that a gap or
//! a loss shows.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
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

use crate::pace::pause;

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

/// Protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
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

fn pace() {
    pause(Instant::now() + PACE);
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

    /// A client of `ns` that speaks first from `source`, to make the flow, and then only listens.
    pub(crate) fn flow(
        &self,
        name: &'static str,
        transport: Transport,
        ns: &Netns,
        [source, server]: [SocketAddr; 2],
    ) -> Flow {
        let stop = Arc::clone(&self.0);
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
        ns.run(move || {
            let mut hear: Box<dyn FnMut() -> io::Result<Option<u64>> + Send> = match transport {
                Transport::Tcp => Box::new(stream(source, server)),
                Transport::Udp => Box::new(datagrams(source, server)),
            };
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match hear() {
                        Ok(Some(number)) => seen.lock().expect("seen").got(number),
                        Ok(None) => {}
                        Err(_) => return,
                    }
                }
            });
        });
        flow
    }
}

/// Hears numbers one by one, `None` when none has come; an error is the end of the flow.
fn stream(source: SocketAddr, server: SocketAddr) -> impl FnMut() -> io::Result<Option<u64>> {
    let mut stream = connected(source, server);
    stream.set_read_timeout(Some(LOOK)).expect("timeout");
    let (mut number, mut filled) = ([0; NUMBER], 0);
    move || {
        match stream.read(&mut number[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if is_patience(error.kind()) => {}
            Err(error) => return Err(error),
        }
        Ok((filled == NUMBER).then(|| {
            filled = 0;
            u64::from_be_bytes(number)
        }))
    }
}

/// As [`stream`]. A flow of datagrams has no end.
fn datagrams(source: SocketAddr, server: SocketAddr) -> impl FnMut() -> io::Result<Option<u64>> {
    let socket = UdpSocket::bind(source).expect("socket");
    socket.connect(server).expect("a route");
    socket.set_read_timeout(Some(LOOK)).expect("timeout");
    socket.send(b"hello").expect("sent");
    let mut number = [0; NUMBER];
    move || {
        let whole = matches!(socket.recv(&mut number), Ok(NUMBER));
        Ok(whole.then(|| u64::from_be_bytes(number)))
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

fn connected(source: SocketAddr, server: SocketAddr) -> TcpStream {
    let family = match source {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = open(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    let local = SockaddrStorage::from(source);
    socket::bind(fd.as_raw_fd(), &local).expect("an address of ours");
    connect(fd.as_raw_fd(), &SockaddrStorage::from(server)).expect("connected");
    TcpStream::from(fd)
}
