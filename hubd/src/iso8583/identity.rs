//! Who the hub is to the acquirer.

use jiff::tz::TimeZone;

use super::dialect::{Dialect, TerminalRule};
use super::field::{Length, Value};

/// How many characters of a device's own the shortest terminal id leaves.
const SHORTEST_PREFIX: usize = 4;

/// Who the hub is to the acquirer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Merchant, field 42; at most 15 characters.
    pub merchant_id: String,
    /// Terminal, field 41; at most 8 characters, or the beginning of each
    /// device's.
    pub terminal_id: String,
    /// Acquiring institution, field 32; at most 11 digits.
    pub acquirer_id: Option<String>,
    /// Of the times on the customer's receipt, fields 12 and 13.
    pub time_zone: TimeZone,
}

impl Identity {
    /// The ids that do not fit the dialect: the key in the configuration, and
    /// what would be right.
    pub fn faults(&self, dialect: &Dialect) -> Vec<(&'static str, String)> {
        let (most, filling) = match dialect.terminal {
            TerminalRule::Hub => (8, ' '),
            TerminalRule::Device => (SHORTEST_PREFIX, 'A'),
        };
        let mut faults = Vec::new();
        let mut check = |key: &'static str, number: u8, text: &str, most: usize, filling: char| {
            let fits = dialect.format.fields.get(&number).is_none_or(|field| {
                let mut content = text.to_owned();
                if let Length::Fixed(length) = field.length() {
                    let missing = usize::from(length).saturating_sub(text.len());
                    content.extend(std::iter::repeat_n(filling, missing));
                }
                field.encode(&Value::Text(content), &mut Vec::new()).is_ok()
            });
            if text.is_empty() || text.len() > most || !fits {
                let mut right = format!("1 to {most} characters that field {number} of the dialect takes");
                if number == 41 && most < 8 {
                    right += " (it names the device, which fills it up: terminal.names)";
                }
                faults.push((key, right));
            }
        };
        check("merchant_id", 42, &self.merchant_id, 15, ' ');
        check("terminal_id", 41, &self.terminal_id, most, filling);
        if let Some(acquirer) = &self.acquirer_id {
            check("acquirer_id", 32, acquirer, 11, ' ');
        }
        faults
    }
}
