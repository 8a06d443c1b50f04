//! Messages of nfnetlink as bytes: element changes of sets, of ipset's and of nf_tables', the
//! generation of nf_tables' ruleset, and flows of connection tracking.
//!
//! A pod that comes or goes is a handful of elements in sets that exist. The tools need several
//! milliseconds for that (a process, its libraries, a dump of what is there); the kernel needs a
//! tenth of one. Everything else is left to the tools, and so is the repair after a failure here.
//! Constants are those of `linux/netlink.h`, `linux/netfilter/nfnetlink.h`, `nf_tables.h` and
//! `ipset/ip_set.h`. Nothing here does I/O.

pub mod conntrack;
mod ipset;
mod message;
mod tables;

pub use ipset::{ElementRun, element_runs};
pub use message::{
    ACK, Answer, Attributes, DUMP, Data, Message, Writer, answers, kind, messages, request,
};
pub use tables::{
    ElementChange, Transaction, concatenation, generation, generation_request, interface,
};

#[cfg(test)]
mod tests;
