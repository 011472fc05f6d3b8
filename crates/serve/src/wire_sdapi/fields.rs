//! The fields of a request, read one after the other: what is left at the end was not understood.

use serde_json::{Map, Value};

use crate::problem::Problem;

/// The fields of a request that nobody has taken yet.
pub(super) struct Fields(pub Map<String, Value>);

impl Fields {
    /// A field that has not been taken yet; `null` is none.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    pub fn number(&mut self, field: &str) -> Result<Option<f64>, Problem> {
        self.take(field)
            .map(|value| {
                value
                    .as_f64()
                    .ok_or_else(|| Problem::field(field, "a number", &value))
            })
            .transpose()
    }

    /// A whole number; JSON has 20 and 20.0.
    pub fn whole(&mut self, field: &str) -> Result<Option<i64>, Problem> {
        let Some(number) = self.number(field)? else {
            return Ok(None);
        };
        if number.fract() == 0.0 && number.abs() < 9.1e15 {
            return Ok(Some(number as i64));
        }
        Err(Problem::field(field, "a whole number", number))
    }

    pub fn count(&mut self, field: &str) -> Result<Option<usize>, Problem> {
        self.whole(field)?
            .map(|number| {
                usize::try_from(number)
                    .map_err(|_| Problem::field(field, "a number that is not negative", number))
            })
            .transpose()
    }

    pub fn flag(&mut self, field: &str) -> Result<Option<bool>, Problem> {
        self.take(field)
            .map(|value| match (&value, value.as_f64()) {
                (Value::Bool(flag), _) => Ok(*flag),
                (_, Some(number)) if number == 0.0 || number == 1.0 => Ok(number == 1.0),
                _ => Err(Problem::field(field, "true or false", &value)),
            })
            .transpose()
    }

    pub fn text(&mut self, field: &str) -> Result<Option<String>, Problem> {
        self.take(field)
            .map(|value| match value {
                Value::String(text) => Ok(text),
                other => Err(Problem::field(field, "a text", other)),
            })
            .transpose()
    }
}
