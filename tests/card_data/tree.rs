//! Just enough CBOR to change one string of a message, however deep it lies.

/// An item. What is no string and has no parts stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Bytes(Vec<u8>),
    Text(Vec<u8>),
    /// The head, and the parts behind it: arrays, maps (keys too), tags.
    Parts(Vec<u8>, Vec<Tree>),
}

impl Tree {
    /// The one item that these bytes are, if they are one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (tree, rest) = item(bytes)?;
        rest.is_empty().then_some(tree)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => [head(2, bytes.len()), bytes.clone()].concat(),
            Self::Text(text) => [head(3, text.len()), text.clone()].concat(),
            Self::Parts(head, parts) => {
                let parts: Vec<u8> = parts.iter().flat_map(Self::encode).collect();
                [head.clone(), parts].concat()
            }
        }
    }
}

fn head(major: u8, length: usize) -> Vec<u8> {
    let major = major << 5;
    match u16::try_from(length).unwrap() {
        short @ 0..=23 => vec![major | u8::try_from(short).unwrap()],
        byte @ 24..=255 => vec![major | 24, u8::try_from(byte).unwrap()],
        long => [vec![major | 25], long.to_be_bytes().to_vec()].concat(),
    }
}

fn item(bytes: &[u8]) -> Option<(Tree, &[u8])> {
    let first = *bytes.first()?;
    let extra = match first & 0x1f {
        0..=23 => 0,
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    let (own, mut rest) = bytes.split_at_checked(1 + extra)?;
    let argument = match extra {
        0 => u64::from(first & 0x1f),
        _ => own[1..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    let argument = usize::try_from(argument).ok()?;
    let parts = match first >> 5 {
        2 => {
            return rest
                .split_at_checked(argument)
                .map(|(own, rest)| (Tree::Bytes(own.to_vec()), rest));
        }
        3 => {
            return rest
                .split_at_checked(argument)
                .map(|(own, rest)| (Tree::Text(own.to_vec()), rest));
        }
        4 => argument,
        5 => argument.checked_mul(2)?,
        6 => 1,
        _ => 0,
    };
    let mut found = Vec::new();
    for _ in 0..parts {
        let (part, behind) = item(rest)?;
        found.push(part);
        rest = behind;
    }
    Some((Tree::Parts(own.to_vec(), found), rest))
}
