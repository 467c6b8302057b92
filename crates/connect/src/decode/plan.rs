//! Options checked against a schema: what every row of an input is decoded by. Made once, shared by all inputs of a stream.

use super::options::{DecodeOptions, OptionsError, unknown_column};
use super::table::Table;
use super::value::Value;
use mulgil_model::avro::WireSchema;
use mulgil_model::columns::Cell;
use mulgil_model::schema::{StreamKind, StreamSchema};
use mulgil_model::time::ReceiveTime;
use std::sync::Arc;

/// What a column means, and so how its values are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    Key,
    Symbol,
    Positive,
    Side,
    EventTime,
}

/// Cheap to share behind an `Arc`; holds no state of any input.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) schema: Arc<StreamSchema>,
    pub(crate) options: DecodeOptions,
    pub(crate) roles: Vec<Role>,
    /// Names of the input's fields with the column each fills.
    fields: Vec<(Box<str>, usize)>,
    /// The row before any field is read: constants filled, everything else missing, and the text that the constants point into.
    pub(crate) template: Vec<Cell>,
    pub(crate) template_text: String,
    /// Avro schemas that messages may have been written with, the stream's own among them.
    pub(crate) wire: Vec<WireSchema>,
}

impl Plan {
    pub fn new(schema: Arc<StreamSchema>, options: DecodeOptions) -> Result<Self, OptionsError> {
        let mapping = &options.mapping;
        if let Some(column) = mapping.columns.keys().chain(mapping.constants.keys()).find(|c| schema.index_of(c).is_none()) {
            return Err(unknown_column(column, &schema));
        }
        if let Some(column) = mapping.constants.keys().find(|c| mapping.columns.contains_key(*c)) {
            return Err(OptionsError::Both { column: column.clone() });
        }
        let fields = fields_of(&schema, &options)?;
        let template = vec![Cell::Missing; schema.columns.len()];
        let wire = vec![WireSchema::of(&schema)];
        let roles = roles_of(&schema);
        let mut plan = Self { schema, options, roles, fields, template, template_text: String::new(), wire };
        plan.fill_constants()?;
        Ok(plan)
    }

    /// Also accepts Avro messages written with these schemas, such as the stream's earlier ones.
    #[must_use]
    pub fn with_wire_schemas(mut self, schemas: impl IntoIterator<Item = WireSchema>) -> Self {
        self.wire.extend(schemas);
        self
    }

    pub fn schema(&self) -> &Arc<StreamSchema> {
        &self.schema
    }

    pub fn options(&self) -> &DecodeOptions {
        &self.options
    }

    /// The column that a field fills. Fields mostly come in the same order, so `hint` is tried first.
    pub(crate) fn column_of(&self, field: &str, hint: &mut usize) -> Option<usize> {
        let at = match self.fields.get(*hint) {
            Some((name, _)) if **name == *field => *hint,
            _ => self.fields.iter().position(|(name, _)| **name == *field)?,
        };
        *hint = at + 1;
        Some(self.fields[at].1)
    }

    /// What the input calls a column.
    pub(crate) fn field_name(&self, column: usize) -> &str {
        self.options.mapping.source_of(&self.schema.columns[column].name).unwrap_or(&self.schema.columns[column].name)
    }

    pub(crate) fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| &**name)
    }

    /// Fields without which no row can be good.
    pub(crate) fn required_fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|(_, c)| !self.schema.columns[*c].nullable).map(|(name, _)| &**name)
    }

    fn fill_constants(&mut self) -> Result<(), OptionsError> {
        let constants = self.options.mapping.constants.clone();
        // A constant is checked like any value; an event time far in the future is the user's own choice here.
        let mut table = Table::new(&Arc::new(self.clone()), ReceiveTime(i64::MAX));
        table.begin_row();
        for (column, text) in &constants {
            let at = table.plan().schema.index_of(column).expect("the names of constants were checked");
            table.set(at, Value::Text(text), 0).map_err(|e| OptionsError::Constant { column: column.clone(), reason: e.reason })?;
        }
        let (cells, text) = table.staged();
        (self.template, self.template_text) = (cells, text);
        Ok(())
    }
}

fn fields_of(schema: &StreamSchema, options: &DecodeOptions) -> Result<Vec<(Box<str>, usize)>, OptionsError> {
    let mut fields: Vec<(Box<str>, usize)> = Vec::with_capacity(schema.columns.len());
    for (i, column) in schema.columns.iter().enumerate() {
        let Some(source) = options.mapping.source_of(&column.name) else { continue };
        if let Some((_, other)) = fields.iter().find(|(name, _)| **name == *source) {
            let first = schema.columns[*other].name.clone();
            return Err(OptionsError::FieldTwice { first, second: column.name.clone(), field: source.to_owned() });
        }
        fields.push((source.into(), i));
    }
    Ok(fields)
}

fn roles_of(schema: &StreamSchema) -> Vec<Role> {
    let trade = schema.kind == StreamKind::Trade;
    let role = |(i, name): (usize, &str)| match name {
        _ if i == schema.event_time => Role::EventTime,
        _ if i == schema.key => {
            if trade {
                Role::Symbol
            } else {
                Role::Key
            }
        }
        "price" | "quantity" if trade => Role::Positive,
        "side" if trade => Role::Side,
        _ => Role::Plain,
    };
    schema.columns.iter().map(|c| c.name.as_str()).enumerate().map(role).collect()
}
