//! One JSON object, read field by field, so that all its faults are found at
//! once.

use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

/// An object whose fields are taken out one by one; what is left over in the
/// end is not known.
pub(super) struct Fields<'a> {
    object: Map<String, Value>,
    /// `card.` for the fields of a card.
    prefix: &'static str,
    known: RefCell<Vec<&'static str>>,
    faults: &'a RefCell<Vec<String>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(
        object: Map<String, Value>,
        prefix: &'static str,
        faults: &'a RefCell<Vec<String>>,
    ) -> Self {
        Self {
            object,
            prefix,
            known: RefCell::default(),
            faults,
        }
    }

    /// An object inside of this one, with the same list of faults.
    pub(super) fn inner(&self, object: Map<String, Value>, prefix: &'static str) -> Fields<'a> {
        Fields::new(object, prefix, self.faults)
    }

    pub(super) fn fault(&self, text: impl Into<String>) {
        self.faults.borrow_mut().push(text.into());
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// The value of a field; `None` also for `null`.
    pub(super) fn value(&self, name: &'static str) -> Option<&Value> {
        if !self.known.borrow().contains(&name) {
            self.known.borrow_mut().push(name);
        }
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, expected: impl Display) {
        self.fault(format!("{}{name}: {expected} expected", self.prefix));
    }

    /// A field that `read` makes something of, or `None` if it is not there.
    pub(super) fn read<T>(
        &self,
        name: &'static str,
        expected: impl Display,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let found = read(value);
        if found.is_none() {
            self.wrong(name, expected);
        }
        found
    }

    /// A field that holds one of some names.
    pub(super) fn name<T: FromStr>(&self, name: &'static str, names: &[&str]) -> Option<T> {
        let expected = format!("one of {}", names.join(", "));
        self.read(name, expected, |value| value.as_str()?.parse().ok())
    }

    /// A text; the protocol's own rules for it are held to later.
    pub(super) fn text(&self, name: &'static str) -> Option<String> {
        self.read(name, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn required<T>(&self, name: &'static str, found: Option<T>, expected: &str) -> Option<T> {
        if found.is_none() && self.value(name).is_none() {
            self.fault(format!("{}{name} is missing: {expected} expected", self.prefix));
        }
        found
    }

    /// What is left over is a fault each.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        let strangers = self.object.keys().filter(|name| !known.contains(&name.as_str()));
        for stranger in strangers {
            let hint = match (self.prefix, stranger.as_str()) {
                ("", "amount") => "did you mean amount_minor, in cents? ".to_owned(),
                ("", "token" | "scheme" | "funding" | "issuer_country" | "bin" | "last4" | "expiry") => {
                    format!("did you mean it inside of card: {{\"card\": {{\"{stranger}\": …}}}}? ")
                }
                _ => String::new(),
            };
            self.fault(format!(
                "{}{stranger} is not a known field; {hint}known here: {}",
                self.prefix,
                known.join(", ")
            ));
        }
    }
}
