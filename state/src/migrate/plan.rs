//! Planning declared changes: what to do to values of one schema so that they are those of another.

use std::{cell::Cell, sync::Arc};

use thalweg_model::{
    Schema, Value,
    schema::{Case, Field, Kind, Style},
};

use super::{Change, MigrateError, What};

/// What to do to a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Edit {
    /// Nothing; a wider number takes the value as it is.
    Keep,
    /// To what is in an option, where there is something; in an array, if the schema says that it lies in one.
    Inside { in_array: bool, edit: Box<Edit> },
    /// To each element of an array.
    Each(Box<Edit>),
    /// To the elements of an array by their places.
    Places(Vec<Edit>),
    /// To the fields of an object: an edit for each, `None` drops it; then these are added.
    Fields { old: Vec<Option<Edit>>, add: Vec<(Arc<str>, Value)> },
    /// To the content of a variant, by its name.
    Variants(Vec<(Arc<str>, Edit)>),
}

/// How values of `old` become values of `new`.
pub(super) fn plan(old: &Schema, new: &Schema, changes: &[Change]) -> Result<Edit, MigrateError> {
    let planner = Planner { changes, used: changes.iter().map(|_| Cell::new(false)).collect() };
    let edit = planner.types(old, new, "")?;
    match planner.used.iter().position(|used| !used.get()) {
        None => Ok(edit),
        Some(n) => {
            let what = match changes[n].what {
                What::Add(_) => "it is declared to be added, but the job's type has no such field, or the state has it",
                What::Remove => {
                    "it is declared to be removed, but the state has no such field, or the job's type has it"
                }
                What::Widen => "it is declared to be widened, but its type has not changed, or there is no such field",
            };
            Err(undeclared(&changes[n].path, format!("{what}: take the declaration back, or correct its path")))
        }
    }
}

fn undeclared(path: &str, what: String) -> MigrateError {
    MigrateError::Undeclared { path: path.to_owned(), what }
}

struct Planner<'a> {
    changes: &'a [Change],
    used: Vec<Cell<bool>>,
}

impl Planner<'_> {
    /// The declared change of a path that `is_it`.
    fn declared(&self, path: &str, is_it: impl Fn(&What) -> bool) -> Option<&What> {
        let n = self.changes.iter().position(|change| change.path == path && is_it(&change.what))?;
        self.used[n].set(true);
        Some(&self.changes[n].what)
    }

    fn types(&self, old: &Schema, new: &Schema, path: &str) -> Result<Edit, MigrateError> {
        match (&old.kind, &new.kind) {
            (Kind::Option { value: a, .. }, Kind::Option { value: b, .. }) => {
                let edit = self.types(a, b, path)?;
                Ok(simple(&edit, || Edit::Inside { in_array: a.is_nullable(), edit: Box::new(edit.clone()) }))
            }
            (Kind::Vec(a), Kind::Vec(b)) => {
                let edit = self.types(a, b, path)?;
                Ok(simple(&edit, || Edit::Each(Box::new(edit.clone()))))
            }
            (Kind::Tuple(a), Kind::Tuple(b)) if a.len() == b.len() => Ok(places(self.places(a, b, path)?)),
            (Kind::Struct(a), Kind::Struct(b)) if same_shape(a, b) => self.cases(a, b, path),
            (Kind::Enum { variants: a, .. }, Kind::Enum { variants: b, .. }) => self.variants(a, b, path),
            (a, b) if a == b && old.size == new.size => Ok(Edit::Keep),
            _ if is_wider(old, new) => match self.declared(path, |what| matches!(what, What::Widen)) {
                Some(_) => Ok(Edit::Keep),
                None => Err(undeclared(path, format!("`{old}` became `{new}`: declare `.widen(\"{path}\")`"))),
            },
            _ => Err(undeclared(
                path,
                format!("`{old}` became `{new}`, which no declared change does: give a conversion function"),
            )),
        }
    }

    fn cases(&self, old: &Case, new: &Case, path: &str) -> Result<Edit, MigrateError> {
        match old.style {
            Style::Unit => Ok(Edit::Keep),
            Style::Named => self.named(&old.fields, &new.fields, path),
            // Such a value is that of its field.
            Style::Tuple if old.fields.len() == 1 => Ok(self.places(&old.fields, &new.fields, path)?.remove(0)),
            Style::Tuple => Ok(places(self.places(&old.fields, &new.fields, path)?)),
        }
    }

    fn places(&self, old: &[Field], new: &[Field], path: &str) -> Result<Vec<Edit>, MigrateError> {
        old.iter().zip(new).map(|(a, b)| self.types(&a.schema, &b.schema, &join(path, &a.name))).collect()
    }

    fn named(&self, old: &[Field], new: &[Field], path: &str) -> Result<Edit, MigrateError> {
        let (mut edits, mut add) = (Vec::new(), Vec::new());
        for field in old {
            let path = join(path, &field.name);
            let now = new.iter().find(|now| now.name == field.name);
            edits.push(match now {
                Some(now) => Some(self.types(&field.schema, &now.schema, &path)?),
                None if self.declared(&path, |what| matches!(what, What::Remove)).is_some() => None,
                None => {
                    let what = format!("the job's type does not have it any more: declare `.remove_field(\"{path}\")`");
                    return Err(undeclared(&path, what));
                }
            });
        }
        for field in new.iter().filter(|now| old.iter().all(|field| field.name != now.name)) {
            let (path, ty) = (join(path, &field.name), &field.schema);
            let Some(What::Add(default)) = self.declared(&path, |what| matches!(what, What::Add(_))) else {
                let what = format!("it is new, of type `{ty}`: declare `.add_field(\"{path}\", default)`");
                return Err(undeclared(&path, what));
            };
            if !fits(default, ty) {
                return Err(undeclared(&path, format!("its default is no `{ty}`: declare one of this type")));
            }
            add.push((field.name.clone(), default.clone()));
        }
        let keeps = add.is_empty() && edits.iter().all(|edit| *edit == Some(Edit::Keep));
        Ok(if keeps { Edit::Keep } else { Edit::Fields { old: edits, add } })
    }

    fn variants(&self, old: &[Case], new: &[Case], path: &str) -> Result<Edit, MigrateError> {
        let mut edits = Vec::new();
        for case in old {
            let path = join(path, &case.name);
            let Some(now) = new.iter().find(|now| now.name == case.name && same_shape(case, now)) else {
                let what = "the job's type does not have this variant with such fields: give it back, or give a \
                            conversion function";
                return Err(undeclared(&path, what.to_owned()));
            };
            let edit = self.cases(case, now, &path)?;
            if edit != Edit::Keep {
                edits.push((case.name.clone(), edit));
            }
        }
        Ok(if edits.is_empty() { Edit::Keep } else { Edit::Variants(edits) })
    }
}

/// Nothing to do within is nothing to do.
fn simple(inner: &Edit, outer: impl FnOnce() -> Edit) -> Edit {
    if *inner == Edit::Keep { Edit::Keep } else { outer() }
}

fn places(edits: Vec<Edit>) -> Edit {
    if edits.iter().all(|edit| *edit == Edit::Keep) { Edit::Keep } else { Edit::Places(edits) }
}

/// Whether fields can be matched: by name, or by their places if there are as many.
fn same_shape(old: &Case, new: &Case) -> bool {
    old.style == new.style && (old.style == Style::Named || old.fields.len() == new.fields.len())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether every number of the one type is one of the other.
fn is_wider(old: &Schema, new: &Schema) -> bool {
    match (&old.kind, &new.kind) {
        (Kind::Unsigned, Kind::Unsigned | Kind::Signed) | (Kind::Signed, Kind::Signed) => new.size > old.size,
        (Kind::Float, Kind::Float) => new.size > old.size,
        (Kind::Unsigned | Kind::Signed, Kind::Float) => old.size <= 4 && new.size == 8,
        _ => false,
    }
}

/// Whether a value is one of a type.
fn fits(value: &Value, schema: &Schema) -> bool {
    let all = |values: &[Value], fields: &[Field]| {
        values.len() == fields.len() && values.iter().zip(fields).all(|(value, field)| fits(value, &field.schema))
    };
    let case = |value: &Value, case: &Case| match (case.style, value) {
        (Style::Unit, value) => *value == Value::Null,
        (Style::Tuple, value) if case.fields.len() == 1 => fits(value, &case.fields[0].schema),
        (Style::Tuple, Value::Array(values)) => all(values, &case.fields),
        (Style::Named, Value::Object(fields)) => {
            fields.len() == case.fields.len()
                && case.fields.iter().all(|field| value.get(&field.name).is_some_and(|one| fits(one, &field.schema)))
        }
        _ => false,
    };
    let bits = schema.size * 8;
    match (&schema.kind, value) {
        (Kind::Unsigned, Value::Int(number)) => *number >= 0 && (bits == 128 || *number >> bits == 0),
        (Kind::Unsigned, Value::Large(_)) => bits == 128,
        (Kind::Signed, Value::Int(number)) => matches!(number >> (bits - 1), 0 | -1),
        (Kind::Float, Value::F32(_)) => true,
        (Kind::Float, Value::F64(_)) => bits == 64,
        (Kind::Float, Value::Int(number)) => bits == 64 && number.unsigned_abs() < 1 << f64::MANTISSA_DIGITS,
        (Kind::Bool, Value::Bool(_)) | (Kind::String, Value::String(_)) | (Kind::Unit, Value::Null) => true,
        (Kind::Char, Value::String(text)) => text.chars().count() == 1,
        (Kind::Option { .. }, Value::Null) => true,
        (Kind::Option { value: inner, .. }, Value::Array(some)) if inner.is_nullable() => {
            some.len() == 1 && fits(&some[0], inner)
        }
        (Kind::Option { value: inner, .. }, value) => fits(value, inner),
        (Kind::Vec(element), Value::Array(values)) => values.iter().all(|value| fits(value, element)),
        (Kind::Tuple(fields), Value::Array(values)) => all(values, fields),
        (Kind::Struct(one), value) => case(value, one),
        (Kind::Enum { variants, .. }, value) => {
            let (name, content) = match value {
                Value::String(name) => (&**name, &Value::Null),
                Value::Object(fields) if fields.len() == 1 => (&*fields[0].0, &fields[0].1),
                _ => return false,
            };
            variants.iter().any(|one| *one.name == *name && case(content, one))
        }
        _ => false,
    }
}

impl Edit {
    /// The value that an old one becomes.
    pub(super) fn apply(&self, value: Value) -> Value {
        match (self, value) {
            (Self::Inside { in_array: true, edit }, Value::Array(some)) => {
                Value::Array(some.into_iter().map(|value| edit.apply(value)).collect())
            }
            (Self::Inside { in_array: false, edit }, value) if value != Value::Null => edit.apply(value),
            (Self::Each(edit), Value::Array(values)) => {
                Value::Array(values.into_iter().map(|value| edit.apply(value)).collect())
            }
            (Self::Places(edits), Value::Array(values)) => {
                Value::Array(values.into_iter().zip(edits).map(|(value, edit)| edit.apply(value)).collect())
            }
            (Self::Fields { old, add }, Value::Object(fields)) => {
                let kept = fields.into_iter().zip(old).filter_map(|((name, value), edit)| {
                    let edit = edit.as_ref()?;
                    Some((name, edit.apply(value)))
                });
                Value::Object(kept.chain(add.iter().cloned()).collect())
            }
            (Self::Variants(edits), Value::Object(mut content)) => {
                if let Some((name, value)) = content.pop() {
                    let edit = edits.iter().find(|(variant, _)| *variant == name);
                    content.push((name, edit.map_or(value.clone(), |(_, edit)| edit.apply(value))));
                }
                Value::Object(content)
            }
            (_, value) => value,
        }
    }
}
