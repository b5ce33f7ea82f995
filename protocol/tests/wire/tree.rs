//! CBOR as a tree: to show it (diagnostic notation, RFC 8949 §8) and to make
//! what the crate itself never encodes.

use minicbor::Decoder;
use minicbor::data::Type;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Int(i128),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    Tag(u64, Box<Tree>),
    Bool(bool),
    Null,
    /// Bytes put in as they are.
    Raw(Vec<u8>),
}

pub(crate) fn int(value: i128) -> Tree {
    Tree::Int(value)
}

pub(crate) fn bytes(value: &[u8]) -> Tree {
    Tree::Bytes(value.to_vec())
}

pub(crate) fn text(value: &str) -> Tree {
    Tree::Text(value.into())
}

impl Tree {
    pub(crate) fn parse(bytes: &[u8]) -> Tree {
        let mut decoder = Decoder::new(bytes);
        let tree = item(&mut decoder);
        assert_eq!(decoder.position(), bytes.len(), "one item");
        tree
    }

    /// The value under integer key `key` of a map, or at a place of an array.
    fn at(&mut self, key: i128) -> &mut Tree {
        match self {
            Tree::Array(items) => &mut items[usize::try_from(key).unwrap()],
            Tree::Map(pairs) => {
                let place = pairs.iter().position(|(k, _)| *k == Tree::Int(key));
                &mut pairs[place.expect("key")].1
            }
            _ => panic!("no children"),
        }
    }

    /// The same tree with another value at `path`.
    pub(crate) fn with(mut self, path: &[i128], value: Tree) -> Tree {
        let mut place = &mut self;
        for key in path {
            place = place.at(*key);
        }
        *place = value;
        self
    }

    /// The same map with one more pair at the end.
    pub(crate) fn and(self, key: Tree, value: Tree) -> Tree {
        let Tree::Map(mut pairs) = self else {
            panic!("map expected")
        };
        pairs.push((key, value));
        Tree::Map(pairs)
    }

    /// The same map without a key.
    pub(crate) fn without(self, key: i128) -> Tree {
        let Tree::Map(mut pairs) = self else {
            panic!("map expected")
        };
        pairs.retain(|(k, _)| *k != Tree::Int(key));
        Tree::Map(pairs)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Tree::Int(value) if *value >= 0 => head(out, 0, u64::try_from(*value).unwrap()),
            Tree::Int(value) => head(out, 1, u64::try_from(-1 - *value).unwrap()),
            Tree::Bytes(value) => {
                head(out, 2, value.len() as u64);
                out.extend_from_slice(value);
            }
            Tree::Text(value) => {
                head(out, 3, value.len() as u64);
                out.extend_from_slice(value.as_bytes());
            }
            Tree::Array(items) => {
                head(out, 4, items.len() as u64);
                items.iter().for_each(|item| item.write(out));
            }
            Tree::Map(pairs) => {
                head(out, 5, pairs.len() as u64);
                for (key, value) in pairs {
                    key.write(out);
                    value.write(out);
                }
            }
            Tree::Tag(number, value) => {
                head(out, 6, *number);
                value.write(out);
            }
            Tree::Bool(value) => out.push(0xf4 + u8::from(*value)),
            Tree::Null => out.push(0xf6),
            Tree::Raw(value) => out.extend_from_slice(value),
        }
    }
}

fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

fn item(d: &mut Decoder<'_>) -> Tree {
    match d.datatype().unwrap() {
        Type::Bytes => bytes(d.bytes().unwrap()),
        Type::String => text(d.str().unwrap()),
        Type::Array => Tree::Array((0..d.array().unwrap().unwrap()).map(|_| item(d)).collect()),
        Type::Map => Tree::Map(
            (0..d.map().unwrap().unwrap())
                .map(|_| (item(d), item(d)))
                .collect(),
        ),
        Type::Tag => Tree::Tag(d.tag().unwrap().as_u64(), Box::new(item(d))),
        Type::Bool => Tree::Bool(d.bool().unwrap()),
        Type::Null => {
            d.null().unwrap();
            Tree::Null
        }
        _ => int(d.int().unwrap().into()),
    }
}

impl core::fmt::Display for Tree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let list = |f: &mut core::fmt::Formatter<'_>, items: &[String], open, close| {
            write!(f, "{open}{}{close}", items.join(", "))
        };
        match self {
            Tree::Int(value) => write!(f, "{value}"),
            Tree::Bytes(value) => write!(f, "h'{}'", crate::files::hex(value)),
            Tree::Text(value) => write!(f, "{}", serde_json::Value::from(value.as_str())),
            Tree::Array(items) => {
                let items: Vec<_> = items.iter().map(Tree::to_string).collect();
                list(f, &items, '[', ']')
            }
            Tree::Map(pairs) => {
                let items: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| format!("{key}: {value}"))
                    .collect();
                list(f, &items, '{', '}')
            }
            Tree::Tag(number, value) => write!(f, "{number}({value})"),
            Tree::Bool(value) => write!(f, "{value}"),
            Tree::Null => write!(f, "null"),
            Tree::Raw(value) => write!(f, "raw'{}'", crate::files::hex(value)),
        }
    }
}

/// Diagnostic notation of one item.
pub(crate) fn diagnostic(bytes: &[u8]) -> String {
    Tree::parse(bytes).to_string()
}
