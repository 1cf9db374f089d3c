//! Fields that can be seen not to be records, with what to use instead.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{Error, Type};

use crate::{
    input::Case,
    types::{bare, std_type},
};

/// The longest tuple that is a record.
const TUPLE_MAX: usize = 8;

/// One error for every field of a type that is known not to be a record.
///
/// # Errors
/// All of them, combined.
pub fn unsupported_fields(name: &Ident, cases: &[Case]) -> Result<(), Error> {
    let mut all: Option<Error> = None;
    for case in cases {
        for field in &case.fields {
            let Some((ty, reason)) = reason(name, &field.ty) else { continue };
            let owner = case.path(name).to_string().replace(' ', "");
            let error = Error::new_spanned(ty, format!("field `{}` of `{owner}`: {reason} instead", field.spelling()));
            match &mut all {
                Some(all) => all.combine(error),
                None => all = Some(error),
            }
        }
    }
    all.map_or(Ok(()), Err)
}

/// The part of `ty` that cannot be in a record, why, and what to use.
fn reason<'t>(name: &Ident, ty: &'t Type) -> Option<(&'t Type, String)> {
    let ty = bare(ty);
    let reason = match ty {
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "a record owns its data; use `String`".into(),
            Type::Slice(slice) => format!("a record owns its data; use `Vec<{}>`", spelled(&slice.elem)),
            Type::TraitObject(_) => TRAIT_OBJECT.into(),
            owned => format!("a record owns its data; use `{}`", spelled(owned)),
        },
        Type::Ptr(_) => "a pointer means nothing to another worker; use the value itself".into(),
        Type::BareFn(_) => "code cannot be sent to another worker; use an enum that names the choice".into(),
        Type::TraitObject(_) => TRAIT_OBJECT.into(),
        Type::Array(array) => {
            format!("arrays are not records; use `Vec<{}>`, or a tuple or named fields,", spelled(&array.elem))
        }
        Type::Slice(slice) => format!("a slice has no size; use `Vec<{}>`", spelled(&slice.elem)),
        Type::Tuple(tuple) if tuple.elems.len() > TUPLE_MAX => {
            format!("tuples of more than {TUPLE_MAX} are not records; use a struct that derives `Record`")
        }
        Type::Tuple(tuple) => return tuple.elems.iter().find_map(|ty| reason(name, ty)),
        Type::Path(_) => {
            let (ident, args) = std_type(ty)?;
            if ident == "Self" || *name == ident {
                format!(
                    "`{name}` would contain itself; use a flat form, such as a `Vec` of nodes that name their parents,"
                )
            } else if let Some(reason) = standard(&ident, &args) {
                reason
            } else {
                return args.into_iter().find_map(|ty| reason(name, ty));
            }
        }
        _ => return None,
    };
    Some((ty, reason))
}

const TRAIT_OBJECT: &str = "a trait object has no encoded form; use an enum that derives `Record`";

/// Why a type of the standard library is not a record, and what to use.
fn standard(name: &str, args: &[&Type]) -> Option<String> {
    let arg = |i: usize| args.get(i).map_or_else(|| "_".to_owned(), |ty| spelled(ty));
    let reason = match (name, args.len()) {
        ("usize", 0) => "its size differs between machines; use `u64`".to_owned(),
        ("isize", 0) => "its size differs between machines; use `i64`".to_owned(),
        ("str", 0) => "`str` has no size; use `String`".to_owned(),
        ("Instant" | "SystemTime", 0) => {
            format!("`{name}` is bound to a clock of one machine; use `i64` milliseconds since the epoch")
        }
        ("Duration", 0) => "`Duration` is not a record; use `i64` milliseconds".to_owned(),
        ("Box" | "Rc" | "Arc", 1..) => match bare(args[0]) {
            Type::TraitObject(_) => TRAIT_OBJECT.to_owned(),
            Type::Path(path) if path.path.is_ident("str") => format!("`{name}` is not a record; use `String`"),
            Type::Slice(slice) => format!("`{name}` is not a record; use `Vec<{}>`", spelled(&slice.elem)),
            ty => format!("`{name}` is not a record; use `{}`", spelled(ty)),
        },
        ("Cell" | "RefCell" | "Mutex" | "RwLock" | "OnceCell" | "OnceLock", 1..) => {
            format!("a record does not change once it is emitted; use `{}`", arg(0))
        }
        ("HashMap" | "BTreeMap", 2..) => format!("maps are not records; use `Vec<({}, {})>`", arg(0), arg(1)),
        ("HashSet" | "BTreeSet" | "BinaryHeap" | "VecDeque" | "LinkedList", 1..) => {
            format!("`{name}` is not a record; use `Vec<{}>`", arg(0))
        }
        ("Cow", 1..) if matches!(bare(args[0]), Type::Path(path) if path.path.is_ident("str")) => {
            "a record owns its data; use `String`".to_owned()
        }
        ("PhantomData", 1..) => {
            "a phantom has no data to send; drop the parameter, or use a real field of it".to_owned()
        }
        _ => return None,
    };
    Some(reason)
}

/// A type as the user would write it.
fn spelled(ty: &Type) -> String {
    let mut text = ty.to_token_stream().to_string();
    for (from, to) in [(" <", "<"), ("< ", "<"), (" >", ">"), (" ,", ","), (" ::", "::"), (":: ", "::"), ("& ", "&")] {
        text = text.replace(from, to);
    }
    text
}
