//! As much of CDDL (RFC 8610) as `docs/protocol.md` uses, to hold the document
//! to the vectors: rules, choices, literals, ranges, maps with integer keys,
//! arrays, tags, generics with one parameter, `.size` and `.cbor`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

#[derive(Clone, Debug)]
enum Type {
    Choice(Vec<Type>),
    Literal(i128),
    Range(i128, i128),
    Named(String, Option<Box<Type>>),
    Size(Box<Type>, usize, usize),
    Cbor(Box<Type>),
    /// Each with whether it may be absent.
    Map(Vec<(i128, bool, Type)>),
    /// Each with whether it may come any number of times.
    Array(Vec<(bool, Type)>),
    Tag(u64, Box<Type>),
}

pub(crate) struct Cddl {
    rules: BTreeMap<String, (Option<String>, Type)>,
    /// What has been matched: rules, and `rule key` of optional fields with
    /// whether they were there.
    seen: RefCell<BTreeSet<String>>,
}

impl Cddl {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .map(|line| line.split(';').next().unwrap_or_default());
        let text = lines.collect::<Vec<_>>().join("\n");
        let mut parser = Parser { rest: text.trim() };
        let mut rules = BTreeMap::new();
        while !parser.rest.is_empty() {
            let name = parser.word();
            let parameter = parser.eat("<").then(|| {
                let parameter = parser.word();
                parser.expect(">");
                parameter
            });
            parser.expect("=");
            let rule = parser.choice();
            assert!(
                rules.insert(name.clone(), (parameter, rule)).is_none(),
                "rule {name} twice"
            );
        }
        Self {
            rules,
            seen: RefCell::default(),
        }
    }

    /// Whether a value is what a rule says; the path to the first fault if not.
    pub(crate) fn check(&self, rule: &str, value: &Tree) -> Result<(), String> {
        self.named(rule, None, value)
    }

    /// Rules that no value has matched, and optional fields that were always
    /// or never there.
    pub(crate) fn not_seen(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        let mut wanted: Vec<String> = self.rules.keys().cloned().collect();
        for (name, (_, rule)) in &self.rules {
            optional(rule, &mut |key| {
                wanted.push(format!("{name} with {key}"));
                wanted.push(format!("{name} without {key}"));
            });
        }
        wanted.into_iter().filter(|what| !seen.contains(what)).collect()
    }

    fn named(&self, name: &str, argument: Option<&Type>, value: &Tree) -> Result<(), String> {
        match (name, value) {
            ("uint", Tree::Int(0..)) | ("int", Tree::Int(_)) => return Ok(()),
            ("tstr", Tree::Text(_)) | ("bstr", Tree::Bytes(_)) | ("bool", Tree::Bool(_)) => return Ok(()),
            ("uint" | "int" | "tstr" | "bstr" | "bool", _) => {
                return Err(format!("{name} expected: {value}"));
            }
            _ => {}
        }
        let (parameter, rule) = self.rules.get(name).ok_or(format!("no rule {name}"))?;
        let rule = match (parameter, argument) {
            (Some(parameter), Some(argument)) => substitute(rule, parameter, argument),
            _ => rule.clone(),
        };
        self.matches(name, &rule, value)
            .map_err(|fault| format!("{name}: {fault}"))?;
        self.seen.borrow_mut().insert(name.into());
        Ok(())
    }

    fn matches(&self, within: &str, rule: &Type, value: &Tree) -> Result<(), String> {
        match (rule, value) {
            (Type::Choice(all), _) => {
                let faults: Vec<String> = all
                    .iter()
                    .map_while(|one| self.matches(within, one, value).err())
                    .collect();
                if faults.len() == all.len() {
                    Err(faults.join("; or "))
                } else {
                    Ok(())
                }
            }
            (Type::Literal(number), Tree::Int(found)) if number == found => Ok(()),
            (Type::Range(from, to), Tree::Int(found)) if (from..=to).contains(&found) => Ok(()),
            (Type::Named(name, argument), _) => self.named(name, argument.as_deref(), value),
            (Type::Size(inner, from, to), Tree::Bytes(_) | Tree::Text(_)) => {
                let length = match value {
                    Tree::Bytes(bytes) => bytes.len(),
                    Tree::Text(text) => text.len(),
                    _ => 0,
                };
                if !(*from..=*to).contains(&length) {
                    return Err(format!("{length} bytes, {from} to {to} expected"));
                }
                self.matches(within, inner, value)
            }
            // Something else may be a choice beside CBOR.
            (Type::Cbor(inner), Tree::Bytes(bytes)) if is_one_item(bytes) => {
                self.matches(within, inner, &Tree::parse(bytes))
            }
            (Type::Tag(number, inner), Tree::Tag(found, value)) if number == found => {
                self.matches(within, inner, value)
            }
            (Type::Map(fields), Tree::Map(pairs)) => {
                let mut left: Vec<&(Tree, Tree)> = pairs.iter().collect();
                for (key, optional, rule) in fields {
                    let place = left.iter().position(|(found, _)| *found == Tree::Int(*key));
                    if *optional {
                        let with = if place.is_some() { "with" } else { "without" };
                        self.seen.borrow_mut().insert(format!("{within} {with} {key}"));
                    }
                    match place {
                        Some(place) => self
                            .matches(within, rule, &left.remove(place).1)
                            .map_err(|fault| format!("key {key}: {fault}"))?,
                        None if *optional => {}
                        None => return Err(format!("no key {key}")),
                    }
                }
                if left.is_empty() {
                    Ok(())
                } else {
                    Err(format!("unknown keys: {left:?}"))
                }
            }
            (Type::Array(parts), Tree::Array(items)) => {
                let mut items = items.iter();
                for (many, rule) in parts {
                    if *many {
                        items
                            .by_ref()
                            .try_for_each(|item| self.matches(within, rule, item))?;
                    } else {
                        self.matches(within, rule, items.next().ok_or("array too short")?)?;
                    }
                }
                if items.next().is_none() {
                    Ok(())
                } else {
                    Err("array too long".into())
                }
            }
            _ => Err(format!("{rule:?} expected: {value}")),
        }
    }
}

fn is_one_item(bytes: &[u8]) -> bool {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.skip().is_ok() && decoder.position() == bytes.len()
}

fn optional(rule: &Type, found: &mut impl FnMut(i128)) {
    match rule {
        Type::Map(fields) => {
            for (key, may_lack, inner) in fields {
                if *may_lack {
                    found(*key);
                }
                optional(inner, found);
            }
        }
        Type::Choice(all) => all.iter().for_each(|one| optional(one, found)),
        Type::Array(parts) => parts.iter().for_each(|(_, one)| optional(one, found)),
        Type::Tag(_, inner) | Type::Cbor(inner) => optional(inner, found),
        _ => {}
    }
}

fn substitute(rule: &Type, parameter: &str, argument: &Type) -> Type {
    let again = |inner: &Type| substitute(inner, parameter, argument);
    match rule {
        Type::Named(name, None) if name == parameter => argument.clone(),
        Type::Choice(all) => Type::Choice(all.iter().map(again).collect()),
        Type::Array(parts) => Type::Array(parts.iter().map(|(many, one)| (*many, again(one))).collect()),
        Type::Map(fields) => Type::Map(
            fields
                .iter()
                .map(|(key, may, one)| (*key, *may, again(one)))
                .collect(),
        ),
        Type::Tag(number, inner) => Type::Tag(*number, Box::new(again(inner))),
        Type::Cbor(inner) => Type::Cbor(Box::new(again(inner))),
        Type::Size(inner, from, to) => Type::Size(Box::new(again(inner)), *from, *to),
        other => other.clone(),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest.strip_prefix(token).map(str::trim_start);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, token: &str) {
        assert!(self.eat(token), "{token} expected at: {:.60}", self.rest);
    }

    fn take(&mut self, of: fn(char) -> bool) -> &str {
        let end = self.rest.find(|c| !of(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn word(&mut self) -> String {
        let word = self.take(|c| c.is_ascii_alphanumeric() || c == '-').to_owned();
        assert!(!word.is_empty(), "name expected at: {:.60}", self.rest);
        word
    }

    fn number(&mut self) -> i128 {
        let at = format!("{:.60}", self.rest);
        let word = self.take(|c| c.is_ascii_digit() || c == '-');
        word.parse()
            .unwrap_or_else(|_| panic!("number expected at: {at}"))
    }

    fn size(&mut self) -> usize {
        usize::try_from(self.number()).unwrap()
    }

    fn choice(&mut self) -> Type {
        let mut all = vec![self.primary()];
        while self.eat("/") {
            all.push(self.primary());
        }
        if all.len() == 1 {
            all.remove(0)
        } else {
            Type::Choice(all)
        }
    }

    fn primary(&mut self) -> Type {
        let base = self.base();
        if self.eat(".size") {
            let (from, to) = if self.eat("(") {
                let from = self.size();
                self.expect("..");
                let to = self.size();
                self.expect(")");
                (from, to)
            } else {
                let size = self.size();
                (size, size)
            };
            return Type::Size(Box::new(base), from, to);
        }
        if self.eat(".cbor") {
            return Type::Cbor(Box::new(self.base()));
        }
        base
    }

    fn base(&mut self) -> Type {
        if self.eat("#6.") {
            let number = u64::try_from(self.number()).unwrap();
            self.expect("(");
            let inner = self.choice();
            self.expect(")");
            Type::Tag(number, Box::new(inner))
        } else if self.eat("{") {
            let mut fields = Vec::new();
            while !self.eat("}") {
                let may_lack = self.eat("?");
                let key = self.number();
                self.expect("=>");
                fields.push((key, may_lack, self.choice()));
                self.eat(",");
            }
            Type::Map(fields)
        } else if self.eat("[") {
            let mut parts = Vec::new();
            while !self.eat("]") {
                let many = self.eat("*");
                parts.push((many, self.choice()));
                self.eat(",");
            }
            Type::Array(parts)
        } else if self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            let from = self.number();
            if self.eat("..") {
                Type::Range(from, self.number())
            } else {
                Type::Literal(from)
            }
        } else {
            let name = self.word();
            let argument = self.eat("<").then(|| {
                let argument = self.choice();
                self.expect(">");
                Box::new(argument)
            });
            Type::Named(name, argument)
        }
    }
}

#[test]
fn the_checker_of_the_grammar_can_say_no() {
    let cddl = Cddl::parse(
        "box<t> = { 1 => t, ? 2 => bstr .size (1..2) } ; with a comment\n few = 1 / 3..4\n \
         list = [7, * few] both = box<few> / #6.18(bstr .cbor few)",
    );
    let check = |rule: &str, hex: &str| cddl.check(rule, &Tree::parse(&crate::files::unhex(hex)));
    for (rule, hex) in [
        ("few", "01"),
        ("few", "04"),
        ("list", "8107"),
        ("list", "83070103"),
        ("both", "a10103"),
        ("both", "a201030241aa"),
        ("both", "d24104"),
    ] {
        assert_eq!(check(rule, hex), Ok(()), "{rule} {hex}");
    }
    for (rule, hex) in [
        ("few", "02"),
        ("few", "6131"),
        ("list", "80"),
        ("list", "82070a"),
        ("list", "820801"),
        ("both", "a10102"),
        ("both", "a0"),
        ("both", "a2010302f6"),
        ("both", "a2010302430000aa"),
        ("both", "a201030300"),
        ("both", "d24102"),
        ("both", "d34104"),
    ] {
        assert!(check(rule, hex).is_err(), "{rule} {hex}");
    }
    assert!(cddl.not_seen().is_empty(), "{:?}", cddl.not_seen());
}
