//! How sizes, counts, tables and types are written for people.

use std::fmt::Write as _;

use serde::Serialize;
use thalweg::model::{
    Schema,
    schema::{Case, Field, Kind, Style},
};

/// Bytes in the unit that suits them.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A number of things.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Rows of cells, in columns as wide as their widest cell.
pub fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            write!(line, "{cell:<width$}  ").expect("writing to a string");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A type with the fields of its structs and enums, as in Rust.
pub fn spelled(schema: &Schema) -> String {
    let list = |fields: &[Field], named: bool| {
        let one = |field: &Field| {
            let ty = spelled(&field.schema);
            if named { format!("{}: {ty}", field.name) } else { ty }
        };
        fields.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let case = |case: &Case| match case.style {
        Style::Named => format!("{} {{ {} }}", case.name, list(&case.fields, true)),
        Style::Tuple => format!("{}({})", case.name, list(&case.fields, false)),
        Style::Unit => case.name.to_string(),
    };
    match &schema.kind {
        Kind::Option { value, .. } => format!("Option<{}>", spelled(value)),
        Kind::Vec(element) => format!("Vec<{}>", spelled(element)),
        Kind::Tuple(fields) if fields.len() == 1 => format!("({},)", list(fields, false)),
        Kind::Tuple(fields) => format!("({})", list(fields, false)),
        Kind::Struct(one) => case(one),
        Kind::Enum { name, variants } => {
            format!("{name} {{ {} }}", variants.iter().map(case).collect::<Vec<_>>().join(" | "))
        }
        _ => schema.to_string(),
    }
}

/// A type, as JSON tells it: with the place of every field.
#[derive(Serialize)]
pub struct TypeJson {
    #[serde(rename = "type")]
    name: String,
    size: u32,
    align: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    element: Option<Box<TypeJson>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variants: Vec<VariantJson>,
}

#[derive(Serialize)]
struct FieldJson {
    name: String,
    offset: u32,
    #[serde(flatten)]
    of: TypeJson,
}

#[derive(Serialize)]
struct VariantJson {
    name: String,
    tag: usize,
    fields: Vec<FieldJson>,
}

impl TypeJson {
    /// That of a schema.
    pub fn of(schema: &Schema) -> Self {
        let field = |field: &Field| FieldJson {
            name: field.name.to_string(),
            offset: field.offset,
            of: Self::of(&field.schema),
        };
        let fields = |fields: &[Field]| fields.iter().map(field).collect();
        let mut json = Self {
            name: schema.to_string(),
            size: schema.size,
            align: schema.align,
            fields: Vec::new(),
            element: None,
            variants: Vec::new(),
        };
        match &schema.kind {
            Kind::Option { offset, value } => {
                json.fields = vec![FieldJson { name: "some".into(), offset: *offset, of: Self::of(value) }];
            }
            Kind::Vec(element) => json.element = Some(Box::new(Self::of(element))),
            Kind::Tuple(all) => json.fields = fields(all),
            Kind::Struct(case) => json.fields = fields(&case.fields),
            Kind::Enum { variants, .. } => {
                let variant = |(tag, case): (usize, &Case)| VariantJson {
                    name: case.name.to_string(),
                    tag,
                    fields: fields(&case.fields),
                };
                json.variants = variants.iter().enumerate().map(variant).collect();
            }
            _ => {}
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg::{Record, model};

    #[derive(Record)]
    struct Bid {
        price: u64,
        kind: Option<Kind>,
    }

    #[derive(Record)]
    enum Kind {
        Plain,
        Priced(u8, String),
    }

    #[test]
    fn when_written_for_people_then_units_and_columns_suit_them() {
        assert_eq!([bytes(0), bytes(1023), bytes(1024), bytes(5 << 30)], ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]);
        assert_eq!([counted(1, "key"), counted(2, "key"), counted(0, "row")], ["1 key", "2 keys", "0 rows"]);
        let rows = [vec!["a".into(), "bcd".into(), String::new()], vec!["äö".into(), "e".into()]];
        assert_eq!(columns(&rows), "a   bcd\näö  e\n");
    }

    #[test]
    fn when_a_type_is_spelled_then_its_fields_are() {
        let schema = <Vec<(Bid,)> as model::Record>::schema();
        assert_eq!(spelled(&schema), "Vec<(Bid { price: u64, kind: Option<Kind { Plain | Priced(u8, String) }> },)>");
    }
}
