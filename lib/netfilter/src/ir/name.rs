//! Checked names: what does not fit into the kernel's fields is refused where it is made.

use std::fmt;

/// A name the kernel would refuse or the tools would misread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("a {kind} name must not be empty")]
    Empty {
        /// What was to be named.
        kind: &'static str,
    },
    /// Too long.
    #[error("{kind} name {name:?} is longer than {max} characters")]
    TooLong {
        /// What was to be named.
        kind: &'static str,
        /// The name.
        name: String,
        /// Longest possible.
        max: usize,
    },
    /// A character that the tools would not take literally.
    #[error("{kind} name {name:?} holds {character:?}")]
    Character {
        /// What was to be named.
        kind: &'static str,
        /// The name.
        name: String,
        /// The first bad character.
        character: char,
    },
}

fn checked(
    kind: &'static str,
    name: &str,
    max: usize,
    allowed: fn(char) -> bool,
) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > max {
        return Err(NameError::TooLong {
            kind,
            name: name.to_owned(),
            max,
        });
    }
    let first_dash = name.starts_with('-').then_some('-');
    match first_dash.or_else(|| name.chars().find(|c| !allowed(*c))) {
        Some(character) => Err(NameError::Character {
            kind,
            name: name.to_owned(),
            character,
        }),
        None => Ok(name.to_owned()),
    }
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Longest name, in bytes.
            pub const MAX: usize = $max;

            /// Checks length and characters.
            ///
            /// # Errors
            /// [`NameError`].
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked($kind, name, $max, $allowed).map(Self)
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;
            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// Name of a chain: at most 28 characters (`XT_EXTENSION_MAXNAMELEN` less its terminator).
    ChainName, "chain", 28, plain
);
name!(
    /// Name of a set. ipset takes 31 characters (`IPSET_MAXNAMELEN`); two of them are kept for the
    /// twin that replaces a set atomically (see [`SetName::twin`]).
    SetName, "set", 29, plain
);
name!(
    /// Name of a network device: at most 15 characters (`IFNAMSIZ`).
    IfName, "interface", 15, |c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '!' | '+')
);

impl SetName {
    /// What the twin's name ends with.
    pub const TWIN_SUFFIX: &'static str = ".b";

    /// A name as found in the kernel: ours may carry [`Self::TWIN_SUFFIX`].
    pub(crate) fn as_found(name: &str) -> Result<Self, NameError> {
        checked("set", name, Self::MAX + Self::TWIN_SUFFIX.len(), plain).map(Self)
    }

    /// The name under which the set's next contents are prepared when its elements cannot be
    /// changed one by one: rules then move from one to the other in a single transaction.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self(format!("{}{}", self.0, Self::TWIN_SUFFIX))
    }
}

/// Which devices a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IfPattern {
    /// One device.
    Exact(IfName),
    /// All devices whose name starts so (`name+`).
    Prefix(IfName),
}

impl IfPattern {
    /// One device.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn exact(name: &str) -> Result<Self, NameError> {
        IfName::new(name).map(Self::Exact)
    }

    /// All devices whose name starts with `prefix`.
    ///
    /// # Errors
    /// [`NameError`]; the prefix must leave room for one more character.
    pub fn prefix(prefix: &str) -> Result<Self, NameError> {
        if prefix.len() >= IfName::MAX {
            return Err(NameError::TooLong {
                kind: "interface prefix",
                name: prefix.to_owned(),
                max: IfName::MAX - 1,
            });
        }
        IfName::new(prefix).map(Self::Prefix)
    }

    /// Does the pattern cover the device?
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for IfPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Prefix(prefix) => write!(f, "{prefix}+"),
        }
    }
}
