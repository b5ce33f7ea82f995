//! A list that mostly holds nothing or one: that one lies in it, and needs no
//! memory of its own.

use core::ops::{Deref, DerefMut};

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

/// A list of a few, most often of one. Encoded as any list.
#[derive(Clone, Debug)]
pub struct Few<T>(Held<T>);

#[derive(Clone, Debug)]
enum Held<T> {
    None,
    One(T),
    // In a box, so that a list is as small as one and a word.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<T>>),
}

impl<T> Few<T> {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Held::None)
    }

    /// Appends.
    pub fn push(&mut self, one: T) {
        self.insert(self.len(), one);
    }

    /// Inserts before the place `at`, or at the end if there are fewer.
    pub fn insert(&mut self, at: usize, one: T) {
        self.0 = match core::mem::replace(&mut self.0, Held::None) {
            Held::None => Held::One(one),
            Held::One(other) => Held::Many(Box::new(match at {
                0 => vec![one, other],
                _ => vec![other, one],
            })),
            Held::Many(mut all) => {
                all.insert(at.min(all.len()), one);
                Held::Many(all)
            }
        };
    }

    /// Takes the last.
    pub fn pop(&mut self) -> Option<T> {
        self.remove(self.len().checked_sub(1)?)
    }

    /// Takes the one at this place.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        if at >= self.len() {
            return None;
        }
        match core::mem::replace(&mut self.0, Held::None) {
            Held::None => None,
            Held::One(one) => Some(one),
            Held::Many(mut all) => {
                let one = all.remove(at);
                self.0 = Held::of(all);
                Some(one)
            }
        }
    }

    /// Keeps what is wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        self.0 = match core::mem::replace(&mut self.0, Held::None) {
            Held::One(one) if wanted(&one) => Held::One(one),
            Held::None | Held::One(_) => Held::None,
            Held::Many(mut all) => {
                all.retain(wanted);
                Held::of(all)
            }
        };
    }

    /// Drops the first ones until no more than `most` are left.
    pub fn keep_last(&mut self, most: usize) {
        let mut beyond = self.len().saturating_sub(most);
        if beyond > 0 {
            self.retain(|_| {
                let keep = beyond == 0;
                beyond = beyond.saturating_sub(1);
                keep
            });
        }
    }
}

impl<T> Held<T> {
    #[allow(clippy::box_collection)]
    fn of(mut all: Box<Vec<T>>) -> Self {
        match all.len() {
            0 => Self::None,
            1 => all.pop().map_or(Self::None, Self::One),
            _ => Self::Many(all),
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(all: Vec<T>) -> Self {
        Self(Held::of(Box::new(all)))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        all.into_iter().collect::<Vec<T>>().into()
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Held::None => &[],
            Held::One(one) => core::slice::from_ref(one),
            Held::Many(all) => all,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Held::None => &mut [],
            Held::One(one) => core::slice::from_mut(one),
            Held::Many(all) => all,
        }
    }
}

impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Few<T> {}

impl<C, T: Encode<C>> Encode<C> for Few<T> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.len() as u64)?;
        for one in self.iter() {
            one.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C, T: Decode<'b, C>> Decode<'b, C> for Few<T> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        Vec::decode(d, ctx).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_what_a_vector_does_and_is_encoded_as_one() {
        let mut draw = 7_u64;
        let (mut few, mut all) = (Few::new(), Vec::new());
        for _ in 0..10_000 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (what, number, at) = (draw >> 61, draw >> 50 & 15, (draw >> 40 & 3) as usize);
            match what {
                0 | 1 => {
                    few.push(number);
                    all.push(number);
                }
                2 => {
                    few.insert(at, number);
                    all.insert(at.min(all.len()), number);
                }
                3 => assert_eq!(few.pop(), all.pop()),
                4 => assert_eq!(few.remove(at), (at < all.len()).then(|| all.remove(at))),
                5 => {
                    few.retain(|n| n % 3 > 0);
                    all.retain(|n| n % 3 > 0);
                }
                6 => {
                    few.keep_last(at);
                    all.drain(..all.len().saturating_sub(at));
                }
                _ => {
                    few.iter_mut().for_each(|n| *n += 1);
                    all.iter_mut().for_each(|n| *n += 1);
                }
            }
            assert_eq!(*few, *all);
            assert_eq!(few, Few::from_iter(all.clone()));
            let encoded = minicbor::to_vec(&few).unwrap();
            assert_eq!(encoded, minicbor::to_vec(&all).unwrap());
            assert_eq!(minicbor::decode::<Few<u64>>(&encoded).unwrap(), few);
        }
    }

    #[test]
    fn one_takes_no_more_than_a_word_beside_it() {
        assert_eq!(size_of::<Few<u64>>(), 16);
    }
}
