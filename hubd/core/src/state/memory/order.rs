//! Cards in the order of their coming into memory.

use std::collections::VecDeque;

use crate::record::CardKey;

/// Keys in one piece: with its head less than a page.
const PIECE: usize = 252;

/// First in, first out. In pieces: one list that doubles when it is full has
/// room for up to twice its keys, and leaves its smaller self behind.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Order {
    /// Full ones, but for the first and the last; none is empty.
    pieces: VecDeque<VecDeque<CardKey>>,
    len: usize,
}

impl Order {
    /// How many keys.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_back(&mut self, key: CardKey) {
        self.len += 1;
        match self.pieces.back_mut() {
            Some(last) if last.len() < PIECE => last.push_back(key),
            _ => {
                let mut piece = VecDeque::with_capacity(PIECE);
                piece.push_back(key);
                self.pieces.push_back(piece);
            }
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<CardKey> {
        let first = self.pieces.front_mut()?;
        let key = first.pop_front()?;
        if first.is_empty() {
            self.pieces.pop_front();
        }
        self.len -= 1;
        Some(key)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl FromIterator<CardKey> for Order {
    fn from_iter<I: IntoIterator<Item = CardKey>>(keys: I) -> Self {
        let mut order = Self::default();
        keys.into_iter().for_each(|key| order.push_back(key));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> CardKey {
        CardKey((number as u128).to_be_bytes())
    }

    #[test]
    fn who_came_first_leaves_first_across_pieces() {
        let mut order: Order = (0..PIECE * 3 + 1).map(key).collect();
        assert_eq!(order.len(), PIECE * 3 + 1);
        for number in 0..PIECE * 2 {
            assert_eq!(order.pop_front(), Some(key(number)));
            order.push_back(key(number));
        }
        assert_eq!(order.len(), PIECE * 3 + 1);
        let rest: Vec<_> = std::iter::from_fn(|| order.pop_front()).collect();
        let wanted: Vec<_> = (PIECE * 2..PIECE * 3 + 1).chain(0..PIECE * 2).map(key).collect();
        assert_eq!(rest, wanted);
        assert!(order.len() == 0 && order.pieces.is_empty() && order.pop_front().is_none());
    }
}
