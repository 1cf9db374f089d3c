//! `Seq`: the view of a vector, indexable whether it was chained or crossed an exchange.

use std::fmt;

use crate::Record;

/// A `Copy`, indexable sequence of views: what a `Vec<T>` field looks like in a record's view.
pub struct Seq<'a, T: Record>(Repr<'a, T>);

enum Repr<'a, T: Record> {
    Owned(&'a [T]),
    Archived(&'a [T::Archived]),
}

impl<T: Record> Clone for Repr<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Record> Copy for Repr<'_, T> {}
impl<T: Record> Clone for Seq<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Record> Copy for Seq<'_, T> {}

impl<'a, T: Record> Seq<'a, T> {
    /// A sequence over owned values.
    #[inline(always)]
    pub const fn from_slice(values: &'a [T]) -> Self {
        Self(Repr::Owned(values))
    }

    /// A sequence over archived values.
    #[inline(always)]
    pub const fn from_archived(values: &'a [T::Archived]) -> Self {
        Self(Repr::Archived(values))
    }

    /// How many elements there are.
    #[inline(always)]
    pub const fn len(self) -> usize {
        match self.0 {
            Repr::Owned(values) => values.len(),
            Repr::Archived(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The view of element `index`, or `None` past the end.
    #[inline(always)]
    pub fn get(self, index: usize) -> Option<T::View<'a>> {
        match self.0 {
            Repr::Owned(values) => values.get(index).map(T::view),
            Repr::Archived(values) => values.get(index).map(T::view_archived),
        }
    }

    /// The views in order.
    #[inline(always)]
    pub fn iter(self) -> Iter<'a, T> {
        Iter { seq: self, next: 0, end: self.len() }
    }
}

impl<'a> Seq<'a, u8> {
    /// The elements of a byte vector as one slice, without a copy.
    #[inline(always)]
    pub const fn as_bytes(self) -> &'a [u8] {
        match self.0 {
            Repr::Owned(values) | Repr::Archived(values) => values,
        }
    }
}

impl<'a, T: Record> IntoIterator for Seq<'a, T> {
    type Item = T::View<'a>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Record> fmt::Debug for Seq<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Record> PartialEq for Seq<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other.iter()).all(|(a, b)| T::eq_view(a, b))
    }
}

/// The views of a [`Seq`] in order.
pub struct Iter<'a, T: Record> {
    seq: Seq<'a, T>,
    next: usize,
    end: usize,
}

impl<T: Record> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, T: Record> Iterator for Iter<'a, T> {
    type Item = T::View<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<T::View<'a>> {
        let view = self.seq.get(self.next)?;
        self.next += 1;
        Some(view)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl<T: Record> ExactSizeIterator for Iter<'_, T> {}
