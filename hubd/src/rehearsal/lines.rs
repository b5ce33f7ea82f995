//! Payments as people write them down: a JSON object a line. `docs/policy.md`
//! is the reference.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::str::FromStr;

use hub_protocol::{Currency, DeviceClass, PaymentId, PaymentRequest, SealedCard};
use jiff::Timestamp;
use serde_json::Value;

use super::describe::Describe;
use super::fields::Fields;
use super::object::Object;

/// The longest line, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// By how much time goes on from a line to the next, in milliseconds.
const PACE_MS: u64 = 1000;

/// Something wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: u64,
    /// What is expected instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

/// A line that is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// When it happens, milliseconds since 1970 UTC. Never before the line
    /// above.
    pub at_ms: u64,
    /// What happens.
    pub step: Step,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A customer pays.
    Pay(Box<Pay>),
    /// The line to the gateway is back.
    WanUp,
    /// The line to the gateway is cut.
    WanDown,
    /// The gateway answers a payment of the backlog.
    Settled {
        /// Which; `None`: all that wait.
        payment_id: Option<PaymentId>,
        /// Whether the issuer approves.
        approved: bool,
        /// With this response code.
        response_code: String,
    },
    /// The device voids its payment.
    Void {
        /// Which.
        payment_id: PaymentId,
        /// The number of this request of the device.
        device_sequence: u64,
    },
    /// The hub is started anew.
    Restart,
    /// A device says what it is.
    Describe(Box<Describe>),
    /// A person blocks a device, or unblocks it.
    Block {
        /// The device, by the name that the file gives it.
        device: String,
        /// What it is.
        class: DeviceClass,
        /// Whether it is blocked from here on.
        blocked: bool,
    },
    /// The clock jumps, or a person says that its time is right.
    Clock {
        /// Whether it is in doubt from here on.
        doubtful: bool,
    },
    /// The disk fills up, or somebody makes room.
    Disk {
        /// Whether it is full from here on.
        full: bool,
    },
}

/// A payment to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pay {
    /// As the device would send it.
    pub request: PaymentRequest,
    /// What stands for the sealed card.
    pub sealed_card: SealedCard,
    /// The device, by the name that the file gives it.
    pub device: String,
    /// What it is.
    pub class: DeviceClass,
    /// What the gateway would say if it were asked.
    pub gateway: GatewaySays,
    /// Whether a supervisor lets it pass.
    pub overridden: bool,
}

/// What the simulated gateway says to a payment that is asked online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewaySays {
    /// Yes.
    #[default]
    Approved,
    /// No.
    Declined,
    /// Nothing in time.
    Nothing,
}

impl GatewaySays {
    pub(super) const NAMES: [&'static str; 3] = ["approved", "declined", "no-answer"];
}

impl FromStr for GatewaySays {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "approved" => Ok(Self::Approved),
            "declined" => Ok(Self::Declined),
            "no-answer" => Ok(Self::Nothing),
            _ => Err(()),
        }
    }
}

/// Reads lines one by one, and what each says by itself and beside those
/// above it.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    pub(super) number: u64,
    pub(super) currency: Currency,
    /// When the next line happens unless it says so itself.
    next_ms: u64,
    start_ms: u64,
    wan_up: bool,
    pub(super) devices: HashMap<String, Device>,
    pub(super) payments: HashMap<PaymentId, Sent>,
}

/// A device that lines above have named.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) class: DeviceClass,
    /// How many requests it has made.
    pub(super) requests: u64,
}

/// A payment of a line above. Sent again, it has the same number and time.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    device: String,
    pub(super) device_sequence: u64,
    pub(super) device_time_ms: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads payments in this currency; the first one happens at `start_ms`
    /// unless it says so itself, and none before.
    pub fn new(input: R, currency: Currency, start_ms: u64) -> Self {
        Self {
            input,
            number: 0,
            currency,
            next_ms: start_ms,
            start_ms,
            wan_up: false,
            devices: HashMap::new(),
            payments: HashMap::new(),
        }
    }

    /// The next line that is not blank, or its faults; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Result<Line, Vec<Fault>>>> {
        loop {
            let mut bytes = Vec::new();
            let room = MAX_LINE as u64 + 1;
            if (&mut self.input).take(room).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if bytes.len() > MAX_LINE && bytes.last() != Some(&b'\n') {
                self.input.skip_until(b'\n')?;
                return Ok(Some(Err(vec![
                    self.fault(format!("the line is longer than {MAX_LINE} bytes")),
                ])));
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(self.understand(&bytes)));
            }
        }
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault {
            line: self.number,
            message: message.into(),
        }
    }

    fn understand(&mut self, bytes: &[u8]) -> Result<Line, Vec<Fault>> {
        // What some editors put before the first line.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let Object(object) = serde_json::from_slice(bytes).map_err(|error| {
            let place = error.to_string().replace("line 1 column", "column");
            vec![self.fault(format!("not a JSON object: {place}"))]
        })?;
        let found = RefCell::default();
        let fields = Fields::new(object, "", &found);
        let at_ms = self.instant(&fields);
        let step = if fields.has("event") {
            self.event(&fields, at_ms)
        } else {
            self.payment(&fields, at_ms).map(|pay| Step::Pay(Box::new(pay)))
        };
        fields.finish();
        self.next_ms = at_ms.saturating_add(PACE_MS);
        let faults = found.take();
        match step {
            Some(step) if faults.is_empty() => {
                self.remember(&step);
                Ok(Line {
                    number: self.number,
                    at_ms,
                    step,
                })
            }
            _ => Err(faults.into_iter().map(|message| self.fault(message)).collect()),
        }
    }

    fn remember(&mut self, step: &Step) {
        match step {
            Step::WanUp => self.wan_up = true,
            Step::WanDown => self.wan_up = false,
            Step::Pay(pay) => {
                let request = &pay.request;
                let device = self.devices.entry(pay.device.clone()).or_insert(Device {
                    class: pay.class,
                    requests: 0,
                });
                self.payments.entry(request.payment_id).or_insert_with(|| {
                    device.requests = device.requests.max(request.device_sequence);
                    Sent {
                        device: pay.device.clone(),
                        device_sequence: request.device_sequence,
                        device_time_ms: request.device_time_ms,
                    }
                });
            }
            Step::Void {
                payment_id,
                device_sequence,
            } => {
                let sent = self.payments.get(payment_id);
                if let Some(device) = sent.and_then(|sent| self.devices.get_mut(&sent.device)) {
                    device.requests = *device_sequence;
                }
            }
            Step::Describe(describe) => {
                self.devices.entry(describe.device.clone()).or_insert(Device {
                    class: describe.class,
                    requests: 0,
                });
            }
            Step::Block { device, class, .. } => {
                self.devices.entry(device.clone()).or_insert(Device {
                    class: *class,
                    requests: 0,
                });
            }
            Step::Settled { .. } | Step::Restart | Step::Clock { .. } | Step::Disk { .. } => {}
        }
    }

    fn instant(&self, fields: &Fields<'_>) -> u64 {
        let at_ms = instant(fields, "at");
        let before_ms = self.next_ms.saturating_sub(PACE_MS).max(self.start_ms);
        match at_ms {
            None => self.next_ms,
            Some(at_ms) if at_ms < self.start_ms => {
                fields
                    .fault("at: an instant from the policy's not_before on expected: no hub has it earlier");
                self.next_ms
            }
            Some(at_ms) if at_ms < before_ms => {
                fields.fault("at: an instant that is not before the line above expected");
                self.next_ms
            }
            Some(at_ms) => at_ms,
        }
    }

    fn event(&self, fields: &Fields<'_>, at_ms: u64) -> Option<Step> {
        match fields.value("event").and_then(Value::as_str) {
            Some("wan_up") => Some(Step::WanUp),
            Some("wan_down") => Some(Step::WanDown),
            Some("restart") => Some(Step::Restart),
            Some("clock_doubtful") => Some(Step::Clock { doubtful: true }),
            Some("clock_trusted") => Some(Step::Clock { doubtful: false }),
            Some("disk_full") => Some(Step::Disk { full: true }),
            Some("disk_ok") => Some(Step::Disk { full: false }),
            Some(what @ ("device_blocked" | "device_unblocked")) => {
                let blocked = what == "device_blocked";
                let (device, class) = self.device(fields)?;
                Some(Step::Block {
                    device,
                    class,
                    blocked,
                })
            }
            Some("void") => {
                let id = self.earlier_payment(fields);
                let payment_id = fields.required("payment_id", id, "the id of a payment above")?;
                let sent = self.payments.get(&payment_id)?;
                let requests = self.devices.get(&sent.device).map_or(0, |device| device.requests);
                Some(Step::Void {
                    payment_id,
                    device_sequence: requests + 1,
                })
            }
            Some("settled") => self.settled(fields),
            Some("describe") => self
                .described(fields, at_ms)
                .map(|describe| Step::Describe(Box::new(describe))),
            _ => {
                fields.fault(
                    "event: one of wan_up, wan_down, settled, void, describe, restart, clock_doubtful, \
                     clock_trusted, device_blocked, device_unblocked, disk_full, disk_ok expected",
                );
                None
            }
        }
    }

    fn settled(&self, fields: &Fields<'_>) -> Option<Step> {
        if !self.wan_up {
            fields.fault(
                "settled: nothing is sent while the line is down; put {\"event\": \"wan_up\"} before it",
            );
        }
        let named = fields.has("payment_id");
        let payment_id = self.earlier_payment(fields);
        let outcome = fields.read("outcome", "one of approved, declined", |value| {
            match value.as_str()? {
                "approved" => Some(true),
                "declined" => Some(false),
                _ => None,
            }
        });
        let approved = fields.required("outcome", outcome, "one of approved, declined")?;
        let code = fields.read(
            "response_code",
            "1 to 8 letters and digits (ISO 8583 field 39)",
            |value| {
                let code = value.as_str()?;
                let shaped = (1..=8).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
                shaped.then(|| code.to_owned())
            },
        );
        (payment_id.is_some() || !named).then(|| Step::Settled {
            payment_id,
            approved,
            response_code: code.unwrap_or_else(|| if approved { "00" } else { "05" }.to_owned()),
        })
    }

    pub(super) fn id(fields: &Fields<'_>) -> Option<PaymentId> {
        fields.read(
            "payment_id",
            "a UUID in lower case, such as 00000000-0000-0000-0000-000000000001,",
            |value| value.as_str()?.parse().ok(),
        )
    }

    fn earlier_payment(&self, fields: &Fields<'_>) -> Option<PaymentId> {
        let id = Self::id(fields)?;
        if !self.payments.contains_key(&id) {
            fields.fault(
                "payment_id: no line above has a payment with this id; \
                 without one, a payment's id is the number of its line",
            );
            return None;
        }
        Some(id)
    }
}

pub(super) fn instant(fields: &Fields<'_>, name: &'static str) -> Option<u64> {
    let expected = "an instant with its offset, such as 2026-01-31T12:00:00Z,";
    fields.read(name, expected, |value| {
        let at: Timestamp = value.as_str()?.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok()
    })
}
