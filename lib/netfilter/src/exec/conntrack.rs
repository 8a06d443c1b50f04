//! Looks at every flow of this host and changes a bit of their marks.

use std::{collections::BTreeSet, io};

use netlink_sys::{Socket, SocketAddr};

use super::{NfError, NfSocket, PROTOCOL};
use crate::nfnetlink::{Message, Writer, conntrack, messages};

/// The kernel fills at most 32 KiB of a list at once.
const BUFFER: usize = 1 << 16;
/// Changes that are sent together; a refusal repeats its message, and all of them must fit into the
/// socket's buffer.
const TOGETHER: usize = 128;
/// `ENOENT`: the flow ended meanwhile.
const GONE: i32 = 2;

/// What [`Flows::mark`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marked {
    /// Flows that were looked at.
    pub seen: u64,
    /// Flows that have the bit now and had it not.
    pub set: u64,
    /// Flows that had the bit and have it no more.
    pub cleared: u64,
}

/// The flows of the network namespace of the thread that opened it. Its calls block for as long as
/// the kernel works.
#[derive(Debug)]
pub struct Flows {
    list: Socket,
    changes: NfSocket,
}

impl Flows {
    /// Opens the sockets.
    ///
    /// # Errors
    /// The kernel has no netfilter, or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        let mut list = Socket::new(PROTOCOL)?;
        list.bind_auto()?;
        list.connect(&SocketAddr::new(0, 0))?;
        // The next part of a list is there before the call returns that took the last one.
        list.set_non_blocking(true)?;
        Ok(Self {
            list,
            changes: NfSocket::open()?,
        })
    }

    /// Asks `wants` of every flow whether it shall have the bit (`None`: as it is), and sees to it.
    /// Other bits of marks stay. Flows that come meanwhile may be missed.
    ///
    /// # Errors
    /// [`NfError`]: the kernel does not list flows, or does not let their marks be changed.
    pub fn mark(
        &self,
        bit: u32,
        mut wants: impl FnMut(&conntrack::Flow<'_>) -> Option<bool>,
    ) -> Result<Marked, NfError> {
        let mut marked = Marked::default();
        let mut batch = Batch::default();
        self.list.send(&conntrack::list(), 0)?;
        let mut datagram = Vec::with_capacity(BUFFER);
        loop {
            datagram.clear();
            match self.list.recv(&mut datagram, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(NfError::Silent);
                }
                Err(error) => return Err(error.into()),
            }
            for message in messages(&datagram) {
                let data = match message {
                    Message::Data(data) => data,
                    Message::End(answer) if answer.error == 0 => {
                        batch.send(&self.changes, &mut marked)?;
                        return Ok(marked);
                    }
                    Message::End(answer) => return Err(NfError::Refused(answer)),
                };
                let Some(flow) = conntrack::Flow::read(&data) else {
                    continue;
                };
                marked.seen += 1;
                let has = flow.mark & bit == bit;
                if let Some(wanted) = wants(&flow).filter(|wanted| *wanted != has) {
                    batch.add(&flow, bit, wanted);
                    if batch.is_full() {
                        batch.send(&self.changes, &mut marked)?;
                    }
                }
            }
        }
    }
}

/// Changes that were not sent yet.
#[derive(Debug, Default)]
struct Batch {
    writer: Writer,
    /// Whether each of them sets the bit.
    changes: Vec<bool>,
}

impl Batch {
    fn add(&mut self, flow: &conntrack::Flow<'_>, bit: u32, set: bool) {
        self.changes.push(set);
        let sequence = self.last();
        flow.set_mark(&mut self.writer, sequence, if set { bit } else { 0 }, bit);
    }

    /// Sequence number of the last message; they count from 1.
    fn last(&self) -> u32 {
        u32::try_from(self.changes.len()).unwrap_or(u32::MAX)
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= TOGETHER
    }

    fn send(&mut self, socket: &NfSocket, marked: &mut Marked) -> Result<(), NfError> {
        let (last, batch) = (self.last(), std::mem::take(self));
        if batch.changes.is_empty() {
            return Ok(());
        }
        let refused = socket.exchange(&batch.writer.finish(), last)?;
        if let Some(answer) = refused.iter().find(|answer| answer.error != GONE) {
            return Err(NfError::Refused(*answer));
        }
        let gone: BTreeSet<u32> = refused.iter().map(|answer| answer.sequence).collect();
        for (sequence, set) in (1..).zip(batch.changes) {
            if !gone.contains(&sequence) {
                *(if set {
                    &mut marked.set
                } else {
                    &mut marked.cleared
                }) += 1;
            }
        }
        Ok(())
    }
}
