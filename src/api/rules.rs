//! What a field may hold, said once: as a rule that the API server enforces at admission (CEL, in
//! the kinds' schema) and as the same check here, for manifests from a folder and for whatever an
//! older schema let in. Both refuse with the same words. Pure.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

use super::Malformed;

/// A rule about an object or a list, beside the schema's own types.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The CEL expression that must hold; `self` is the value that it stands at.
    pub cel: &'static str,
    /// What is wrong and what to do.
    pub message: &'static str,
}

/// A text's form.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// RE2, without `'`.
    pattern: &'static str,
    /// The same in Rust; a test holds the two equal.
    holds: fn(&str) -> bool,
    /// Characters at most: without a bound the API server cannot bound the rule's cost.
    max: usize,
    message: &'static str,
}

/// A list's bounds.
#[derive(Clone, Copy, Debug)]
pub struct List {
    most: usize,
    empty: Option<&'static str>,
    items: Option<Format>,
}

/// Rules of a struct, as a schema transform.
#[derive(Clone, Copy, Debug)]
pub struct Rules(pub &'static [Rule]);

/// A list whose items are told apart by these fields.
#[derive(Clone, Copy, Debug)]
pub struct Keyed(pub &'static str);

impl Rule {
    /// A rule.
    #[must_use]
    pub const fn new(cel: &'static str, message: &'static str) -> Self {
        Self { cel, message }
    }

    /// The refusal, where the Rust side of the rule does not hold.
    pub fn check(&self, holds: bool, field: impl Into<String>) -> Result<(), Malformed> {
        if holds {
            return Ok(());
        }
        Err(Malformed::at(field, self.message))
    }
}

impl Format {
    /// The form as a schema's transform.
    #[must_use]
    pub const fn schema(self) -> Self {
        self
    }

    /// A form: RE2 pattern, the same in Rust, characters at most, what to say.
    #[must_use]
    pub const fn new(
        pattern: &'static str,
        holds: fn(&str) -> bool,
        max: usize,
        message: &'static str,
    ) -> Self {
        Self {
            pattern,
            holds,
            max,
            message,
        }
    }

    /// The same form where it means something more special.
    #[must_use]
    pub const fn with_message(mut self, message: &'static str) -> Self {
        self.message = message;
        self
    }

    /// Refuses a text that has another form.
    pub fn check(&self, field: impl Into<String>, text: &str) -> Result<(), Malformed> {
        let count = text.chars().count();
        if count > self.max {
            let problem = format!("is too long: may not be more than {} bytes", self.max);
            return Err(Malformed::at(field, problem));
        }
        if (self.holds)(text) {
            return Ok(());
        }
        let shown: String = text.chars().take(128).collect();
        Err(Malformed::at(field, format!("`{shown}`: {}", self.message)))
    }

    /// As [`Format::check`], where there is a text.
    pub fn check_optional(&self, field: &str, text: Option<&String>) -> Result<(), Malformed> {
        text.map_or(Ok(()), |text| self.check(field, text))
    }

    /// Whether a text has this form.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        text.chars().count() <= self.max && (self.holds)(text)
    }
}

impl List {
    /// The bounds as a schema's transform.
    #[must_use]
    pub const fn schema(self) -> Self {
        self
    }

    /// A list of at most so many items.
    #[must_use]
    pub const fn at_most(most: usize) -> Self {
        Self {
            most,
            empty: None,
            items: None,
        }
    }

    /// May not be empty; what to say when it is.
    #[must_use]
    pub const fn not_empty(mut self, message: &'static str) -> Self {
        self.empty = Some(message);
        self
    }

    /// Texts of this form.
    #[must_use]
    pub const fn of(mut self, items: Format) -> Self {
        self.items = Some(items);
        self
    }

    /// Refuses a list with too many or too few items.
    pub fn check_size(&self, field: &str, size: usize) -> Result<(), Malformed> {
        if size > self.most {
            let problem = format!("too many: must have at most {} items", self.most);
            return Err(Malformed::at(field, problem));
        }
        match self.empty {
            Some(message) if size == 0 => Err(Malformed::at(field, message)),
            _ => Ok(()),
        }
    }

    /// Refuses a list of texts whose size or items are not as they must be.
    pub fn check(&self, field: &str, texts: &[String]) -> Result<(), Malformed> {
        self.check_size(field, texts.len())?;
        for (at, text) in texts.iter().enumerate() {
            if let Some(items) = &self.items {
                items.check(format!("{field}[{at}]"), text)?;
            }
        }
        Ok(())
    }
}

impl Transform for Format {
    fn transform(&mut self, schema: &mut Schema) {
        schema.insert("maxLength".to_owned(), self.max.into());
        let cel = format!("self.matches(r'{}')", self.pattern);
        validate(schema, &cel, self.message);
    }
}

impl Transform for List {
    fn transform(&mut self, schema: &mut Schema) {
        schema.insert("maxItems".to_owned(), self.most.into());
        if let Some(message) = self.empty {
            validate(schema, "size(self) > 0", message);
        }
        let Some(items) = self.items else { return };
        if let Some(inner) = schema.get_mut("items").and_then(Value::as_object_mut) {
            inner.insert("maxLength".to_owned(), items.max.into());
        }
        let cel = format!("self.all(item, item.matches(r'{}'))", items.pattern);
        validate(schema, &cel, items.message);
    }
}

impl Transform for Rules {
    fn transform(&mut self, schema: &mut Schema) {
        for rule in self.0 {
            validate(schema, rule.cel, rule.message);
        }
    }
}

impl Transform for Keyed {
    fn transform(&mut self, schema: &mut Schema) {
        schema.insert("x-kubernetes-list-type".to_owned(), "map".into());
        schema.insert("x-kubernetes-list-map-keys".to_owned(), json!([self.0]));
    }
}

/// Adds a rule to a schema.
fn validate(schema: &mut Schema, cel: &str, message: &str) {
    let rule = json!({"rule": cel, "message": message});
    match schema.get_mut("x-kubernetes-validations") {
        Some(Value::Array(rules)) => rules.push(rule),
        _ => drop(schema.insert("x-kubernetes-validations".to_owned(), json!([rule]))),
    }
}
