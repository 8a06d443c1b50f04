//! A netlink socket to netfilter, for the few changes that need no tool.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::{
    nfnetlink::{
        Answer, Message, Transaction, answers, element_runs, generation, generation_request,
        messages,
    },
    plan::SetOp,
};

/// Why the kernel did not take a message. What it refused is in doubt, what came before is done.
#[derive(Debug, thiserror::Error)]
pub enum NfError {
    /// The socket failed.
    #[error("cannot talk to netfilter: {0}")]
    Io(#[from] io::Error),
    /// It answered with an error.
    #[error("netfilter refused: {}", said(*.0))]
    Refused(Answer),
    /// It answered nothing.
    #[error("netfilter did not answer")]
    Silent,
}

fn said(answer: Answer) -> String {
    io::Error::from_raw_os_error(answer.error).to_string()
}

/// A socket of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NfSocket {
    socket: Socket,
    port: u32,
}

impl NfSocket {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel has no netfilter, or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let own = socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel works a message off before it returns from the call that sends it: what it has
        // to say is there by then, and nothing must be waited for.
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            port: own.port_number(),
        })
    }

    /// The kernel's name for this socket: events tell by it who made a change.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends a batch of nf_tables; it is in force when this returns.
    ///
    /// # Errors
    /// See [`NfError`]; nothing of the batch is in force.
    pub fn commit(&self, transaction: &Transaction) -> Result<(), NfError> {
        self.send(&transaction.bytes, transaction.acknowledged)
    }

    /// The generation of the ruleset of nf_tables: the kernel counts one for every transaction,
    /// whoever's it is, in whatever table.
    ///
    /// # Errors
    /// See [`NfError`].
    pub fn generation(&self) -> Result<u32, NfError> {
        while self.receive()?.is_some() {}
        self.socket.send(&generation_request(), 0)?;
        while let Some(datagram) = self.receive()? {
            for message in messages(&datagram) {
                match message {
                    Message::Data(data) => {
                        if let Some(generation) = generation(&data) {
                            return Ok(generation);
                        }
                    }
                    Message::End(answer) if answer.error != 0 => {
                        return Err(NfError::Refused(answer));
                    }
                    Message::End(_) => {}
                }
            }
        }
        Err(NfError::Silent)
    }

    /// Changes elements of ipset's sets in this order, as far as it goes: how many of `ops` are done.
    /// None, if one of them is no change of an element.
    #[must_use]
    pub fn change_elements(&self, ops: &[SetOp]) -> usize {
        let mut done = 0;
        for run in element_runs(ops, 1).unwrap_or_default() {
            match self.send(&run.bytes, run.sequence) {
                Ok(()) => done += run.lines,
                Err(error) => {
                    tracing::info!(%error, "Elements of a set were refused");
                    if let NfError::Refused(answer) = error {
                        let line = answer.line.and_then(|line| usize::try_from(line).ok());
                        let before = line.unwrap_or_default().saturating_sub(1);
                        done += before.min(run.lines);
                    }
                    break;
                }
            }
        }
        done
    }

    /// Sends messages and reads every answer: each must be good, and `acknowledged` among them.
    fn send(&self, bytes: &[u8], acknowledged: u32) -> Result<(), NfError> {
        match self.exchange(bytes, acknowledged)?.first() {
            Some(refused) => Err(NfError::Refused(*refused)),
            None => Ok(()),
        }
    }

    /// Sends messages and reads every answer, that to `acknowledged` among them: those that are
    /// refusals.
    pub(super) fn exchange(&self, bytes: &[u8], acknowledged: u32) -> Result<Vec<Answer>, NfError> {
        // Answers that a failure before left behind belong to nobody.
        while self.receive()?.is_some() {}
        let sent = self.socket.send(bytes, 0)?;
        if sent != bytes.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        let mut done = false;
        let mut refused = Vec::new();
        while let Some(datagram) = self.receive()? {
            for answer in answers(&datagram) {
                done |= answer.error == 0 && answer.sequence == acknowledged;
                if answer.error != 0 {
                    refused.push(answer);
                }
            }
        }
        if done || !refused.is_empty() {
            Ok(refused)
        } else {
            Err(NfError::Silent)
        }
    }

    fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => return Ok(Some(datagram)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
