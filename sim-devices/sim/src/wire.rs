//! What devices send. Signatures are checked before the core sees anything,
//! so these objects carry a signature of zeros: making real ones would take
//! most of a run's time and show nothing more. Only a supervisor's override,
//! which the core itself checks, is signed (`terms.rs`).

use std::sync::LazyLock;

use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Currency, DataKey, DeviceClass, DeviceId, Entry, EntryMode, EntrySeal,
    Funding, HubId, PaymentId, PaymentRequest, Registration, SealedCard, StoredPayload, Verification,
    VoidRequest, cbor,
};

use crate::rng::Rng;
use crate::terms::Word;

/// The store that policies are for.
pub(crate) const STORE: &str = "shop-sim";

/// The hub under test.
pub(crate) const HUB: HubId = HubId([7; 32]);

/// What the entries of all simulated stores are encrypted under. One key for
/// all: a failure is a seed.
pub(crate) static SEAL: LazyLock<EntrySeal> = LazyLock::new(|| EntrySeal::new(&DataKey::new([0x5e; 32])));

/// An entry as the simulated disk has it.
pub(crate) fn read_entry(payload: &[u8]) -> Result<Entry, String> {
    let stored = StoredPayload::decode(payload).map_err(|error| error.to_string())?;
    let opened = stored.open(Some(&SEAL)).map_err(|error| error.to_string())?;
    opened.ok_or_else(|| "encrypted".to_owned())
}

/// Where cards here come from.
pub(crate) const COUNTRIES: [&str; 3] = ["FR", "BE", "US"];

/// The first of the BINs that cards here have.
pub(crate) const FIRST_BIN: u32 = 49_701_000;

/// What a device sends to have a payment made.
#[derive(Clone, Debug)]
pub(crate) struct PayMessage {
    pub(crate) device: DeviceId,
    pub(crate) request: PaymentRequest,
    pub(crate) signed: Vec<u8>,
    pub(crate) sealed_card: SealedCard,
    /// What a supervisor has said of it.
    pub(crate) word: Option<Word>,
}

impl PayMessage {
    pub(crate) fn new(device: DeviceId, request: PaymentRequest) -> Self {
        let signed = unsigned(device.0[31], &cbor::encode(&request));
        let sealed_card = sealed_card(request.payment_id);
        Self {
            device,
            request,
            signed,
            sealed_card,
            word: None,
        }
    }

    /// After a change of the request.
    pub(crate) fn encoded_again(mut self) -> Self {
        self.signed = unsigned(self.device.0[31], &cbor::encode(&self.request));
        self
    }
}

/// The device of this number.
pub(crate) fn device_id(number: usize) -> DeviceId {
    let mut id = [0xd0; 32];
    id[31] = u8::try_from(number).unwrap_or(u8::MAX);
    DeviceId(id)
}

/// The payment of this number, in this run.
pub(crate) fn payment_id(seed: u64, number: u64) -> PaymentId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seed.to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    PaymentId(id)
}

/// What a reader would have sealed.
pub(crate) fn sealed_card(id: PaymentId) -> SealedCard {
    SealedCard {
        salt: [3; 16],
        blob: id.0.to_vec(),
    }
}

/// A payment as customers make them: most of them ordinary.
pub(crate) fn request(rng: &mut Rng, id: PaymentId, number: u64, card: u64) -> PaymentRequest {
    // A card stays what it is.
    let scheme = if card % 7 == 6 {
        CardScheme::Amex
    } else {
        CardScheme::Cb
    };
    let funding = match card % 7 {
        5 => Funding::Prepaid,
        2 | 3 => Funding::Credit,
        _ => Funding::Debit,
    };
    // But a reader tells more of it or less.
    let country = COUNTRIES.get(match card % 4 {
        0 => 2,
        2 => 1,
        _ => 0,
    });
    let issuer_country = country
        .filter(|_| !rng.chance(150))
        .map(|country| (*country).to_owned());
    let whole = (u64::from(FIRST_BIN) + 100 * (card % 3) + card).to_string();
    let digits = match rng.below(10) {
        0 => 0,
        1..=3 => 6,
        4 => 7,
        _ => 8,
    };
    let bin = whole
        .get(..digits)
        .filter(|told| !told.is_empty())
        .map(str::to_owned);
    PaymentRequest {
        payment_id: id,
        device_sequence: number,
        // Drawn by whoever knows the limits.
        amount: 1.into(),
        currency: match rng.below(40) {
            0 => "USD".parse().unwrap_or(Currency::EUR),
            _ => Currency::EUR,
        },
        order_id: format!("order-{number}"),
        card: CardFacts {
            token: format!("card-{card}"),
            scheme,
            funding,
            issuer_country,
            bin,
            last4: None,
        },
        entry_mode: match rng.below(30) {
            0 => EntryMode::MagneticStripe,
            1 => EntryMode::Keyed,
            2..=12 => EntryMode::Chip,
            _ => EntryMode::Contactless,
        },
        verification: match rng.below(20) {
            0 => Verification::OnlinePin,
            1..=4 => Verification::None,
            5..=7 => Verification::Signature,
            8..=11 => Verification::OfflinePin,
            _ => Verification::Cdcvm,
        },
        cryptogram: match rng.below(20) {
            0 => Cryptogram::Refused,
            1..=4 => Cryptogram::CardApproved,
            _ => Cryptogram::AsksOnline,
        },
        sealed_card_digest: sealed_card(id).digest(),
        device_time_ms: 0,
        terms: None,
    }
}

/// A request to void a payment, as signed.
pub(crate) fn void(id: PaymentId) -> (VoidRequest, Vec<u8>) {
    let request = VoidRequest {
        payment_id: id,
        device_sequence: 1,
        device_time_ms: 0,
    };
    let signed = unsigned(0, &cbor::encode(&request));
    (request, signed)
}

/// An enrolled device.
pub(crate) fn registration(device: DeviceId, class: DeviceClass) -> Registration {
    Registration {
        device,
        signing_key: device.0,
        class,
        name: "Caisse".to_owned(),
        model: "sim".to_owned(),
        hub: HUB,
        hub_signing_key: [8; 32],
        enrolled_ms: 0,
    }
}

/// A COSE_Sign1 object in the protocol's form, with a signature of zeros.
pub(crate) fn unsigned(signer: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 100);
    // 18([h'{1: -19, 4: kid}', {}, payload, signature])
    out.extend([0xd2, 0x84, 0x55, 0xa2, 0x01, 0x32, 0x04, 0x50]);
    out.extend([signer; 16]);
    out.push(0xa0);
    match payload.len() {
        short @ 0..=23 => out.push(0x40 | u8::try_from(short).unwrap_or_default()),
        byte @ 24..=0xff => out.extend([0x58, u8::try_from(byte).unwrap_or_default()]),
        long => {
            out.push(0x59);
            out.extend(u16::try_from(long).unwrap_or_default().to_be_bytes());
        }
    }
    out.extend(payload);
    out.extend([0x58, 0x40]);
    out.extend([0; 64]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_protocol::cose::Unverified;

    #[test]
    fn objects_without_signatures_have_the_protocols_form() {
        for length in [0, 1, 23, 24, 255, 256, 3000] {
            let payload = vec![0x5a; length];
            let signed = unsigned(3, &payload);
            let object = Unverified::parse(&signed).unwrap();
            assert_eq!(object.payload_unverified(), payload);
        }
    }
}
