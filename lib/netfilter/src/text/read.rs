//! Arguments of `-A` -> IR. Exactly the shapes that we write; anything else is an error, so that a
//! rule somebody put into our chain is seen as foreign and not misread.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    ChainName, CtState, CtStates, IfPattern, Match, PktType, PortRange, Protocol, Rule, SetName,
    Verdict,
};

/// A rule we would not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a rule of ours: {0}")]
pub struct ReadError(pub String);

struct Words<'a> {
    words: &'a [String],
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, ReadError> {
        let word = self
            .words
            .get(self.at)
            .ok_or_else(|| ReadError("ends too early".to_owned()))?;
        self.at += 1;
        Ok(word)
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(String::as_str)
    }

    /// Takes the word if it is the next one.
    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), ReadError> {
        if self.take(word) {
            Ok(())
        } else {
            Err(unknown(self.peek().unwrap_or("end")))
        }
    }
}

fn unknown(word: &str) -> ReadError {
    ReadError(format!("{word:?}"))
}

/// Reads the words behind `-A CHAIN`. The result is canonical.
///
/// # Errors
/// [`ReadError`]: it is not a rule that we would have written.
pub fn read_rule(words: &[String]) -> Result<Rule, ReadError> {
    let mut words = Words { words, at: 0 };
    let mut matches = Vec::new();
    let mut comment = None;
    let mut verdict = None;
    while words.peek().is_some() {
        let negate = words.take("!");
        match words.next()? {
            "-s" => matches.push(Match::Src {
                net: net(words.next()?)?,
                negate,
            }),
            "-d" => matches.push(Match::Dst {
                net: net(words.next()?)?,
                negate,
            }),
            "-i" => matches.push(Match::InIface {
                iface: iface(words.next()?)?,
                negate,
            }),
            "-o" => matches.push(Match::OutIface {
                iface: iface(words.next()?)?,
                negate,
            }),
            "-p" if !negate => matches.push(Match::Protocol(protocol(words.next()?)?)),
            "-m" if !negate => match words.next()? {
                "comment" => {
                    words.expect("--comment")?;
                    comment = Some(words.next()?.to_owned());
                }
                module => read_module(module, &mut words, &mut matches)?,
            },
            "-j" if !negate => verdict = Some(target(&mut words)?),
            "-g" if !negate => verdict = Some(Verdict::Goto(chain(words.next()?)?)),
            other => return Err(unknown(other)),
        }
    }
    Ok(Rule {
        matches,
        verdict: verdict.ok_or_else(|| ReadError("no target".to_owned()))?,
        comment,
    }
    .canonical())
}

fn read_module(
    module: &str,
    words: &mut Words<'_>,
    matches: &mut Vec<Match>,
) -> Result<(), ReadError> {
    let negate = words.take("!");
    let option = words.next()?;
    let found = match (module, option) {
        ("tcp" | "udp" | "sctp", "--dport") if !negate => Match::DstPorts {
            protocol: protocol(module)?,
            ports: ports(words.next()?)?,
        },
        ("icmp", "--icmp-type") if !negate => Match::IcmpType(number(words.next()?)?),
        ("icmp6", "--icmpv6-type") if !negate => Match::Icmp6Type(number(words.next()?)?),
        ("physdev", "--physdev-in") => Match::PhysIn {
            iface: iface(words.next()?)?,
            negate,
        },
        ("physdev", "--physdev-out") => {
            let iface = iface(words.next()?)?;
            words.expect("--physdev-is-bridged")?;
            Match::PhysOut { iface, negate }
        }
        ("conntrack", "--ctstate") if !negate => Match::CtState(states(words.next()?)?),
        ("connmark", "--mark") if !negate => {
            let (value, mask) = masked(words.next()?)?;
            Match::CtMark { value, mask }
        }
        ("mark", "--mark") if !negate => {
            let (value, mask) = masked(words.next()?)?;
            Match::Mark { value, mask }
        }
        ("pkttype", "--pkt-type") if !negate => {
            let word = words.next()?;
            Match::PktType(PktType::parse(word).ok_or_else(|| unknown(word))?)
        }
        ("addrtype", "--src-type") => {
            words.expect("LOCAL")?;
            Match::SrcLocal { negate }
        }
        ("addrtype", "--dst-type") => {
            words.expect("LOCAL")?;
            Match::DstLocal { negate }
        }
        ("set", "--match-set") => {
            let name = words.next()?;
            let set = SetName::as_found(name).map_err(|_| unknown(name))?;
            match (words.next()?, negate) {
                ("src", negate) => Match::SrcSet { set, negate },
                ("dst", negate) => Match::DstSet { set, negate },
                ("src,dst", false) => Match::SrcPortSet { set },
                ("dst,dst", false) => Match::DstPortSet { set },
                (other, _) => return Err(unknown(other)),
            }
        }
        ("limit", "--limit") if !negate => {
            let word = words.next()?;
            let per_second = word.strip_suffix("/sec").ok_or_else(|| unknown(word))?;
            let burst = if words.take("--limit-burst") {
                number(words.next()?)?
            } else {
                5
            };
            Match::Limit {
                per_second: number(per_second)?,
                burst,
            }
        }
        (module, option) => return Err(unknown(&format!("-m {module} {option}"))),
    };
    matches.push(found);
    Ok(())
}

fn target(words: &mut Words<'_>) -> Result<Verdict, ReadError> {
    Ok(match words.next()? {
        "ACCEPT" => Verdict::Accept,
        "DROP" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "MARK" => {
            words.expect("--set-xmark")?;
            let (value, mask) = masked(words.next()?)?;
            Verdict::SetMark { value, mask }
        }
        "NFLOG" => {
            let prefix = if words.take("--nflog-prefix") {
                words.next()?.to_owned()
            } else {
                String::new()
            };
            words.expect("--nflog-group")?;
            Verdict::Nflog {
                group: number(words.next()?)?,
                prefix,
            }
        }
        "MASQUERADE" => Verdict::Masquerade {
            random_fully: words.take("--random-fully"),
        },
        "CT" => {
            words.expect("--notrack")?;
            Verdict::NoTrack
        }
        other => Verdict::Jump(chain(other)?),
    })
}

fn net(word: &str) -> Result<IpNet, ReadError> {
    match word.parse() {
        Ok(net) => Ok(net),
        Err(_) => word
            .parse::<IpAddr>()
            .map(IpNet::from)
            .map_err(|_| unknown(word)),
    }
}

fn iface(word: &str) -> Result<IfPattern, ReadError> {
    match word.strip_suffix('+') {
        Some(prefix) => IfPattern::prefix(prefix),
        None => IfPattern::exact(word),
    }
    .map_err(|_| unknown(word))
}

fn chain(word: &str) -> Result<ChainName, ReadError> {
    ChainName::new(word).map_err(|_| unknown(word))
}

fn protocol(word: &str) -> Result<Protocol, ReadError> {
    Protocol::parse(word).ok_or_else(|| unknown(word))
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, ReadError> {
    word.parse().map_err(|_| unknown(word))
}

fn ports(word: &str) -> Result<PortRange, ReadError> {
    match word.split_once(':') {
        None => Ok(PortRange::one(number(word)?)),
        Some((from, to)) => Ok(PortRange::new(number(from)?, number(to)?)),
    }
}

fn states(word: &str) -> Result<CtStates, ReadError> {
    word.split(',')
        .map(|name| CtState::parse(name).ok_or_else(|| unknown(name)))
        .collect()
}

fn masked(word: &str) -> Result<(u32, u32), ReadError> {
    let hex = |text: &str| {
        text.strip_prefix("0x")
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| unknown(word))
    };
    match word.split_once('/') {
        None => Ok((hex(word)?, u32::MAX)),
        Some((value, mask)) => Ok((hex(value)?, hex(mask)?)),
    }
}
