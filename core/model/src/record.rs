//! `Record`: what flows through a job, and the one view a user's function sees of it.
//!
//! A record exists in three shapes: the owned Rust value, its archived bytes (rkyv), and a `Copy` *view* with native
//! fields made from either. Everything the engine writes is written from the view, so a record that is passed on
//! unchanged, or built from borrowed fields, allocates nothing. Unsafe code here writes archived values in place.

mod provided;

use std::{fmt::Debug, mem::MaybeUninit};

use rkyv::{
    Archive, Place, Portable, Serialize,
    api::high::HighValidator,
    bytecheck::CheckBytes,
    rancor::{Failure, Fallible, Source, Strategy},
    ser::{
        Allocator, Positional, Serializer, Writer, WriterExt,
        allocator::{Arena, ArenaHandle},
        writer::Buffer,
    },
};

use crate::{
    KeyHash, KeyHasher,
    schema::{Schema, Value, ValueError},
};

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
    /// What user functions see: native fields, borrowed strings, [`Seq`](crate::Seq) for vectors.
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
    /// How a value lies in its archived bytes. Allocates: for when state is opened or restored.
    fn schema() -> Schema;
    /// A record of a value without type: what state that was stored with other types becomes.
    ///
    /// # Errors
    /// Where the value is none of this type; the message names the field.
    fn from_value(value: &Value) -> Result<Self, ValueError>;
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
        // SAFETY: `out` holds `size` bytes and is aligned to `T::ALIGN`, at least that of `T::Archived`.
        unsafe { encode_fixed::<T>(view, out.as_mut_ptr().cast()) };
        return Some(size);
    }
    encode_variable::<T>(view, out, scratch)
}

/// Writes the archived value of a record of fixed size, padding zeroed.
///
/// # Safety
/// `T` must be [`FIXED`](Record::FIXED), and `root` valid for writing and aligned.
///
/// # Panics
/// Where the type is not fixed.
#[inline(always)]
pub unsafe fn encode_fixed<T: Record>(view: T::View<'_>, root: *mut T::Archived) {
    let mut none = NoWriter;
    let Ok(resolver) = T::serialize_view(view, Strategy::<_, Failure>::wrap(&mut none)) else {
        unreachable!("a fixed record writes nothing out of line")
    };
    // SAFETY: the place is valid for writing and aligned, as the caller promises; all bytes are zeroed first so that
    // padding is initialised, and `resolve_view` then writes the value.
    unsafe {
        root.write_bytes(0, 1);
        T::resolve_view(view, resolver, Place::new_unchecked(0, root));
    }
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
