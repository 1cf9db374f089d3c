//! Comparing a stored schema with that of the job: the first thing that differs, and what to do about it.

use std::fmt;

use super::{Case, Field, Kind, Schema, StateSchema, Style};

/// Which type of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key.
    Key,
    /// The user key of a map.
    UserKey,
    /// The value, or an element.
    Value,
}

/// The types of a state are not those that it was stored with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMismatch {
    /// Which type differs.
    pub part: Part,
    /// The field that differs first, by its path: `line.price`. Empty for the type itself.
    pub path: String,
    /// What it was stored as, such as `price: u64`; `None` where it was not there.
    pub stored: Option<String>,
    /// What it is now, in the same way.
    pub current: Option<String>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::UserKey => "user key",
            Self::Value => "value",
        })
    }
}

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = self.part;
        let what = if self.path.is_empty() { "" } else { "field " };
        let of = match (part, self.path.is_empty()) {
            (Part::Value, _) => String::new(),
            (_, true) => format!("{part} "),
            (_, false) => format!("{part}'s "),
        };
        match (&self.stored, &self.current) {
            (Some(stored), Some(current)) => {
                write!(f, "state was written with {of}{what}`{stored}`, the job has `{current}`")?;
            }
            (Some(stored), None) => {
                write!(f, "state was written with {of}{what}`{stored}`, which the job does not have")?
            }
            (None, current) => {
                let current = current.as_deref().unwrap_or("nothing");
                write!(f, "state was written without {of}{what}`{current}`, which the job has")?;
            }
        }
        f.write_str(match part {
            Part::Value => ": give the type back, declare a migration, or give the state a new name",
            Part::Key | Part::UserKey => ": give the type back or give the state a new name; keys cannot be migrated",
        })
    }
}

impl std::error::Error for SchemaMismatch {}

pub(super) fn compare(stored: &StateSchema, current: &StateSchema) -> Result<(), SchemaMismatch> {
    for ((part, stored), (_, current)) in stored.parts().into_iter().zip(current.parts()) {
        let difference = match (stored, current) {
            (Some(stored), Some(current)) => types(stored, current, &Path::Root),
            (None, None) => None,
            _ => Some(Difference {
                path: String::new(),
                stored: stored.map(Schema::to_string),
                current: current.map(Schema::to_string),
            }),
        };
        if let Some(Difference { path, stored, current }) = difference {
            return Err(SchemaMismatch { part, path, stored, current });
        }
    }
    Ok(())
}

struct Difference {
    path: String,
    stored: Option<String>,
    current: Option<String>,
}

/// The way from a type to one of its fields.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(path, name) => write!(f, "{path}.{name}"),
        }
    }
}

impl Path<'_> {
    fn difference(&self, stored: Option<String>, current: Option<String>) -> Option<Difference> {
        let path = self.to_string();
        let of = |text: String| if path.is_empty() { text } else { format!("{path}: {text}") };
        Some(Difference { stored: stored.map(of), current: current.map(of), path })
    }
}

/// The first difference between two types; the innermost field that differs.
fn types(stored: &Schema, current: &Schema, path: &Path<'_>) -> Option<Difference> {
    let inner = match (&stored.kind, &current.kind) {
        (Kind::Option { value: a, .. }, Kind::Option { value: b, .. }) => same_name(a, b, stored, current, path),
        (Kind::Vec(a), Kind::Vec(b)) => same_name(a, b, stored, current, path),
        (Kind::Tuple(a), Kind::Tuple(b)) => fields(a, b, path),
        (Kind::Struct(a), Kind::Struct(b)) if a.name == b.name => cases(a, b, path),
        (Kind::Enum { name: a, variants: of_a }, Kind::Enum { name: b, variants: of_b }) if a == b => {
            variants(of_a, of_b, path)
        }
        (a, b) if a == b && stored.size == current.size => None,
        _ => path.difference(Some(stored.to_string()), Some(current.to_string())),
    };
    if inner.is_some() || stored == current {
        return inner;
    }
    // Nothing that has a name differs, so places do.
    let place = |schema: &Schema| Some(format!("{schema} of {} bytes", schema.size));
    path.difference(place(stored), place(current))
}

/// Compares what lies in an option or a vector. If these are different types, the whole says more.
fn same_name(a: &Schema, b: &Schema, stored: &Schema, current: &Schema, path: &Path<'_>) -> Option<Difference> {
    if a.to_string() == b.to_string() {
        return types(a, b, path);
    }
    path.difference(Some(stored.to_string()), Some(current.to_string()))
}

fn variants(stored: &[Case], current: &[Case], path: &Path<'_>) -> Option<Difference> {
    for (n, variant) in stored.iter().enumerate() {
        let name = |case: &Case| format!("variant {}", case.name);
        match current.get(n) {
            Some(now) if now.name == variant.name => {
                if let Some(difference) = cases(variant, now, &Path::Field(path, &variant.name)) {
                    return Some(difference);
                }
            }
            now => return path.difference(Some(name(variant)), now.map(name)),
        }
    }
    let added = current.get(stored.len())?;
    path.difference(None, Some(format!("variant {}", added.name)))
}

fn cases(stored: &Case, current: &Case, path: &Path<'_>) -> Option<Difference> {
    if stored.style != current.style {
        let style = |case: &Case| {
            Some(match case.style {
                Style::Named => format!("{} {{ .. }}", case.name),
                Style::Tuple => format!("{}(..)", case.name),
                Style::Unit => case.name.to_string(),
            })
        };
        return path.difference(style(stored), style(current));
    }
    fields(&stored.fields, &current.fields, path)
}

fn fields(stored: &[Field], current: &[Field], path: &Path<'_>) -> Option<Difference> {
    let of = |list: &[Field], name: &str| list.iter().find(|field| *field.name == *name).cloned();
    for field in stored {
        let at = Path::Field(path, &field.name);
        let Some(now) = of(current, &field.name) else {
            return at.difference(Some(field.schema.to_string()), None);
        };
        if let Some(difference) = types(&field.schema, &now.schema, &at) {
            return Some(difference);
        }
    }
    if let Some(field) = current.iter().find(|field| of(stored, &field.name).is_none()) {
        return Path::Field(path, &field.name).difference(None, Some(field.schema.to_string()));
    }
    // The same fields, in other places.
    let (field, now) = stored.iter().zip(current).find(|(field, now)| field != now)?;
    let now = of(current, &field.name).unwrap_or_else(|| now.clone());
    let place = |field: &Field| Some(format!("{} at byte {}", field.schema, field.offset));
    Path::Field(path, &field.name).difference(place(field), place(&now))
}
