//! Reads the fields of a `config.json` so that every complaint names field, expected and found.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{Error, Result};

thread_local! {
    static ASKED: RefCell<Option<BTreeSet<String>>> = const { RefCell::new(None) };
}

/// Runs `read` and says besides which fields of configs it has asked for. Published configs have many more, so those that
/// nobody reads are passed over; in a config that a person writes they are slips of the pen.
pub fn fields_read_by<T>(read: impl FnOnce() -> T) -> (T, BTreeSet<String>) {
    ASKED.set(Some(BTreeSet::new()));
    let result = read();
    (result, ASKED.take().unwrap_or_default())
}

/// The fields of one JSON object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(&'a Map<String, Value>);

/// A type that a field may have.
pub(crate) trait Field: Sized {
    /// How a person calls it.
    const NAME: &'static str;
    /// The value, if it is of this type.
    fn read(value: &Value) -> Option<Self>;
}

impl Field for usize {
    const NAME: &'static str = "a positive integer";
    fn read(value: &Value) -> Option<Self> {
        // 2³¹ keeps every product of two sizes far from overflow.
        usize::try_from(value.as_u64()?)
            .ok()
            .filter(|n| (1..=1 << 31).contains(n))
    }
}

impl Field for f32 {
    const NAME: &'static str = "a finite number";
    fn read(value: &Value) -> Option<Self> {
        value.as_f64().map(|x| x as f32).filter(|x| x.is_finite())
    }
}

impl Field for bool {
    const NAME: &'static str = "true or false";
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for String {
    const NAME: &'static str = "a string";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl<T: Field> Field for Vec<T> {
    const NAME: &'static str = "a list";
    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::read).collect()
    }
}

impl<'a> Fields<'a> {
    /// The fields of `config`, which should be a `class` (the field `_class_name`, where there is one).
    pub fn of(config: &'a Value, class: &str) -> Result<Self> {
        let fields = Self::of_any_class(config)?;
        fields.only("_class_name", &[class.into()])?;
        Ok(fields)
    }

    /// The fields of `config`, whatever its class.
    pub fn of_any_class(config: &'a Value) -> Result<Self> {
        match config {
            Value::Object(map) => Ok(Fields(map)),
            other => Err(Error::config("{}", "a JSON object", shown(other))),
        }
    }

    fn field(self, name: &str) -> Option<&'a Value> {
        ASKED.with_borrow_mut(|asked| {
            if let Some(asked) = asked {
                asked.insert(name.to_owned());
            }
        });
        self.0.get(name)
    }

    /// The value; none where the field is missing or null.
    pub fn value(self, name: &str) -> Option<&'a Value> {
        self.field(name).filter(|value| !value.is_null())
    }

    /// The field, which has to be there.
    pub fn get<T: Field>(self, name: &str) -> Result<T> {
        match self.field(name) {
            Some(value) => self.typed(name, value),
            None => Err(Error::config(name, T::NAME, "no such field")),
        }
    }

    /// The field, or what diffusers takes where it is missing or null.
    pub fn get_or<T: Field>(self, name: &str, default: T) -> Result<T> {
        self.value(name)
            .map_or(Ok(default), |value| self.typed(name, value))
    }

    fn typed<T: Field>(self, name: &str, value: &Value) -> Result<T> {
        if let Some(list) = value.as_array()
            && let Some(bad) = list
                .iter()
                .position(|item| T::read(&Value::Array(vec![item.clone()])).is_none())
            && T::NAME == "a list"
        {
            return Err(Error::config(
                format!("{name}[{bad}]"),
                "a positive integer or a string as in the other places",
                shown(&list[bad]),
            ));
        }
        T::read(value).ok_or_else(|| Error::config(name, T::NAME, shown(value)))
    }

    /// A list of `count` values, one per level; a single value stands for all of them.
    pub fn per_level<T: Field + Clone>(
        self,
        name: &str,
        count: usize,
        default: Option<T>,
    ) -> Result<Vec<T>> {
        match (self.value(name), default) {
            (Some(list @ Value::Array(_)), _) => {
                let list: Vec<T> = self.typed(name, list)?;
                let expected = || format!("one value, or {count}: one per block");
                check(list.len() == count, name, expected, || {
                    format!("{} values", list.len())
                })?;
                Ok(list)
            }
            (Some(value), _) => Ok(vec![self.typed(name, value)?; count]),
            (None, Some(default)) => Ok(vec![default; count]),
            (None, None) => Ok(vec![self.get(name)?; count]),
        }
    }

    /// Refuses a field whose value is not among `supported`; missing and null are always allowed, because
    /// they stand for the default.
    pub fn only(self, name: &str, supported: &[Value]) -> Result<()> {
        let Some(value) = self.value(name) else {
            return Ok(());
        };
        if supported.iter().any(|allowed| same(value, allowed)) {
            return Ok(());
        }
        let supported: Vec<String> = match supported {
            [] => vec!["null".to_owned()],
            values => values.iter().map(shown).collect(),
        };
        Err(Error::config(
            name,
            format!("{} (nothing else is supported)", supported.join(" or ")),
            shown(value),
        ))
    }
}

/// Equal, numbers by value: `1` in a file means `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// A value as the file has it, cut where it is long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// An error about `field` unless `ok`.
pub(crate) fn check<E: ToString, F: ToString>(
    ok: bool,
    field: impl Into<String>,
    expected: impl FnOnce() -> E,
    found: impl FnOnce() -> F,
) -> Result<()> {
    if ok {
        Ok(())
    } else {
        Err(Error::config(field, expected(), found()))
    }
}

/// Every entry of `channels` divisible by `divisor`, as a group norm needs it.
pub(crate) fn check_groups(field: &str, channels: &[usize], groups: usize) -> Result<()> {
    for (i, &c) in channels.iter().enumerate() {
        let field = format!("{field}[{i}]");
        check(
            c.is_multiple_of(groups),
            field,
            || format!("a multiple of norm_num_groups = {groups}"),
            || c,
        )?;
    }
    Ok(())
}

/// The shortest decimal of an f32, so that 1e-5 is written as 1e-5.
pub(crate) fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_complaint_names_field_expected_and_found() {
        let config = json!({"a": -1, "b": [1, "x"], "c": 2, "d": null});
        let fields = Fields::of(&config, "Any").unwrap();
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(fields.get::<usize>("a").unwrap_err()),
            "field `a`: expected a positive integer, found -1"
        );
        assert_eq!(
            message(fields.get::<usize>("z").unwrap_err()),
            "field `z`: expected a positive integer, found no such field"
        );
        assert!(message(fields.get::<Vec<usize>>("b").unwrap_err()).starts_with("field `b[1]`"));
        assert!(
            message(fields.only("c", &[1.into()]).unwrap_err())
                .ends_with("expected 1 (nothing else is supported), found 2")
        );
        assert_eq!(fields.per_level::<usize>("c", 3, None).unwrap(), [2, 2, 2]);
        assert_eq!(fields.get_or("d", 7usize).unwrap(), 7);
        assert!(fields.only("c", &[json!(2.0)]).is_ok());
        assert!(Fields::of(&json!([]), "Any").is_err());
        assert!(Fields::of(&json!({"_class_name": "Other"}), "Any").is_err());
    }
}
