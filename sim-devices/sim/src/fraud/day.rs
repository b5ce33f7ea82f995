//! An honest shop day: devices, customers, and what goes wrong without
//! anybody meaning harm. What no data set says is assumed, and named here.

use hub_protocol::{Cryptogram, DeviceClass, EntryMode, Terms};
use jiff::civil::{Date, DateTime, date};

use super::refunds::Refunds;
use crate::generate;
use crate::rng::Rng;
use crate::sale::{self, Gesture, Sale};

/// The day that is played: inside the sample policies' period, and a month
/// old for them.
const DAY: Date = date(2026, 1, 31);

/// Midnight of it, milliseconds since 1970 UTC.
pub(super) const MIDNIGHT_MS: u64 = 1_769_817_600_000;

/// 07:00, before the first customer.
pub(super) const OPENING_MS: u64 = MIDNIGHT_MS + 7 * HOUR_MS;

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// A payment device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) class: DeviceClass,
    /// The number that its next request gets.
    pub(super) counter: u64,
    /// How far its clock is ahead.
    pub(super) clock_ms: i64,
}

/// A customer at a device.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) at_ms: u64,
    pub(super) device: usize,
    pub(super) amount: u64,
    pub(super) card: hub_protocol::CardFacts,
    pub(super) gesture: Gesture,
    /// How often this customer has tried before.
    pub(super) tries: u8,
    /// For a refund: what the till says of it.
    pub(super) refund: Option<Box<Terms>>,
}

/// What happens to a device's counter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mishap {
    /// It was restored from a backup: the numbers since then come again.
    Restored { back: u64 },
    /// Requests that the hub never got.
    LeftOut { numbers: u64 },
}

/// A shop, and what its day brings.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    pub(super) devices: Vec<Device>,
    pub(super) visits: Vec<Visit>,
    /// When, at which device, what.
    pub(super) mishaps: Vec<(u64, usize, Mishap)>,
    pub(super) refunds: Refunds,
    pub(super) outage_from_ms: u64,
    pub(super) outage_to_ms: u64,
}

/// The day of this seed: from 60 to 180 sales by card, an outage of two to
/// four hours in it.
pub(super) fn shop(seed: u64) -> Shop {
    let mut rng = Rng::of(seed, "shop");
    let devices = devices(&mut rng);
    let sales = generate::day(seed, 60 + below(&mut rng, 121), DAY);
    let outage_from_ms = MIDNIGHT_MS + 9 * HOUR_MS + rng.below(6 * 60) * MINUTE_MS;
    let outage_to_ms = outage_from_ms + (120 + rng.below(121)) * MINUTE_MS;
    let mishaps = mishaps(&mut rng, devices.len());
    let mut visits = visits(&mut rng, seed, &devices, sales);
    // Draws of their own, so that sales are as they would be without.
    let mut rng = Rng::of(seed, "honest refunds");
    let refunds = Refunds::draw(&mut rng, &devices);
    visits.extend(refunds.visits(&mut rng, seed, &devices, &visits));
    visits.sort_by_key(|visit| visit.at_ms);
    visits.retain(|visit| visit.at_ms < outage_to_ms);
    Shop {
        devices,
        visits,
        mishaps,
        refunds,
        outage_from_ms,
        outage_to_ms,
    }
}

/// Three to eight. The first takes inserted cards, as a shop needs one that
/// does.
fn devices(rng: &mut Rng) -> Vec<Device> {
    let count = 3 + rng.below(6);
    (0..count)
        .map(|place| Device {
            class: match rng.weighted(&[450, 300, 250]) {
                1 => DeviceClass::Terminal,
                2 if place > 0 => DeviceClass::Softpos,
                _ => DeviceClass::Mpos,
            },
            counter: 1_000 + rng.below(50_000),
            clock_ms: clock(rng),
        })
        .collect()
}

/// Most clocks are right; a few drift, very few were never set or stand in
/// another time zone.
fn clock(rng: &mut Rng) -> i64 {
    let off = match rng.weighted(&[940, 40, 15, 5]) {
        0 => rng.below(MINUTE_MS),
        1 => MINUTE_MS + rng.below(3 * MINUTE_MS),
        2 => 5 * MINUTE_MS + rng.below(35 * MINUTE_MS),
        _ => HOUR_MS,
    };
    let off = i64::try_from(off).unwrap_or(0);
    if rng.chance(500) { off } else { -off }
}

/// One device in a hundred is restored on a day; three leave out some numbers,
/// one leaves out many.
fn mishaps(rng: &mut Rng, devices: usize) -> Vec<(u64, usize, Mishap)> {
    let mut all = Vec::new();
    for device in 0..devices {
        let at_ms = OPENING_MS + rng.below(10 * HOUR_MS);
        let what = match rng.weighted(&[950, 10, 30, 10]) {
            1 => Mishap::Restored {
                back: 1 + rng.below(400),
            },
            2 => Mishap::LeftOut {
                numbers: 2 + rng.below(58),
            },
            3 => Mishap::LeftOut {
                numbers: 60 + rng.below(540),
            },
            _ => continue,
        };
        all.push((at_ms, device, what));
    }
    all
}

/// Each customer goes to a device that is free, or waits in line.
fn visits(rng: &mut Rng, seed: u64, devices: &[Device], sales: Vec<Sale>) -> Vec<Visit> {
    let prices = Prices::draw(rng);
    let dirty = dirty_reader(rng, devices.len());
    let mut free_ms = vec![0; devices.len()];
    let mut visits = Vec::with_capacity(sales.len());
    for sale in sales {
        let arrived_ms = ms(sale.at);
        let (amount, mut gesture) = match prices.of_one(rng) {
            Some(price) => (price, sale::gesture(rng, price)),
            None => (sale.amount_minor, sale.gesture),
        };
        let fit: Vec<usize> = (0..devices.len())
            .filter(|place| takes(devices, *place, gesture))
            .collect();
        let free: Vec<usize> = fit
            .iter()
            .copied()
            .filter(|place| free_ms[*place] <= arrived_ms)
            .collect();
        let first_free = fit.iter().copied().min_by_key(|place| free_ms[*place]);
        let Some(device) = some_of(rng, &free).or(first_free) else {
            continue;
        };
        let service_ms = u64::try_from(sale.service.as_millis()).unwrap_or(0);
        let at_ms = arrived_ms.max(free_ms[device]) + service_ms;
        free_ms[device] = at_ms + 15_000;
        let is_dirty = dirty.is_some_and(|(place, from_ms)| {
            place == device && (from_ms..from_ms + 10 * MINUTE_MS).contains(&at_ms)
        });
        if is_dirty && gesture.entry_mode == EntryMode::Chip && rng.chance(700) {
            gesture.cryptogram = Cryptogram::Refused;
        }
        visits.push(Visit {
            at_ms,
            device,
            amount,
            card: sale::card(seed, sale.card.token),
            gesture,
            tries: 0,
            refund: None,
        });
    }
    visits
}

/// In one shop in ten a reader's contacts are dirty for ten minutes, and most
/// inserted cards refuse.
fn dirty_reader(rng: &mut Rng, devices: usize) -> Option<(usize, u64)> {
    let (device, from_ms) = (below(rng, devices), OPENING_MS + rng.below(10 * HOUR_MS));
    rng.chance(100).then_some((device, from_ms))
}

/// Prices that many pay: the menu, the bunch of flowers. One shop in seven
/// sells hardly anything else.
struct Prices {
    common: Vec<u64>,
    permille: u64,
}

impl Prices {
    fn draw(rng: &mut Rng) -> Self {
        let one_price = rng.chance(143);
        let common = (0..if one_price { 2 } else { 3 })
            .map(|_| 800 + 50 * rng.below(75))
            .collect();
        let permille = if one_price { 600 } else { 100 };
        Self { common, permille }
    }

    fn of_one(&self, rng: &mut Rng) -> Option<u64> {
        let place = below(rng, self.common.len());
        let paid = rng.chance(self.permille);
        self.common.get(place).copied().filter(|_| paid)
    }
}

/// A phone alone has no slot.
pub(super) fn takes(devices: &[Device], place: usize, gesture: Gesture) -> bool {
    let slot = devices
        .get(place)
        .is_some_and(|device| device.class != DeviceClass::Softpos);
    slot || gesture.entry_mode == EntryMode::Contactless
}

pub(super) fn some_of(rng: &mut Rng, places: &[usize]) -> Option<usize> {
    places.get(below(rng, places.len())).copied()
}

pub(super) fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or(0)
}

fn ms(at: DateTime) -> u64 {
    let [hour, minute, second] =
        [at.hour(), at.minute(), at.second()].map(|part| u64::try_from(part).unwrap_or(0));
    MIDNIGHT_MS + (hour * 3600 + minute * 60 + second) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnight_is_that_of_the_day() {
        let zoned = DAY.to_zoned(jiff::tz::TimeZone::UTC).unwrap();
        assert_eq!(
            u64::try_from(zoned.timestamp().as_millisecond()).unwrap(),
            MIDNIGHT_MS
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_shop_and_another_another() {
        let text = |seed| format!("{:?}", shop(seed));
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }

    #[test]
    fn no_device_serves_two_customers_at_once_and_none_inserts_into_a_phone() {
        for seed in 1..50 {
            let shop = shop(seed);
            for (place, device) in shop.devices.iter().enumerate() {
                let here: Vec<&Visit> = shop.visits.iter().filter(|v| v.device == place).collect();
                assert!(here.windows(2).all(|w| w[0].at_ms < w[1].at_ms));
                assert!(
                    device.class != DeviceClass::Softpos
                        || here
                            .iter()
                            .all(|v| v.gesture.entry_mode == EntryMode::Contactless)
                );
            }
        }
    }
}
