//! A JSON object in which every name stands once: of two values nobody could
//! say which one was meant, and a library takes the last in silence.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The object, and no name in it or in the objects right inside it is twice.
pub(super) struct Object(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(Names).map(Self)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            let value = match from.next_value::<Inner>()? {
                Inner::Object(Object(inner)) => Value::Object(inner),
                Inner::Other(other) => other,
            };
            if object.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format_args!("{name} stands there twice")));
            }
        }
        Ok(object)
    }
}

enum Inner {
    Object(Object),
    Other(Value),
}

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let raw = Box::<serde_json::value::RawValue>::deserialize(input)?;
        let text = raw.get();
        let parsed = if text.starts_with('{') {
            serde_json::from_str(text).map(Self::Object)
        } else {
            serde_json::from_str(text).map(Self::Other)
        };
        parsed.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_a_fault() {
        let read = |text: &str| serde_json::from_str::<Object>(text).map(|object| object.0);
        assert_eq!(read(r#"{"a":1,"card":{"a":[2,{"b":3}]}}"#).unwrap().len(), 2);
        for twice in [r#"{"a":1,"b":2,"a":3}"#, r#"{"card":{"token":"a","token":"b"}}"#] {
            let error = read(twice).unwrap_err().to_string();
            assert!(error.contains("stands there twice"), "{error}");
        }
        assert!(read("[1]").is_err());
    }
}
