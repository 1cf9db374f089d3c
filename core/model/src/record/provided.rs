//! `Record` for types of the language and its standard library: numbers, strings, vectors, options, tuples.
//!
//! Their archived forms are rkyv's own. Unsafe code here writes archived options and tuples field by field.

use rkyv::{
    Archive, Place,
    option::ArchivedOption,
    rancor::{Fallible, Source},
    ser::{Allocator, Writer},
    string::{ArchivedString, StringResolver},
    vec::{ArchivedVec, VecResolver},
};

use super::{Record, ViewArchive};
use crate::{
    KeyHasher, Seq,
    schema::{Case, Kind, Schema, Style, Value, ValueError, build},
};

/// Implements `Record` for a type that is its own view.
macro_rules! native_record {
    ($($ty:ty, $archived:ty, $kind:ident, $from:path,
       |$a:ident| $load:expr, |$v:ident, $h:ident| $hash:expr, |$x:ident, $y:ident| $eq:expr;)*) => {$(
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
            fn schema() -> Schema {
                Schema::archived_as::<$archived>(Kind::$kind)
            }
            fn from_value(value: &Value) -> Result<$ty, ValueError> {
                $from(value)
            }
        }
    )*};
}

native_record! {
    u8, u8, Unsigned, integer_of, |a| *a, |v, h| h.word(v as u64), |x, y| x == y;
    i8, i8, Signed, integer_of, |a| *a, |v, h| h.word(v as i64 as u64), |x, y| x == y;
    u16, <u16 as Archive>::Archived, Unsigned, integer_of, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    i16, <i16 as Archive>::Archived, Signed, integer_of, |a| a.to_native(), |v, h| h.word(v as i64 as u64), |x, y| x == y;
    u32, <u32 as Archive>::Archived, Unsigned, integer_of, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    i32, <i32 as Archive>::Archived, Signed, integer_of, |a| a.to_native(), |v, h| h.word(v as i64 as u64), |x, y| x == y;
    u64, <u64 as Archive>::Archived, Unsigned, integer_of, |a| a.to_native(), |v, h| h.word(v), |x, y| x == y;
    i64, <i64 as Archive>::Archived, Signed, integer_of, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    u128, <u128 as Archive>::Archived, Unsigned, integer_of, |a| a.to_native(), |v, h| { h.word(v as u64); h.word((v >> 64) as u64) }, |x, y| x == y;
    i128, <i128 as Archive>::Archived, Signed, integer_of, |a| a.to_native(), |v, h| { h.word(v as u64); h.word((v >> 64) as u64) }, |x, y| x == y;
    f32, <f32 as Archive>::Archived, Float, f32_of, |a| a.to_native(), |v, h| h.word(v.to_bits() as u64), |x, y| x.to_bits() == y.to_bits();
    f64, <f64 as Archive>::Archived, Float, f64_of, |a| a.to_native(), |v, h| h.word(v.to_bits()), |x, y| x.to_bits() == y.to_bits();
    bool, bool, Bool, bool_of, |a| *a, |v, h| h.word(v as u64), |x, y| x == y;
    char, <char as Archive>::Archived, Char, char_of, |a| a.to_native(), |v, h| h.word(v as u64), |x, y| x == y;
    (), (), Unit, unit_of, |_a| (), |_v, _h| (), |_x, _y| true;
}

/// An integer of a value.
fn integer_of<T: TryFrom<i128> + TryFrom<u128>>(value: &Value) -> Result<T, ValueError> {
    match value {
        Value::Int(number) => T::try_from(*number).map_err(|_| build::out_of_range::<T>(number)),
        Value::Large(number) => T::try_from(*number).map_err(|_| build::out_of_range::<T>(number)),
        value => Err(build::unexpected::<T>(value)),
    }
}

fn f32_of(value: &Value) -> Result<f32, ValueError> {
    if let Value::F32(number) = value { Ok(*number) } else { Err(build::unexpected::<f32>(value)) }
}

/// A float, or an integer that is exactly one.
fn f64_of(value: &Value) -> Result<f64, ValueError> {
    match value {
        Value::F64(number) => Ok(*number),
        Value::F32(number) => Ok((*number).into()),
        Value::Int(number) => match i64::try_from(*number) {
            Ok(small) if small as f64 as i128 == *number => Ok(small as f64),
            _ => Err(build::out_of_range::<f64>(number)),
        },
        value => Err(build::unexpected::<f64>(value)),
    }
}

fn bool_of(value: &Value) -> Result<bool, ValueError> {
    if let Value::Bool(value) = value { Ok(*value) } else { Err(build::unexpected::<bool>(value)) }
}

fn char_of(value: &Value) -> Result<char, ValueError> {
    let Value::String(text) = value else { return Err(build::unexpected::<char>(value)) };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(char), None) => Ok(char),
        _ => Err(build::out_of_range::<char>(format!("{text:?}"))),
    }
}

fn unit_of(value: &Value) -> Result<(), ValueError> {
    if *value == Value::Null { Ok(()) } else { Err(build::unexpected::<()>(value)) }
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
    fn schema() -> Schema {
        Schema::archived_as::<ArchivedString>(Kind::String)
    }
    fn from_value(value: &Value) -> Result<String, ValueError> {
        if let Value::String(text) = value { Ok(text.clone()) } else { Err(build::unexpected::<String>(value)) }
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
    fn schema() -> Schema {
        Schema::archived_as::<Self::Archived>(Kind::Vec(Box::new(T::schema())))
    }
    fn from_value(value: &Value) -> Result<Vec<T>, ValueError> {
        let Value::Array(values) = value else { return Err(build::unexpected::<Self>(value)) };
        let element = |(n, value)| T::from_value(value).map_err(|error| error.within(&format!("{n}")));
        values.iter().enumerate().map(element).collect()
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
    fn schema() -> Schema {
        let value = T::schema();
        // `repr(u8)`: the tag, then the value as soon as its alignment allows.
        Schema::archived_as::<Self::Archived>(Kind::Option { offset: value.align, value: Box::new(value) })
    }
    fn from_value(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::Null => Ok(None),
            Value::Array(some) if some.len() == 1 && T::schema().is_nullable() => T::from_value(&some[0]).map(Some),
            value => T::from_value(value).map(Some),
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
            fn schema() -> Schema {
                let case = Case::new("", Style::Tuple)
                    $(.field::<$t>(stringify!($i), std::mem::offset_of!(Self::Archived, $i)))+;
                Schema::archived_as::<Self::Archived>(Kind::Tuple(case.fields))
            }
            fn from_value(value: &Value) -> Result<Self, ValueError> {
                let values = build::tuple::<Self>(value, &[$(stringify!($i)),+])?;
                Ok(($(values.field::<$t>($i)?,)+))
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
