//! Reading TOML that people wrote: every fault at once, each with its line
//! and what would be right; a key that nobody reads is a fault.

use core::cell::RefCell;
use core::fmt;

use hub_protocol::card_number::holds_card_number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// What is wrong with a text that holds one.
const CLEAR: &str = "holds a clear card number: put the card's token there, and take the number out of every copy of this file";

/// Ids that somebody else assigns, of digits alone as a rule. A shop whose id
/// is its SIRET has 14 of them that pass the Luhn check, and some begin as a
/// card number of that length does.
const ASSIGNED: [&str; 5] = ["store_id", "stores", "merchant_id", "terminal_id", "acquirer_id"];

/// A text being read, and the faults found so far.
pub struct Document<'t> {
    text: &'t str,
    root: DeTable<'t>,
    faults: RefCell<Vec<Fault>>,
    slips: RefCell<Vec<Fault>>,
}

impl<'t> Document<'t> {
    /// Parses the text. Syntax errors are the only faults then: what stands
    /// behind one cannot be judged.
    pub fn parse(text: &'t str) -> Result<Self, Vec<Fault>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let document = Self {
                text,
                root: root.into_inner(),
                faults: RefCell::default(),
                slips: RefCell::default(),
            };
            document.note_card_numbers();
            return Ok(document);
        }
        let fault = |error: &toml::de::Error| Fault {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        };
        Err(errors.iter().map(fault).collect())
    }

    /// The top of the document.
    pub fn root(&self) -> Section<'_, 't> {
        Section {
            document: self,
            path: String::new(),
            line: 1,
            table: Some(&self.root),
            broken: false,
            read: RefCell::default(),
        }
    }

    /// Notes a fault.
    pub fn fault(&self, line: usize, message: impl Into<String>) {
        self.faults.borrow_mut().push(Fault {
            line,
            message: message.into(),
        });
    }

    /// Notes every text, key and comment that holds a clear card number as a
    /// slip: all of the file is kept as it is, and parts of it are shown and
    /// sent out. The number is not repeated.
    fn note_card_numbers(&self) {
        for (line, text) in (1..).zip(self.text.lines()) {
            let comment = text.split_once('#').map(|(_, comment)| comment);
            if comment.is_some_and(holds_card_number) {
                self.slip(line, format!("the comment {CLEAR}"));
            }
        }
        self.card_numbers_in_table(&self.root, "");
    }

    fn card_numbers_in_table(&self, table: &DeTable<'t>, path: &str) {
        for (key, value) in table {
            let own = key.get_ref().as_ref();
            if holds_card_number(own) {
                let line = line_of(self.text, key.span().start);
                self.slip(line, format!("a key {CLEAR}"));
                continue;
            }
            let name = match path {
                "" => own.to_owned(),
                path => format!("{path}.{own}"),
            };
            if !ASSIGNED.contains(&own) {
                self.card_numbers_in(value, &name);
            }
        }
    }

    fn card_numbers_in(&self, value: &Spanned<DeValue<'t>>, name: &str) {
        match value.get_ref() {
            DeValue::Table(table) => self.card_numbers_in_table(table, name),
            DeValue::Array(items) => items.iter().for_each(|item| self.card_numbers_in(item, name)),
            DeValue::String(text) if holds_card_number(text) => {
                self.slip(line_of(self.text, value.span().start), format!("{name} {CLEAR}"));
            }
            _ => {}
        }
    }

    /// Notes every list that has the same text twice as a slip.
    pub fn note_doubled(&self) {
        self.doubled_in(&self.root, "");
    }

    fn doubled_in(&self, table: &DeTable<'t>, path: &str) {
        for (key, value) in table {
            let name = match path {
                "" => key.get_ref().to_string(),
                path => format!("{path}.{}", key.get_ref()),
            };
            match value.get_ref() {
                DeValue::Table(table) => self.doubled_in(table, &name),
                DeValue::Array(items) => {
                    let line = line_of(self.text, value.span().start);
                    let mut seen: Vec<&str> = Vec::new();
                    for item in items.iter() {
                        match item.get_ref() {
                            DeValue::Table(table) => self.doubled_in(table, &name),
                            // Said already, and not to be repeated.
                            DeValue::String(text) if holds_card_number(text) => {}
                            DeValue::String(text) if seen.contains(&text.as_ref()) => {
                                self.slip(line, format!("{name}: {text:?} stands here twice"));
                            }
                            DeValue::String(text) => seen.push(text),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Notes what is surely not meant and yet can be read.
    pub fn slip(&self, line: usize, message: impl Into<String>) {
        self.slips.borrow_mut().push(Fault {
            line,
            message: message.into(),
        });
    }

    /// All faults, in the order of lines; slips too, but where the line has a
    /// fault already.
    pub fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        let slips = self.slips.into_inner();
        let told: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
        faults.extend(slips.into_iter().filter(|slip| !told.contains(&slip.line)));
        faults.sort_by_key(|fault| fault.line);
        faults
    }

    /// Whether it has a fault other than slips.
    pub fn is_unreadable(&self) -> bool {
        !self.faults.borrow().is_empty()
    }
}

/// One table of the document. Reading a key marks it as known;
/// [`Section::finish`] turns all others into faults.
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    path: String,
    line: usize,
    table: Option<&'d DeTable<'t>>,
    /// Something else than a table stands there, which has its own fault.
    broken: bool,
    read: RefCell<Vec<&'static str>>,
}

/// A value found at a key, with its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its line, from 1.
    pub line: usize,
}

impl<'d, 't> Section<'d, 't> {
    /// The line on which the section begins.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Its name from the top of the document.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the document has this section at all.
    pub fn present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether something stands where the section should be, a table or not.
    pub fn is_named(&self) -> bool {
        self.present() || self.broken
    }

    /// Whether the section holds this key, whatever its value. Where something
    /// is said only beside another key, one with a wrong value is there: it has
    /// its own fault.
    pub fn holds(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the section holds this key with a list of nothing.
    pub fn holds_empty_list(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        let list = value.and_then(|value| value.get_ref().as_array());
        list.is_some_and(|items| items.is_empty())
    }

    /// Notes a fault about this section's document.
    pub fn fault(&self, line: usize, message: impl Into<String>) {
        self.document.fault(line, message);
    }

    /// Notes what is surely not meant and yet can be read.
    pub fn slip(&self, line: usize, message: impl Into<String>) {
        self.document.slip(line, message);
    }

    fn find(&self, key: &'static str) -> Option<(&'d Spanned<DeValue<'t>>, usize)> {
        self.read.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some((value, line_of(self.document.text, value.span().start)))
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A table inside this one. If it is missing, every required key in it
    /// will be a fault at this section's line.
    pub fn section(&self, key: &'static str) -> Section<'d, 't> {
        let found = self.find(key);
        let (table, line) = match found {
            Some((value, line)) => {
                let table = value.get_ref().as_table();
                if table.is_none() {
                    self.fault(line, format!("{}: a table expected", self.name(key)));
                }
                (table, line)
            }
            None => (None, self.line),
        };
        Section {
            document: self.document,
            path: self.name(key),
            line,
            table,
            broken: self.broken || found.is_some() && table.is_none(),
            read: RefCell::default(),
        }
    }

    /// The tables of a list of tables inside this one; none if it is missing.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'d, 't>> {
        let Some((value, line)) = self.find(key) else {
            return Vec::new();
        };
        let items = value.get_ref().as_array().map(|items| items.iter());
        let tables = items.map(|items| items.map(|item| (item.span().start, item.get_ref().as_table())));
        let tables: Option<Vec<_>> = tables.map(Iterator::collect);
        let Some(tables) = tables.filter(|found| found.iter().all(|(_, table)| table.is_some())) else {
            self.fault(
                line,
                format!("{}: tables, each under [[{0}]], expected", self.name(key)),
            );
            return Vec::new();
        };
        tables
            .into_iter()
            .map(|(at, table)| Section {
                document: self.document,
                path: self.name(key),
                line: line_of(self.document.text, at),
                table,
                broken: false,
                read: RefCell::default(),
            })
            .collect()
    }

    /// The value at `key` as `convert` has it; `None` if it is missing or, as
    /// a fault that names what was `expected`, of another kind.
    pub fn optional<T>(
        &self,
        key: &'static str,
        expected: &str,
        convert: impl Fn(&DeValue<'t>) -> Option<T>,
    ) -> Option<At<T>> {
        let (value, line) = self.find(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            let found = shown(value.get_ref());
            self.fault(
                line,
                format!("{}: {expected} expected, {found} found", self.name(key)),
            );
        }
        converted.map(|value| At { value, line })
    }

    /// Like [`optional`](Self::optional), and a missing key is a fault.
    pub fn required<T>(
        &self,
        key: &'static str,
        expected: &str,
        convert: impl Fn(&DeValue<'t>) -> Option<T>,
    ) -> Option<At<T>> {
        if self.table.is_none_or(|table| !table.contains_key(key)) {
            self.read.borrow_mut().push(key);
            if self.broken {
                return None;
            }
            self.fault(
                self.line,
                format!("{} is missing: {expected} expected", self.name(key)),
            );
            return None;
        }
        self.optional(key, expected, convert)
    }

    /// Turns every key that was not read into a fault.
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        let known = self.read.borrow();
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let line = line_of(self.document.text, key.span().start);
                if holds_card_number(name) {
                    self.document.fault(line, format!("a key {CLEAR}"));
                    continue;
                }
                // A third of the letters wrong is a slip; more is another word.
                let nearest = known
                    .iter()
                    .map(|known| (strsim::osa_distance(known, name), known))
                    .filter(|(distance, known)| distance * 3 <= known.len())
                    .min();
                let hint = nearest.map_or_else(String::new, |(_, known)| format!("did you mean {known}? "));
                let known = known.join(", ");
                self.document.fault(
                    line,
                    format!(
                        "{} is not a known key; {hint}known here: {known}",
                        self.name(name)
                    ),
                );
            }
        }
    }
}

/// A whole number in a range.
pub fn integer(range: core::ops::RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Option<u64> {
    move |value| {
        let number = value.as_integer()?;
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
        range.contains(&number).then_some(number)
    }
}

/// True or false.
pub fn boolean(value: &DeValue<'_>) -> Option<bool> {
    value.as_bool()
}

/// Text that parses as a `T`.
pub fn text<T: core::str::FromStr>(value: &DeValue<'_>) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// A list of texts that each parse as a `T`.
pub fn list<T: core::str::FromStr>(value: &DeValue<'_>) -> Option<Vec<T>> {
    value
        .as_array()?
        .iter()
        .map(|item| text(item.get_ref()))
        .collect()
}

/// A value as people know it from the file; lists and tables only by kind.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(instant) => instant.to_string(),
        DeValue::Array(items) => format!(
            "[{}]",
            items
                .iter()
                .take(8)
                .map(|item| shown(item.get_ref()))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.matches('\n').count() + 1
}
