//! `Record`: what flows through a job, and the one view a user's function sees of it.
//!
//! A record exists in three shapes: the owned Rust value, its archived bytes (rkyv), and a `Copy` *view* with native
//! fields made from either. Everything the engine writes is written from the view, so a record that is passed on
//! unchanged, or built from borrowed fields, allocates nothing. Unsafe code here writes archived values in place.

use std::{fmt::Debug, mem::MaybeUninit};

use rkyv::{
    Archive, Place, Portable, Serialize,
    api::high::HighValidator,
    bytecheck::CheckBytes,
    option::ArchivedOption,
    rancor::{Failure, Fallible, Source, Strategy},
    ser::{
        Allocator, Positional, Serializer, Writer, WriterExt,
        allocator::{Arena, ArenaHandle},
        writer::Buffer,
    },
    string::{ArchivedString, StringResolver},
    vec::{ArchivedVec, VecResolver},
};

use crate::{KeyHash, KeyHasher, Seq};

/// A type that can flow through a job, be a key, or be kept in state. Derive it with `#[derive(Record)]`.
///
/// Implemented for integers up to 128 bits, floats, `bool`, `char`, `()`, `String`, `Option`, `Vec` and tuples of up to
/// eight records.
///
/// # Safety
/// The engine reads bytes of its own making unchecked, so an implementation must keep these promises:
/// `resolve_view` writes a valid `Archived`; with `FIXED`, `serialize_view` writes nothing and the archived value
/// refers to no bytes outside itself; `ALIGN` is at least the alignment of every archived value it may write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    label = "not a `Record`: derive it with `#[derive(Record)]`, or use integers, floats, bool, char, String, Option, Vec or tuples of records"
)]
pub unsafe trait Record: Sized + Send + 'static {
    /// What user functions see: native fields, borrowed strings, [`Seq`] for vectors.
    type View<'a>: Copy + Debug;
    /// The archived form.
    type Archived: Portable + for<'a> CheckBytes<HighValidator<'a, Failure>> + 'static;
    /// What `resolve_view` needs to know of the bytes that `serialize_view` wrote.
    type Resolver;
    /// Whether the archived value is all there is (no bytes out of line).
    const FIXED: bool;
    /// The alignment its bytes need as a whole.
    const ALIGN: usize;

    /// The view of an owned value.
    fn view(&self) -> Self::View<'_>;
    /// The view of archived bytes.
    fn view_archived(archived: &Self::Archived) -> Self::View<'_>;
    /// An owned value from a view. Allocates where the type owns memory.
    fn from_view(view: Self::View<'_>) -> Self;
    /// The same view for a shorter time. (The compiler cannot shorten an associated type by itself.)
    fn shorten<'s, 'l: 's>(view: Self::View<'l>) -> Self::View<'s>;
    /// Writes what lies out of line.
    ///
    /// # Errors
    /// Those of the writer: it is full.
    fn serialize_view<S>(view: Self::View<'_>, serializer: &mut S) -> Result<Self::Resolver, S::Error>
    where
        S: Fallible + Writer + Allocator + ?Sized,
        S::Error: Source;
    /// Writes the archived value itself.
    fn resolve_view(view: Self::View<'_>, resolver: Self::Resolver, out: Place<Self::Archived>);
    /// Mixes the value into a key hash.
    fn hash_view(view: Self::View<'_>, hasher: &mut KeyHasher);
    /// Whether two values are the same key. Floats compare by their bits, so that every value equals itself.
    fn eq_view(a: Self::View<'_>, b: Self::View<'_>) -> bool;
}

/// A record on its way through a chain: its view, its timestamp, and its encoded bytes where it has them.
pub struct Elem<'a, T: Record> {
    /// The record.
    pub view: T::View<'a>,
    /// Event time in milliseconds, [`MIN_WATERMARK`](crate::time::MIN_WATERMARK) if it has none.
    pub timestamp: i64,
    /// The encoded payload if this very record came from a buffer; empty otherwise. Never of another record.
    pub raw: &'a [u8],
}

impl<T: Record> Clone for Elem<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Record> Copy for Elem<'_, T> {}

impl<'a, T: Record> Elem<'a, T> {
    /// A record made here, with no bytes yet.
    #[inline(always)]
    pub const fn new(view: T::View<'a>, timestamp: i64) -> Self {
        Self { view, timestamp, raw: &[] }
    }
}

/// The routing hash of a key.
#[inline(always)]
pub fn key_hash<K: Record>(key: K::View<'_>) -> KeyHash {
    let mut hasher = KeyHasher::new();
    K::hash_view(key, &mut hasher);
    hasher.finish()
}

/// Memory that encoding nested vectors needs for a moment; keep one per writer.
#[derive(Default)]
pub struct EncodeScratch(Arena);

type Encoder<'a> = Strategy<Serializer<Buffer<'a>, ArenaHandle<'a>, ()>, Failure>;

/// Encodes a record at the start of `out`, which must be aligned to `T::ALIGN`. Answers the length in bytes; the
/// archived root is at the end of them. `None` if it does not fit.
///
/// # Panics
/// Where `out` is not aligned.
#[inline(always)]
pub fn encode<T: Record>(view: T::View<'_>, out: &mut [MaybeUninit<u8>], scratch: &mut EncodeScratch) -> Option<usize> {
    debug_assert_eq!(out.as_ptr() as usize % T::ALIGN, 0);
    if T::FIXED {
        let size = size_of::<T::Archived>();
        if out.len() < size {
            return None;
        }
        let mut none = NoWriter;
        let resolver = T::serialize_view(view, Strategy::<_, Failure>::wrap(&mut none)).ok()?;
        let root = out.as_mut_ptr().cast::<T::Archived>();
        // SAFETY: `out` holds `size` bytes and is aligned to `T::ALIGN`, at least that of `T::Archived`; the bytes are
        // zeroed first so that padding is initialised, and `resolve_view` then writes the value.
        unsafe {
            root.write_bytes(0, 1);
            T::resolve_view(view, resolver, Place::new_unchecked(0, root));
        }
        return Some(size);
    }
    encode_variable::<T>(view, out, scratch)
}

#[inline]
fn encode_variable<T: Record>(
    view: T::View<'_>,
    out: &mut [MaybeUninit<u8>],
    scratch: &mut EncodeScratch,
) -> Option<usize> {
    let mut serializer = Serializer::new(Buffer::from(out), scratch.0.acquire(), ());
    let encoder: &mut Encoder<'_> = Strategy::wrap(&mut serializer);
    let resolver = T::serialize_view(view, encoder).ok()?;
    encoder.align_for::<T::Archived>().ok()?;
    // SAFETY: the position has just been aligned, and the resolver is of this very view.
    unsafe { encoder.resolve_aligned(&ViewArchive::<T>(view), resolver) }.ok()?;
    Some(encoder.pos())
}

/// Encodes a record into fresh memory of any size, aligned to 16. For records larger than a buffer.
///
/// # Errors
/// `None` if it needs more than `max_bytes`.
pub fn encode_large<T: Record>(
    view: T::View<'_>,
    max_bytes: usize,
    scratch: &mut EncodeScratch,
) -> Option<rkyv::util::AlignedVec<16>> {
    let mut size = 64 << 10;
    loop {
        let size_now = size.min(max_bytes);
        let mut bytes = rkyv::util::AlignedVec::<16>::with_capacity(size_now);
        // SAFETY: `MaybeUninit<u8>` needs no initialisation, and the capacity is at least `size_now`.
        let room = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<MaybeUninit<u8>>(), size_now) };
        if let Some(len) = encode::<T>(view, room, scratch) {
            // SAFETY: `encode` has initialised `len` bytes.
            unsafe { bytes.set_len(len) };
            return Some(bytes);
        }
        if size >= max_bytes {
            return None;
        }
        size = size.saturating_mul(4);
    }
}

/// The view of bytes that [`encode`] wrote.
///
/// # Safety
/// `bytes` must be exactly what [`encode`] of the same type wrote, at an address aligned to `T::ALIGN`.
#[inline(always)]
pub unsafe fn decode_unchecked<T: Record>(bytes: &[u8]) -> T::View<'_> {
    let root = bytes.len() - size_of::<T::Archived>();
    // SAFETY: the caller promises whole, aligned bytes of this type; the root is at their end.
    T::view_archived(unsafe { &*bytes.as_ptr().add(root).cast::<T::Archived>() })
}

/// The view of bytes that may have come from anywhere: checked first.
///
/// # Errors
/// `None` if they are not a valid record of this type (which guarantees memory safety, not that nobody changed them).
pub fn decode_checked<T: Record>(bytes: &[u8]) -> Option<T::View<'_>> {
    if !(bytes.as_ptr() as usize).is_multiple_of(T::ALIGN) {
        return None;
    }
    rkyv::api::high::access::<T::Archived, Failure>(bytes).ok().map(T::view_archived)
}

/// A writer for fixed records: they have nothing to write out of line.
struct NoWriter;

impl Positional for NoWriter {
    fn pos(&self) -> usize {
        0
    }
}
impl Writer<Failure> for NoWriter {
    fn write(&mut self, _: &[u8]) -> Result<(), Failure> {
        Err(Failure)
    }
}
// SAFETY: it never hands out memory.
unsafe impl Allocator<Failure> for NoWriter {
    unsafe fn push_alloc(&mut self, _: std::alloc::Layout) -> Result<std::ptr::NonNull<[u8]>, Failure> {
        Err(Failure)
    }
    unsafe fn pop_alloc(&mut self, _: std::ptr::NonNull<u8>, _: std::alloc::Layout) -> Result<(), Failure> {
        Err(Failure)
    }
}

/// A view as rkyv's own traits see it, so that rkyv's containers can hold views.
pub struct ViewArchive<'a, T: Record>(pub T::View<'a>);

impl<T: Record> Clone for ViewArchive<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Record> Copy for ViewArchive<'_, T> {}

impl<T: Record> Archive for ViewArchive<'_, T> {
    type Archived = T::Archived;
    type Resolver = T::Resolver;

    #[inline(always)]
    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        T::resolve_view(self.0, resolver, out);
    }
}

impl<T: Record, S> Serialize<S> for ViewArchive<'_, T>
where
    S: Fallible + Writer + Allocator + ?Sized,
    S::Error: Source,
{
    #[inline(always)]
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        T::serialize_view(self.0, serializer)
    }
}

/// Implements `Record` for a type that is its own view.
macro_rules! native_record {
    ($($ty:ty, $archived:ty, |$a:ident| $load:expr, |$v:ident, $h:ident| $hash:expr, |$x:ident, $y:ident| $eq:expr;)*) => {$(
        // SAFETY: rkyv archives the type in place, without bytes out of line.
        unsafe impl Record for $ty {
            type View<'a> = $ty;
            type Archived = $archived;
            type Resolver = ();
            const FIXED: bool = true;
            const ALIGN: usize = align_of::<$archived>();

            #[inline(always)]
            fn view(&self) -> $ty {
                *self
            }
            #[inline(always)]
            fn view_archived($a: &$archived) -> $ty {
                $load
            }
            #[inline(always)]
            fn from_view(view: $ty) -> $ty {
                view
            }
            #[inline(always)]
            fn shorten<'s, 'l: 's>(view: $ty) -> $ty {
                view
            }
            #[inline(always)]
            fn serialize_view<S>(_: $ty, _: &mut S) -> Result<(), S::Error>
            where
                S: Fallible + Writer + Allocator + ?Sized,
                S::Error: Source,
            {
                Ok(())
            }
            #[inline(always)]
            fn resolve_view(view: $ty, resolver: (), out: Place<$archived>) {
                Archive::resolve(&view, resolver, out);
            }
            #[inline(always)]
            fn hash_view($v: $ty, $h: &mut KeyHasher) {
                $hash
            }
            #[inline(always)]
            fn eq_view($x: $ty, $y: $ty) -> bool {
                $eq
            }
        }
    )*};
}

native_record! {
    u8, u8, |a| *a, |v, h| h.word(v as u64), |x, y| x == y;
    i8, i8, |a| *a, |v, h| h.word(v as i64 as u64), |x, y| x == y;
    u16, <u16 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    i16, <i16 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v as i64 as u64), |x, y| x == y;
    u32, <u32 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    i32, <i32 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v as i64 as u64), |x, y| x == y;
    u64, <u64 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v), |x, y| x == y;
    i64, <i64 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    u128, <u128 as Archive>::Archived, |a| a.to_native(), |v, h| { h.word(v as u64); h.word((v >> 64) as u64) }, |x, y| x == y;
    i128, <i128 as Archive>::Archived, |a| a.to_native(), |v, h| { h.word(v as u64); h.word((v >> 64) as u64) }, |x, y| x == y;
    f32, <f32 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v.to_bits() as u64), |x, y| x.to_bits() == y.to_bits();
    f64, <f64 as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v.to_bits()), |x, y| x.to_bits() == y.to_bits();
    bool, bool, |a| *a, |v, h| h.word(v as u64), |x, y| x == y;
    char, <char as Archive>::Archived, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    (), (), |_a| (), |_v, _h| (), |_x, _y| true;
}

// SAFETY: rkyv's string is written by rkyv's own functions.
unsafe impl Record for String {
    type View<'a> = &'a str;
    type Archived = ArchivedString;
    type Resolver = StringResolver;
    const FIXED: bool = false;
    const ALIGN: usize = align_of::<ArchivedString>();

    #[inline(always)]
    fn view(&self) -> &str {
        self
    }
    #[inline(always)]
    fn view_archived(archived: &ArchivedString) -> &str {
        archived.as_str()
    }
    #[inline]
    fn from_view(view: &str) -> String {
        view.to_owned()
    }
    #[inline(always)]
    fn shorten<'s, 'l: 's>(view: &'l str) -> &'s str {
        view
    }
    #[inline(always)]
    fn serialize_view<S>(view: &str, serializer: &mut S) -> Result<StringResolver, S::Error>
    where
        S: Fallible + Writer + Allocator + ?Sized,
        S::Error: Source,
    {
        ArchivedString::serialize_from_str(view, serializer)
    }
    #[inline(always)]
    fn resolve_view(view: &str, resolver: StringResolver, out: Place<ArchivedString>) {
        ArchivedString::resolve_from_str(view, resolver, out);
    }
    #[inline]
    fn hash_view(view: &str, hasher: &mut KeyHasher) {
        hasher.bytes(view.as_bytes());
    }
    #[inline]
    fn eq_view(a: &str, b: &str) -> bool {
        a == b
    }
}

// SAFETY: written by rkyv's own functions from the elements' views; `ALIGN` covers the vector and its elements.
unsafe impl<T: Record> Record for Vec<T> {
    type View<'a> = Seq<'a, T>;
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;
    const FIXED: bool = false;
    const ALIGN: usize = max(align_of::<ArchivedVec<T::Archived>>(), T::ALIGN);

    #[inline(always)]
    fn view(&self) -> Seq<'_, T> {
        Seq::from_slice(self)
    }
    #[inline(always)]
    fn view_archived(archived: &Self::Archived) -> Seq<'_, T> {
        Seq::from_archived(archived.as_slice())
    }
    fn from_view(view: Seq<'_, T>) -> Vec<T> {
        view.iter().map(T::from_view).collect()
    }
    #[inline(always)]
    fn shorten<'s, 'l: 's>(view: Seq<'l, T>) -> Seq<'s, T> {
        view
    }
    fn serialize_view<S>(view: Seq<'_, T>, serializer: &mut S) -> Result<VecResolver, S::Error>
    where
        S: Fallible + Writer + Allocator + ?Sized,
        S::Error: Source,
    {
        let mut elements = view.iter().map(ViewArchive::<T>);
        if T::FIXED {
            return ArchivedVec::serialize_from_unknown_length_iter(&mut elements, serializer);
        }
        ArchivedVec::serialize_from_iter::<ViewArchive<'_, T>, _, S>(ViewIter(view.iter()), serializer)
    }
    #[inline(always)]
    fn resolve_view(view: Seq<'_, T>, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(view.len(), resolver, out);
    }
    fn hash_view(view: Seq<'_, T>, hasher: &mut KeyHasher) {
        hasher.word(view.len() as u64);
        for element in view {
            T::hash_view(element, hasher);
        }
    }
    fn eq_view(a: Seq<'_, T>, b: Seq<'_, T>) -> bool {
        a == b
    }
}

/// The elements of a sequence, in the form that rkyv's vector takes.
struct ViewIter<'a, T: Record>(crate::seq::Iter<'a, T>);

impl<T: Record> Clone for ViewIter<'_, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
impl<'a, T: Record> Iterator for ViewIter<'a, T> {
    type Item = ViewArchive<'a, T>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(ViewArchive)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
impl<T: Record> ExactSizeIterator for ViewIter<'_, T> {}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

// SAFETY: the layout is that of rkyv's own `ArchivedOption`, `repr(u8)`: a tag byte, then the value at its alignment.
unsafe impl<T: Record> Record for Option<T> {
    type View<'a> = Option<T::View<'a>>;
    type Archived = ArchivedOption<T::Archived>;
    type Resolver = Option<T::Resolver>;
    const FIXED: bool = T::FIXED;
    const ALIGN: usize = max(align_of::<ArchivedOption<T::Archived>>(), T::ALIGN);

    #[inline(always)]
    fn view(&self) -> Self::View<'_> {
        self.as_ref().map(T::view)
    }
    #[inline(always)]
    fn view_archived(archived: &Self::Archived) -> Self::View<'_> {
        archived.as_ref().map(T::view_archived)
    }
    fn from_view(view: Self::View<'_>) -> Self {
        view.map(T::from_view)
    }
    #[inline(always)]
    fn shorten<'s, 'l: 's>(view: Self::View<'l>) -> Self::View<'s> {
        view.map(T::shorten)
    }
    #[inline(always)]
    fn serialize_view<S>(view: Self::View<'_>, serializer: &mut S) -> Result<Self::Resolver, S::Error>
    where
        S: Fallible + Writer + Allocator + ?Sized,
        S::Error: Source,
    {
        view.map(|value| T::serialize_view(value, serializer)).transpose()
    }
    #[inline(always)]
    fn resolve_view(view: Self::View<'_>, resolver: Self::Resolver, out: Place<Self::Archived>) {
        view.map(ViewArchive::<T>).resolve(resolver, out);
    }
    #[inline]
    fn hash_view(view: Self::View<'_>, hasher: &mut KeyHasher) {
        hasher.word(view.is_some() as u64);
        if let Some(value) = view {
            T::hash_view(value, hasher);
        }
    }
    #[inline]
    fn eq_view(a: Self::View<'_>, b: Self::View<'_>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => T::eq_view(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Implements `Record` for a tuple, archived as rkyv's tuple of the same length.
macro_rules! tuple_record {
    ($archived:ident: $($t:ident $i:tt),+) => {
        // SAFETY: `repr(C)` fields of rkyv's tuple are written one by one through their own places.
        unsafe impl<$($t: Record),+> Record for ($($t,)+) {
            type View<'a> = ($($t::View<'a>,)+);
            type Archived = rkyv::tuple::$archived<$($t::Archived),+>;
            type Resolver = ($($t::Resolver,)+);
            const FIXED: bool = true $(&& $t::FIXED)+;
            const ALIGN: usize = {
                let mut align = align_of::<Self::Archived>();
                $(align = max(align, $t::ALIGN);)+
                align
            };

            #[inline(always)]
            fn view(&self) -> Self::View<'_> {
                ($(self.$i.view(),)+)
            }
            #[inline(always)]
            fn view_archived(archived: &Self::Archived) -> Self::View<'_> {
                ($($t::view_archived(&archived.$i),)+)
            }
            #[inline]
            fn from_view(view: Self::View<'_>) -> Self {
                ($($t::from_view(view.$i),)+)
            }
            #[inline(always)]
            fn shorten<'s, 'l: 's>(view: Self::View<'l>) -> Self::View<'s> {
                ($($t::shorten(view.$i),)+)
            }
            #[inline(always)]
            fn serialize_view<S>(view: Self::View<'_>, serializer: &mut S) -> Result<Self::Resolver, S::Error>
            where
                S: Fallible + Writer + Allocator + ?Sized,
                S::Error: Source,
            {
                Ok(($($t::serialize_view(view.$i, serializer)?,)+))
            }
            #[inline(always)]
            fn resolve_view(view: Self::View<'_>, resolver: Self::Resolver, out: Place<Self::Archived>) {
                $(
                    // SAFETY: the pointer is to a field of the value that `out` is the place of.
                    $t::resolve_view(view.$i, resolver.$i, unsafe {
                        Place::from_field_unchecked(out, &raw mut (*out.ptr()).$i)
                    });
                )+
            }
            #[inline(always)]
            fn hash_view(view: Self::View<'_>, hasher: &mut KeyHasher) {
                $($t::hash_view(view.$i, hasher);)+
            }
            #[inline(always)]
            fn eq_view(a: Self::View<'_>, b: Self::View<'_>) -> bool {
                true $(&& $t::eq_view(a.$i, b.$i))+
            }
        }
    };
}

tuple_record!(ArchivedTuple1: A 0);
tuple_record!(ArchivedTuple2: A 0, B 1);
tuple_record!(ArchivedTuple3: A 0, B 1, C 2);
tuple_record!(ArchivedTuple4: A 0, B 1, C 2, D 3);
tuple_record!(ArchivedTuple5: A 0, B 1, C 2, D 3, E 4);
tuple_record!(ArchivedTuple6: A 0, B 1, C 2, D 3, E 4, F 5);
tuple_record!(ArchivedTuple7: A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple_record!(ArchivedTuple8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Record + PartialEq + Debug>(value: T) {
        let mut scratch = EncodeScratch::default();
        let bytes = encode_large::<T>(value.view(), 1 << 20, &mut scratch).expect("fits");
        // SAFETY: the bytes are those of `encode_large` for the same type.
        let back = unsafe { decode_unchecked::<T>(&bytes) };
        assert_eq!(T::from_view(back), value);
        assert!(T::eq_view(back, value.view()));
        assert_eq!(key_hash::<T>(back), key_hash::<T>(value.view()));
        let checked = decode_checked::<T>(&bytes).expect("valid");
        assert_eq!(T::from_view(checked), value);
    }

    #[test]
    fn when_encoded_then_decoded_values_are_the_same() {
        round_trip(7u64);
        round_trip((1u8, -2i16, 3u32, -4i64, u128::MAX, i128::MIN, 1.5f64, true));
        round_trip(String::from("short"));
        round_trip(String::from("longer than what is kept inline"));
        round_trip(vec![1u64, 2, 3]);
        round_trip(vec!["a".to_string(), "a string that is not inline".to_string()]);
        round_trip((vec![vec![(1u8, "nested strings, twice".to_string())], vec![]], Some(3u128), None::<String>));
        round_trip(((), 'é'));
    }

    #[test]
    fn when_the_buffer_is_too_small_then_encode_answers_none() {
        let mut scratch = EncodeScratch::default();
        let mut room = rkyv::util::Align([MaybeUninit::uninit(); 16]);
        assert_eq!(encode::<(u64, u64)>((1, 2), &mut *room, &mut scratch), Some(16));
        assert_eq!(encode::<(u64, u64)>((1, 2), &mut room[..15], &mut scratch), None);
        assert_eq!(encode::<String>("seventeen letters", &mut *room, &mut scratch), None);
        assert!(encode_large::<String>(&"x".repeat(200_000), 100_000, &mut scratch).is_none());
        assert!(encode_large::<String>(&"x".repeat(200_000), 300_000, &mut scratch).is_some());
    }

    #[test]
    fn when_a_float_is_nan_then_it_still_equals_itself() {
        assert!(f64::eq_view(f64::NAN, f64::NAN));
    }
}
