//! Which cards lie where in a vault file, in little memory: 12 bytes a card
//! in a full file, so that a million cards that wait take 12 MB.
//!
//! A full file's list does not hold the ids but a piece of their hash; the id
//! stands at the start of the body, and whoever looks one up reads it there.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::os::unix::fs::FileExt;

use hub_protocol::PaymentId;

use super::vault_file::ID_LEN;

/// Where a body lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// The hash that tells ids apart. Its key is the process's own: nobody can
/// choose ids that look alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prints(RandomState);

impl Prints {
    pub(crate) fn of(&self, id: PaymentId) -> u32 {
        // Any half of it is as good.
        self.0.hash_one(id) as u32
    }
}

/// A card of a full file. Without length, it has gone.
#[derive(Clone, Copy, Debug)]
struct Slot {
    print: u32,
    span: Span,
}

/// The cards of one file.
#[derive(Debug)]
pub(crate) enum Cards {
    /// Of the file that is written to.
    Present(HashMap<PaymentId, Span>),
    /// Of a full one.
    Full(Listed),
}

/// Ascending by the prints.
#[derive(Debug)]
pub(crate) struct Listed(Vec<Slot>);

impl Default for Cards {
    fn default() -> Self {
        Self::Present(HashMap::new())
    }
}

impl Cards {
    /// Where this payment's card lies.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn find(&self, prints: &Prints, file: &File, id: PaymentId) -> std::io::Result<Option<Span>> {
        match self {
            Self::Present(cards) => Ok(cards.get(&id).copied()),
            Self::Full(listed) => {
                for slot in listed.alike(prints.of(id)) {
                    if id_at(file, slot.span)? == id {
                        return Ok(Some(slot.span));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The card is the newest of its payment in this file.
    pub(crate) fn insert(&mut self, prints: &Prints, id: PaymentId, span: Span) -> Option<Span> {
        match self {
            Self::Present(cards) => cards.insert(id, span),
            Self::Full(listed) => {
                let print = prints.of(id);
                let at = listed.first_of(print);
                listed.0.insert(at, Slot { print, span });
                None
            }
        }
    }

    /// The card of this payment is no longer there.
    pub(crate) fn remove(&mut self, prints: &Prints, id: PaymentId, span: Span) {
        match self {
            Self::Present(cards) => {
                if cards.get(&id) == Some(&span) {
                    cards.remove(&id);
                }
            }
            Self::Full(listed) => {
                let print = prints.of(id);
                let from = listed.first_of(print);
                let alike = listed
                    .0
                    .iter_mut()
                    .skip(from)
                    .take_while(|slot| slot.print == print);
                for slot in alike.filter(|slot| slot.span == span) {
                    slot.span.len = 0;
                }
            }
        }
    }

    /// Those of a full file, each of another payment.
    pub(crate) fn full(prints: &Prints, cards: impl Iterator<Item = (PaymentId, Span)>) -> Self {
        let slots = cards.map(|(id, span)| Slot {
            print: prints.of(id),
            span,
        });
        let mut slots: Vec<Slot> = slots.collect();
        slots.sort_unstable_by_key(|slot| slot.print);
        Self::Full(Listed(slots))
    }

    /// Nothing more is written to the file.
    pub(crate) fn fill(&mut self, prints: &Prints) {
        if let Self::Present(cards) = self {
            *self = Self::full(prints, cards.iter().map(|(id, span)| (*id, *span)));
        }
    }

    /// All cards that are there, in no order.
    pub(crate) fn spans(&self) -> Vec<Span> {
        match self {
            Self::Present(cards) => cards.values().copied().collect(),
            Self::Full(listed) => listed.there().map(|slot| slot.span).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Present(cards) => cards.len(),
            Self::Full(listed) => listed.there().count(),
        }
    }
}

impl Listed {
    fn there(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().filter(|slot| slot.span.len > 0)
    }

    /// Where the first slot with this print stands, or would. Prints are spread
    /// evenly, so that it is near where its size says.
    fn first_of(&self, print: u32) -> usize {
        let all = self.0.as_slice();
        let guess = usize::try_from((u64::from(print) * all.len() as u64) >> 32).unwrap_or(0);
        let mut reach = 64;
        let mut low = guess.saturating_sub(reach);
        while low > 0 && all[low - 1].print >= print {
            reach *= 4;
            low = guess.saturating_sub(reach);
        }
        let mut high = (guess + reach).min(all.len());
        while high < all.len() && all[high].print < print {
            reach *= 4;
            high = (guess + reach).min(all.len());
        }
        low + all[low..high].partition_point(|slot| slot.print < print)
    }

    fn alike(&self, print: u32) -> impl Iterator<Item = &Slot> {
        let from = self.first_of(print);
        let alike = self
            .0
            .iter()
            .skip(from)
            .take_while(move |slot| slot.print == print);
        alike.filter(|slot| slot.span.len > 0)
    }
}

/// The id that a body begins with.
pub(crate) fn id_at(file: &File, span: Span) -> std::io::Result<PaymentId> {
    let mut id = [0; ID_LEN];
    // A damaged body may be shorter; what is missing counts as zero, as it
    // does when the file is walked.
    let len = ID_LEN.min(span.len as usize);
    if len == ID_LEN {
        file.read_exact_at(&mut id, u64::from(span.offset))?;
    }
    Ok(PaymentId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> PaymentId {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        PaymentId(id)
    }

    #[test]
    fn a_full_file_tells_all_its_cards_and_none_that_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        let bytes: Vec<u8> = (0..5000).flat_map(|n| id(n).0).collect();
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        let span = |n: u32| Span {
            offset: n * 16,
            len: 16,
        };
        let prints = Prints::default();
        let mut cards = Cards::default();
        for n in 0..5000 {
            cards.insert(&prints, id(n), span(n));
        }
        cards.fill(&prints);
        assert_eq!(cards.len(), 5000);
        for n in (0..5000).step_by(3) {
            cards.remove(&prints, id(n), span(n));
        }
        for n in 0..5000 {
            let wanted = (n % 3 != 0).then(|| span(n));
            assert_eq!(cards.find(&prints, &file, id(n)).unwrap(), wanted);
        }
        assert_eq!(cards.find(&prints, &file, id(5001)).unwrap(), None);
        assert_eq!((cards.len(), cards.spans().len()), (3333, 3333));
    }
}
