//! A record of comma-separated values as Go's reader takes it (RFC 4180): the form of `RUN --mount` and of `--output`.

/// Tells why a record can't be read. The text is a user's own, whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// An unquoted field holds a quote.
    #[error("`{0}` holds a quote within an unquoted field")]
    Quote(String),
    /// Something stands between a closing quote and the next comma.
    #[error("`{0}` follows a closing quote")]
    AfterQuote(String),
    /// The record ends within a quoted field.
    #[error("a quoted field is not closed")]
    Open,
}

/// Splits a record at the commas outside of quotes; `""` within a quoted field is a quote.
///
/// # Errors
/// Quotes that are not in order.
pub fn record(text: &str) -> Result<Vec<String>, CsvError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => unquoted_field(rest)?,
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(CsvError::AfterQuote(after.to_owned())),
        }
    }
}

fn unquoted_field(text: &str) -> Result<(String, &str), CsvError> {
    let (field, after) = text.split_at(text.find(',').unwrap_or(text.len()));
    if field.contains('"') {
        return Err(CsvError::Quote(field.to_owned()));
    }
    Ok((field.to_owned(), after))
}

/// Reads a field behind its opening quote; gives also what follows the closing one.
fn quoted_field(mut rest: &str) -> Result<(String, &str), CsvError> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or(CsvError::Open)?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_as_go_does() {
        let of = |text: &str| record(text).map(|fields| fields.join("|"));
        for (text, want) in [
            ("a=1,b=2", Ok("a=1|b=2")),
            ("a=1,\"name=x,y\",c=3", Ok("a=1|name=x,y|c=3")),
            ("\"a=say \"\"x\"\"\"", Ok("a=say \"x\"")),
            ("\"a,\"\"b\",c", Ok("a,\"b|c")),
            ("", Ok("")),
            ("a,", Ok("a|")),
            ("a=1,\"name=x,y\",c=\"", Err(CsvError::Quote("c=\"".to_owned()))),
            ("\"a\"b", Err(CsvError::AfterQuote("b".to_owned()))),
            ("\"a", Err(CsvError::Open)),
        ] {
            assert_eq!(of(text), want.map(str::to_owned), "{text}");
        }
    }
}
