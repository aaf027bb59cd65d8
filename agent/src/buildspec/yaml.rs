//! YAML as a tree of texts with places; the only module that knows the YAML crate.
//!
//! Scalars stay as they were written (`0.10`, `007`, `yes`), since a buildspec's values are texts for a shell and the crate
//! would make numbers and booleans of them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::NonFiniteFloatPolicy;

/// Bytes of a buildspec at most. Real ones have a few kilobytes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// A place in the text; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) mark: Mark,
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The scalar's text; an empty one for null, `None` for a list or a map.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Null => Some(""),
            Value::Scalar(text) => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What kind of value this is, for a message.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a scalar",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Why a text is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) message: String,
    pub(crate) mark: Option<Mark>,
}

/// Reads one YAML document.
pub(crate) fn read(text: &str) -> Result<Node, YamlError> {
    let options = serde_saphyr::options! { non_finite_float_policy: NonFiniteFloatPolicy::AsString };
    let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let mark = error.location().map(|at| mark_of(at.line(), at.column()));
        let words = error.without_snippet().to_string();
        let message = words
            .lines()
            .next()
            .unwrap_or("not YAML")
            .trim_end_matches('.')
            .to_owned();
        YamlError {
            message,
            mark: mark.filter(|mark| mark.line > 0),
        }
    })?;
    Ok(into_node(raw, text))
}

fn mark_of(line: u64, column: u64) -> Mark {
    Mark {
        line: usize::try_from(line).unwrap_or(0),
        column: usize::try_from(column).unwrap_or(0),
    }
}

/// A value as the crate hands it over: scalars that it took for a number or a boolean are to be read again as written.
#[derive(Debug)]
enum Raw {
    Null,
    Text(String),
    Typed(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
}

fn into_node(raw: Spanned<Raw>, text: &str) -> Node {
    let mark = mark_of(raw.referenced.line(), raw.referenced.column());
    let span = raw.defined.span();
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(scalar) => Value::Scalar(scalar),
        Raw::Typed(parsed) => {
            let start = span.byte_offset().and_then(|offset| usize::try_from(offset).ok());
            let length = span.byte_len().and_then(|length| usize::try_from(length).ok());
            let written = start
                .zip(length)
                .and_then(|(start, length)| text.get(start..start.checked_add(length)?));
            Value::Scalar(
                written
                    .map(|written| written.trim().to_owned())
                    .filter(|w| !w.is_empty())
                    .unwrap_or(parsed),
            )
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| into_node(item, text)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (into_node(key, text), into_node(value, text)))
                .collect(),
        ),
    };
    Node { value, mark }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &Node, index: usize) -> (&Node, &Node) {
        let Value::Map(entries) = &node.value else {
            panic!("{node:?}")
        };
        let (key, value) = &entries[index];
        (key, value)
    }

    #[test]
    fn scalars_stay_as_written() {
        for written in [
            "0.2", "0.10", "007", "1_000", "0x1F", "yes", "Off", "true", "1e3", "12.x", ".inf", "-5", "a b",
        ] {
            let node = read(&format!("key: {written}\n")).unwrap();
            assert_eq!(entry(&node, 0).1.text(), Some(written));
            let list = read(&format!("- {written}  # note\n")).unwrap();
            let Value::List(items) = &list.value else { panic!() };
            assert_eq!(items[0].text(), Some(written));
        }
    }

    #[test]
    fn places_count_from_one() {
        let node = read("a: 1\nlonger:\n  - é: x\n").unwrap();
        assert_eq!(entry(&node, 1).0.mark, Mark { line: 2, column: 1 });
        let Value::List(items) = &entry(&node, 1).1.value else {
            panic!()
        };
        assert_eq!(entry(&items[0], 0).0.mark, Mark { line: 3, column: 5 });
        assert_eq!(entry(&items[0], 0).1.mark, Mark { line: 3, column: 8 });
    }

    #[test]
    fn null_anchors_and_merges() {
        let node = read("base: &b {x: 1}\nother:\n  <<: *b\n  y: ~\nz:\n").unwrap();
        assert_eq!(entry(&node, 2).1.value, Value::Null);
        let other = entry(&node, 1).1;
        let Value::Map(entries) = &other.value else { panic!() };
        assert_eq!(entries.len(), 2);
        assert!(
            entries
                .iter()
                .any(|(key, value)| key.text() == Some("x") && value.text() == Some("1"))
        );
    }

    #[test]
    fn errors_have_a_place() {
        for (text, line) in [
            ("a: [1\nb: 2\n", 2),
            ("a: b: c\n", 1),
            ("a: 1\na: 2\n", 2),
            ("a: 'x\n", 2),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.mark.is_some_and(|mark| mark.line <= line), "{text:?}: {error:?}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn hostile_text_ends() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
            d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
            g: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
        read(bomb).unwrap_err();
        read(&"[".repeat(100_000)).unwrap_err();
    }
}
