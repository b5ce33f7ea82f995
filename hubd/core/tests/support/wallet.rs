//! A device that holds an allowance and approves under it, honestly or not.

use std::collections::BTreeMap;

use hub_core::{Input, Reply, Ticket};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::Event;
use hub_protocol::{
    Allowance, AllowanceChain, AllowanceMisuse, AllowanceReturn, DeviceId, DeviceReceipt, Entry,
    PaymentRequest, Reason, Receipt, Refusal, RefusalCode, cbor,
};

use super::{MPOS, Shop, device_key, sealed_card, sign};

/// The sample policy, with small allowances for both classes of the tests: of a
/// card's 450,00, 150,00 are for each of two devices and as much for the hub.
pub fn policy() -> String {
    let base = super::POLICY.replace(
        "[card]\nexposure_ceiling = 15000",
        "[card]\nexposure_ceiling = 45000",
    );
    assert_ne!(base, super::POLICY);
    format!(
        "{base}\n[allowance]\namount = 20000\ncount = 4\ntransaction_ceiling = 8000\nminutes = 60\n\
         classes = [\"mpos\", \"softpos\"]\ncard_ceiling = 15000\ndevices = 2\n"
    )
}

#[derive(Clone, Debug)]
pub struct Approved {
    pub request: PaymentRequest,
    pub receipt: DeviceReceipt,
}

/// What a device keeps.
#[derive(Clone, Debug)]
pub struct Wallet {
    pub device: DeviceId,
    pub held: Option<(Allowance, AllowanceChain)>,
    pub cards: BTreeMap<String, u64>,
    pub unsynced: Vec<Approved>,
    pub closed: Option<u64>,
}

impl Wallet {
    pub fn new(device: DeviceId) -> Self {
        Self {
            device,
            held: None,
            cards: BTreeMap::new(),
            unsynced: Vec::new(),
            closed: None,
        }
    }

    pub fn allowance(&self) -> &Allowance {
        &self.held.as_ref().unwrap().0
    }

    pub fn chain(&self) -> AllowanceChain {
        self.held.as_ref().unwrap().1
    }

    /// Asks, and takes what it gets.
    pub fn ask(&mut self, shop: &mut Shop) -> Option<Allowance> {
        let ticket = shop.ask_allowance(self.device, self.closed);
        match shop.replies.remove(&ticket) {
            Some(Reply::Allowance { allowance, chain }) => {
                self.take(&allowance, chain);
                Some(*allowance)
            }
            Some(Reply::Refused(_)) | None => None,
            other => panic!("an allowance expected, not {other:?}"),
        }
    }

    pub fn take(&mut self, allowance: &Allowance, chain: AllowanceChain) {
        let same = self
            .held
            .as_ref()
            .is_some_and(|(held, _)| held.number == allowance.number);
        // An answer that comes late.
        let over = self.closed.is_some_and(|closed| allowance.number <= closed);
        if !same && !over {
            self.held = Some((allowance.clone(), chain));
            self.cards.clear();
        }
    }

    /// Approves what the allowance permits.
    pub fn approve(&mut self, request: &PaymentRequest, at_ms: u64) -> Result<Approved, Reason> {
        let (allowance, chain) = self.held.as_ref().ok_or(Reason::NoPolicy)?;
        let card = self.cards.get(&request.card.token).copied().unwrap_or(0);
        match allowance.objections(request, chain, card, at_ms).first() {
            Some(reason) => Err(*reason),
            None => Ok(self.cheat(request, at_ms)),
        }
    }

    /// Approves anything.
    pub fn cheat(&mut self, request: &PaymentRequest, at_ms: u64) -> Approved {
        let (allowance, chain) = self.held.as_mut().unwrap();
        let receipt = chain.receipt(allowance.number, request, &sign(self.device, request), at_ms);
        *chain = chain.after(&receipt);
        *self.cards.entry(request.card.token.clone()).or_default() += request.amount_minor();
        let approved = Approved {
            request: request.clone(),
            receipt,
        };
        self.unsynced.push(approved.clone());
        approved
    }

    pub fn statement(&self) -> AllowanceReturn {
        AllowanceReturn::new(self.allowance().number, &self.chain())
    }

    /// Syncs all in order and expects an answer to each.
    pub fn sync_all(&mut self, shop: &mut Shop) -> Vec<Receipt> {
        let unsynced = core::mem::take(&mut self.unsynced);
        let device = self.device;
        unsynced
            .iter()
            .map(|approved| shop.synced(device, approved))
            .collect()
    }

    /// Returns what is left and expects it to be taken.
    pub fn give_back(&mut self, shop: &mut Shop) {
        let ticket = shop.send_return(self.device, &self.statement());
        let number = self.allowance().number;
        assert_eq!(shop.replies.remove(&ticket), Some(Reply::Returned { number }));
        self.closed = Some(number);
        self.held = None;
    }
}

impl Shop {
    pub fn ask_allowance(&mut self, device: DeviceId, closed: Option<u64>) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Allowance {
            ticket,
            device,
            closed,
        });
        ticket
    }

    pub fn send_sync(&mut self, device: DeviceId, approved: &Approved) -> Ticket {
        let ticket = self.ticket();
        let signed_receipt = cose::sign(
            &device_key(device),
            ObjectType::DeviceReceipt,
            &cbor::encode(&approved.receipt),
        );
        self.input(Input::Sync {
            ticket,
            device,
            request: Box::new(approved.request.clone()),
            signed: sign(device, &approved.request),
            sealed_card: sealed_card(approved.request.payment_id),
            receipt: Box::new(approved.receipt.clone()),
            signed_receipt,
            recalled: None,
        });
        ticket
    }

    /// Tells of a payment that the edge has found wrong.
    pub fn send_refused(&mut self, device: DeviceId, receipt: &DeviceReceipt, code: RefusalCode) -> Ticket {
        let ticket = self.ticket();
        let signed_receipt = cose::sign(
            &device_key(device),
            ObjectType::DeviceReceipt,
            &cbor::encode(receipt),
        );
        self.input(Input::SyncRefused {
            ticket,
            device,
            receipt: Box::new(receipt.clone()),
            signed_receipt,
            refusal: Refusal::new(code, "not like this"),
        });
        ticket
    }

    pub fn synced(&mut self, device: DeviceId, approved: &Approved) -> Receipt {
        let ticket = self.send_sync(device, approved);
        match self.replies.remove(&ticket) {
            Some(Reply::Synced(receipt)) => *receipt,
            other => panic!("a receipt expected, not {other:?}"),
        }
    }

    pub fn send_return(&mut self, device: DeviceId, statement: &AllowanceReturn) -> Ticket {
        let ticket = self.ticket();
        let signed = cose::sign(
            &device_key(device),
            ObjectType::AllowanceReturn,
            &cbor::encode(statement),
        );
        self.input(Input::Return {
            ticket,
            device,
            statement: *statement,
            signed,
        });
        ticket
    }
}

pub fn shop() -> (Shop, Wallet) {
    (Shop::offline_under(&policy()), Wallet::new(MPOS))
}

/// A shop in which the mPOS holds an allowance.
pub fn given() -> (Shop, Wallet) {
    let (mut shop, mut wallet) = shop();
    wallet.ask(&mut shop).unwrap();
    (shop, wallet)
}

/// Exposure and count of device and store: real, and kept back.
pub fn at_risk(shop: &Shop) -> [(u64, u32, u64, u32); 2] {
    let state = shop.core.state();
    let device = state.device(&MPOS).unwrap();
    let (of_device, store) = (device.reserved(), state.store().reserved());
    [
        (
            device.subject.exposure_minor,
            device.subject.consecutive,
            of_device.minor,
            of_device.count,
        ),
        (
            state.store().subject.exposure_minor,
            state.store().subject.consecutive,
            store.minor,
            store.count,
        ),
    ]
}

pub fn events(shop: &Shop) -> Vec<Event> {
    shop.disk
        .iter()
        .map(|payload| cbor::decode::<Entry>(payload).unwrap().event)
        .collect()
}

pub fn kinds(shop: &Shop) -> Vec<AllowanceMisuse> {
    let kind = |event| match event {
        Event::AllowanceMisused { kind, .. } => Some(kind),
        _ => None,
    };
    events(shop).into_iter().filter_map(kind).collect()
}

pub fn at(shop: &Shop) -> u64 {
    shop.now.wall_ms
}
