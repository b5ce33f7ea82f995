//! The cards in memory.

use std::collections::HashMap;

use super::Card;
use crate::record::CardKey;

/// Cards in one piece of memory: 7.5 KiB.
const PIECE: usize = 64;

/// Cards by their keys, side by side in pieces: a piece of memory for each
/// card would take 8 bytes more, and leave holes that nothing else fits in.
/// Room that cards leave is kept for those that come.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Cards {
    /// Where each lies: its number counted through all pieces.
    places: HashMap<CardKey, u32>,
    /// Full, but for the last.
    pieces: Vec<Vec<Card>>,
    /// Left by cards.
    free: Vec<u32>,
}

impl Cards {
    pub(in crate::state) fn get(&self, key: &CardKey) -> Option<&Card> {
        let (piece, at) = split(*self.places.get(key)?);
        self.pieces.get(piece)?.get(at)
    }

    pub(super) fn get_mut(&mut self, key: &CardKey) -> Option<&mut Card> {
        let (piece, at) = split(*self.places.get(key)?);
        self.pieces.get_mut(piece)?.get_mut(at)
    }

    pub(super) fn contains_key(&self, key: &CardKey) -> bool {
        self.places.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &CardKey> {
        self.places.keys()
    }

    /// The card of this key; a blank one is laid down, and `added` called, if
    /// there is none.
    pub(super) fn get_or_add(&mut self, key: CardKey, added: impl FnOnce()) -> &mut Card {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => {
                added();
                let place = self.free.pop().unwrap_or_else(|| self.at_the_end());
                self.places.insert(key, place);
                place
            }
        };
        let (piece, at) = split(place);
        &mut self.pieces[piece][at]
    }

    /// A place in which no card ever lay.
    fn at_the_end(&mut self) -> u32 {
        if self.pieces.last().is_none_or(|last| last.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let pieces = self.pieces.len();
        let last = &mut self.pieces[pieces - 1];
        last.push(Card::default());
        // Four milliards of cards are more than any memory holds.
        ((pieces - 1) * PIECE + last.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, key: &CardKey) {
        if let Some(card) = self.get_mut(key) {
            // What it holds elsewhere goes at once.
            *card = Card::default();
        }
        self.free.extend(self.places.remove(key));
    }
}

fn split(place: u32) -> (usize, usize) {
    (place as usize / PIECE, place as usize % PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn card(latest: u64) -> Card {
        Card {
            latest,
            ..Card::default()
        }
    }

    #[test]
    fn a_card_is_found_as_it_was_laid_down_until_it_is_removed() {
        let mut cards = Cards::default();
        let mut wanted = HashMap::new();
        let mut random = Random::new(1);
        for step in 0..20_000 {
            let key = CardKey(u128::from(random.up_to(499)).to_be_bytes());
            match random.up_to(2) {
                0 => {
                    cards.remove(&key);
                    wanted.remove(&key);
                }
                _ => {
                    *cards.get_or_add(key, || ()) = card(step);
                    wanted.insert(key, step);
                }
            }
            assert_eq!(cards.len(), wanted.len());
            assert_eq!(cards.get(&key).map(|card| card.latest), wanted.get(&key).copied());
        }
        for (key, step) in &wanted {
            assert!(cards.contains_key(key));
            assert_eq!(cards.get_mut(key).map(|card| card.latest), Some(*step));
        }
        assert_eq!(
            cards.keys().filter(|key| wanted.contains_key(key)).count(),
            wanted.len()
        );
        assert_eq!(cards.get(&CardKey([255; 16])).map(|card| card.latest), None);
        wanted.keys().for_each(|key| cards.remove(key));
        assert!(cards.is_empty());
        // No more room was taken than there were keys at once.
        assert!(cards.pieces.len() <= 500_usize.div_ceil(PIECE));
    }
}
