//! `Input`: what the macro was given, structs and enums alike as a list of cases.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, GenericParam, Generics, Lifetime, LifetimeParam, Member, Path, Type,
    Visibility, ext::IdentExt, parse_quote, spanned::Spanned,
};

use crate::{reject, types};

/// The most variants that one tag byte tells apart.
const VARIANTS_MAX: usize = 256;

/// A struct or an enum to derive for.
pub struct Input {
    pub name: Ident,
    pub vis: Visibility,
    /// Without defaults, with `Record` as a bound of every type parameter, and of every field type that the macro does
    /// not know. With the latter everywhere, rustc reports a field that is no record once, at the field, and takes all
    /// the rest that is generated for granted.
    pub generics: Generics,
    /// The path of `thalweg_model`.
    pub model: Path,
    pub is_enum: bool,
    /// The variants of an enum, or the one shape of a struct.
    pub cases: Vec<Case>,
    /// Whether the view is free of borrows, by its syntax alone.
    pub plain: bool,
}

/// One variant, or the struct.
pub struct Case {
    /// The variant's name; `None` for a struct.
    pub variant: Option<Ident>,
    pub style: Style,
    pub docs: Vec<Attribute>,
    pub fields: Vec<Field>,
}

/// How the fields are written.
#[derive(Clone, Copy, PartialEq)]
pub enum Style {
    Named,
    Tuple,
    Unit,
}

/// A field.
pub struct Field {
    pub member: Member,
    pub vis: Visibility,
    pub docs: Vec<Attribute>,
    pub ty: Type,
}

impl Input {
    pub fn parse(input: DeriveInput) -> Result<Self, Error> {
        let model = model_path(&input.attrs)?;
        let name = input.ident;
        let (is_enum, cases) = match input.data {
            Data::Struct(data) => (false, vec![Case::new(None, Vec::new(), data.fields)]),
            Data::Enum(data) => {
                let case = |variant: syn::Variant| Case::new(Some(variant.ident), docs(variant.attrs), variant.fields);
                (true, data.variants.into_iter().map(case).collect())
            }
            Data::Union(data) => {
                let message = format!("`{name}` is a union, which cannot be a record; use an enum instead");
                return Err(Error::new(data.union_token.span, message));
            }
        };
        if cases.is_empty() {
            let message = format!("`{name}` has no variants, so that no value of it could flow; add one");
            return Err(Error::new(name.span(), message));
        }
        if cases.len() > VARIANTS_MAX {
            let message = format!(
                "`{name}` has {} variants, and a record has at most {VARIANTS_MAX}; group them in nested enums",
                cases.len()
            );
            return Err(Error::new(name.span(), message));
        }
        let mut generics = checked_generics(&name, input.generics, &model)?;
        reject::unsupported_fields(&name, &cases)?;
        let mut unknown = Vec::new();
        cases.iter().flat_map(|case| &case.fields).for_each(|field| types::unknown(&field.ty, &mut unknown));
        if !unknown.is_empty() {
            let bounds = unknown.into_iter().map(|ty| types::must_be_record(ty, &model));
            generics.make_where_clause().predicates.extend(bounds);
        }
        let plain = generics.params.is_empty() && cases.iter().flat_map(|c| &c.fields).all(|f| types::is_plain(&f.ty));
        Ok(Self { name, vis: input.vis, generics, model, is_enum, cases, plain })
    }

    pub fn view_name(&self) -> Ident {
        format_ident!("{}View", self.name.unraw(), span = self.name.span())
    }

    pub fn archived_name(&self) -> Ident {
        format_ident!("Archived{}", self.name.unraw(), span = self.name.span())
    }

    pub fn resolver_name(&self) -> Ident {
        format_ident!("{}Resolver", self.name.unraw(), span = self.name.span())
    }

    /// The view's generics: those of the type, with `'a` in front where the view borrows.
    pub fn view_generics(&self) -> Generics {
        let mut generics = self.generics.clone();
        if !self.plain {
            let lifetime = LifetimeParam::new(Lifetime::new("'a", Span::call_site()));
            generics.params.insert(0, GenericParam::Lifetime(lifetime));
        }
        generics
    }

    /// The fields of all cases.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.cases.iter().flat_map(|case| &case.fields)
    }

    /// Declares a type with the cases of this one; `case` writes the fields of one.
    pub fn declare(&self, name: &Ident, generics: &Generics, case: impl Fn(&Case) -> TokenStream) -> TokenStream {
        let vis = &self.vis;
        let params = &generics.params;
        let bounds = &generics.where_clause;
        if self.is_enum {
            let variants = self.cases.iter().map(|c| {
                let variant = &c.variant;
                let docs = &c.docs;
                let body = case(c);
                quote! { #(#docs)* #variant #body }
            });
            return quote! { #vis enum #name<#params> #bounds { #(#variants,)* } };
        }
        let body = case(&self.cases[0]);
        match self.cases[0].style {
            Style::Named => quote! { #vis struct #name<#params> #bounds #body },
            Style::Tuple | Style::Unit => quote! { #vis struct #name<#params> #body #bounds; },
        }
    }
}

impl Case {
    fn new(variant: Option<Ident>, docs: Vec<Attribute>, fields: Fields) -> Self {
        let style = match &fields {
            Fields::Named(_) => Style::Named,
            Fields::Unnamed(_) => Style::Tuple,
            Fields::Unit => Style::Unit,
        };
        let members: Vec<Member> = fields.members().collect();
        let fields = members
            .into_iter()
            .zip(fields)
            .map(|(member, field)| Field { member, vis: field.vis, docs: self::docs(field.attrs), ty: field.ty })
            .collect();
        Self { variant, style, docs, fields }
    }

    /// The path that builds or matches this case of a type called `name`.
    pub fn path(&self, name: &Ident) -> TokenStream {
        match &self.variant {
            Some(variant) => quote! { #name::#variant },
            None => quote! { #name },
        }
    }

    /// A pattern over all fields of this case of `name`, binding field `i` as `{prefix}{i}`.
    pub fn pattern(&self, name: &Ident, prefix: &str) -> TokenStream {
        let path = self.path(name);
        let members = self.fields.iter().map(|f| &f.member);
        let bindings = self.bindings(prefix);
        quote! { #path { #(#members: #bindings,)* } }
    }

    /// The names that [`pattern`](Self::pattern) binds, invisible to the user's code.
    pub fn bindings(&self, prefix: &str) -> Vec<Ident> {
        (0..self.fields.len()).map(|i| format_ident!("{prefix}{i}", span = Span::mixed_site())).collect()
    }

    /// An expression that builds this case of `name`, each field from its value.
    pub fn build(&self, name: &Ident, value: impl Fn(&Field, &Ident) -> TokenStream, prefix: &str) -> TokenStream {
        let path = self.path(name);
        let members = self.fields.iter().map(|f| &f.member);
        let values = self.fields.iter().zip(self.bindings(prefix)).map(|(f, binding)| value(f, &binding));
        quote! { #path { #(#members: #values,)* } }
    }

    /// The declaration of the fields, as they follow a struct's or a variant's name.
    pub fn declare(&self, field: impl Fn(&Field) -> TokenStream) -> TokenStream {
        let types = self.fields.iter().map(&field);
        match self.style {
            Style::Named => quote! { { #(#types,)* } },
            Style::Tuple => quote! { ( #(#types,)* ) },
            Style::Unit => TokenStream::new(),
        }
    }
}

impl Field {
    /// `name:` of a named field, nothing of a tuple's.
    pub fn label(&self) -> TokenStream {
        match &self.member {
            Member::Named(name) => quote! { #name: },
            Member::Unnamed(_) => TokenStream::new(),
        }
    }

    /// How messages call it.
    pub fn spelling(&self) -> String {
        match &self.member {
            Member::Named(name) => name.unraw().to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        }
    }
}

fn docs(attrs: Vec<Attribute>) -> Vec<Attribute> {
    attrs.into_iter().filter(|attr| attr.path().is_ident("doc")).collect()
}

fn model_path(attrs: &[Attribute]) -> Result<Path, Error> {
    let mut model = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("record")) {
        attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("model") {
                return Err(meta.error("unknown option; the only one is `model = ::path::of::thalweg_model`"));
            }
            if model.is_some() {
                return Err(meta.error("`model` is given twice; leave one"));
            }
            model = Some(meta.value()?.call(Path::parse_mod_style)?);
            Ok(())
        })?;
    }
    Ok(model.unwrap_or_else(|| parse_quote!(::thalweg::model)))
}

/// The generics without defaults, every type parameter bound by `Record`.
fn checked_generics(name: &Ident, mut generics: Generics, model: &Path) -> Result<Generics, Error> {
    let mut bounds = Vec::new();
    for param in &mut generics.params {
        match param {
            GenericParam::Lifetime(param) => {
                let message = format!(
                    "`{name}` has a lifetime, but a record owns its data; use owned fields such as `String` instead \
                     (its view borrows them, so nothing is copied)"
                );
                return Err(Error::new(param.span(), message));
            }
            GenericParam::Const(param) => {
                let message = format!("`{name}` has a const parameter, which records do not support; use a field");
                return Err(Error::new(param.span(), message));
            }
            GenericParam::Type(param) => {
                param.eq_token = None;
                param.default = None;
                bounds.push(param.ident.clone());
            }
        }
    }
    if !bounds.is_empty() {
        let predicates = &mut generics.make_where_clause().predicates;
        predicates.extend(bounds.iter().map(|ident| -> syn::WherePredicate { parse_quote!(#ident: #model::Record) }));
    }
    Ok(generics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(code: &str) -> Result<Input, String> {
        Input::parse(syn::parse_str(code).expect("syntax")).map_err(|error| error.to_string())
    }

    #[test]
    fn when_an_enum_has_more_than_256_variants_then_it_is_refused() {
        let many =
            |count: usize| format!("enum Many {{ {} }}", (0..count).map(|i| format!("V{i},")).collect::<String>());
        assert!(parse(&many(256)).is_ok());
        let error = parse(&many(257)).err().expect("too many");
        assert!(error.contains("257 variants") && error.contains("at most 256"), "{error}");
    }

    #[test]
    fn when_all_fields_are_numbers_then_the_view_is_plain() {
        let plain = |fields: &str| parse(&format!("struct S({fields});")).map(|input| input.plain);
        assert_eq!(plain("u64, Option<(f32, bool)>, ((), char), std::option::Option<i128>"), Ok(true));
        assert_eq!(plain(""), Ok(true));
        for borrowing in ["String", "Vec<u8>", "Option<String>", "Point", "(u8, Point)", "other::u64", "<A as B>::C"] {
            assert_eq!(plain(borrowing), Ok(false), "{borrowing}");
        }
    }

    #[test]
    fn when_a_type_has_the_name_of_a_standard_one_then_a_path_makes_it_a_record() {
        assert!(parse("struct S { span: Duration }").is_err());
        assert!(parse("struct S { span: crate::Duration, grid: Cell, parcel: self::Box<u8> }").is_ok());
    }
}
