//! `imagedefinitions.json` and `imageDetail.json`: what CodePipeline's deploy actions read.
//!
//! Source: CodePipeline user guide, "Image definitions file reference".

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file's name as the standard ECS deploy action looks for it.
pub const DEFINITIONS_FILE: &str = "imagedefinitions.json";
/// The file's name as the blue/green deploy action looks for it.
pub const DETAIL_FILE: &str = "imageDetail.json";
/// Bytes of an `imagedefinitions.json` at most; the deploy action refuses a larger one.
pub const MAX_DEFINITIONS_BYTES: usize = 100 * 1024;

/// One container of the task definition and the image it shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDefinition {
    /// The container's name in the task definition.
    pub name: String,
    /// The image, by tag or digest.
    #[serde(rename = "imageUri")]
    pub image_uri: String,
}

/// `imageDetail.json` in the long form that ECR's source action writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageDetail {
    /// Size as text, as ECR's source action has it.
    pub image_size_in_bytes: String,
    /// The manifest's digest.
    pub image_digest: String,
    /// Always `1.0`.
    pub version: String,
    /// When the image was pushed, RFC 3339.
    pub image_pushed_at: String,
    /// The account of an ECR registry, or the registry's host.
    pub registry_id: String,
    /// The repository below the registry.
    pub repository_name: String,
    /// The image by its digest.
    #[serde(rename = "ImageURI")]
    pub image_uri: String,
    /// The tags it was pushed by.
    pub image_tags: Vec<String>,
}

/// Reads an `imagedefinitions.json`.
///
/// # Errors
/// What is wrong with it, in words that name the entry.
pub fn parse_definitions(bytes: &[u8]) -> Result<Vec<ImageDefinition>, String> {
    if bytes.len() > MAX_DEFINITIONS_BYTES {
        return Err(format!(
            "it has {} bytes; the deploy action takes at most {MAX_DEFINITIONS_BYTES}",
            bytes.len()
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.starts_with('\u{feff}') {
        return Err("it begins with a byte order mark".to_owned());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Array(entries) = value else {
        return Err("it is not a JSON array of {\"name\", \"imageUri\"}".to_owned());
    };
    if entries.is_empty() {
        return Err("the array is empty".to_owned());
    }
    let mut definitions: Vec<ImageDefinition> = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let definition = parse_entry(entry).map_err(|reason| format!("entry {position}: {reason}"))?;
        if definitions.iter().any(|earlier| earlier.name == definition.name) {
            return Err(format!(
                "entry {position}: a second entry for container `{}`",
                definition.name
            ));
        }
        definitions.push(definition);
    }
    Ok(definitions)
}

fn parse_entry(entry: &Value) -> Result<ImageDefinition, String> {
    let Value::Object(fields) = entry else {
        return Err("not an object".to_owned());
    };
    let text = |field: &str| match fields.get(field) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::String(_)) => Err(format!("`{field}` is empty")),
        Some(_) => Err(format!("`{field}` is not a string")),
        None => Err(format!("`{field}` is missing")),
    };
    let definition = ImageDefinition {
        name: text("name")?,
        image_uri: text("imageUri")?,
    };
    match fields
        .keys()
        .find(|field| !matches!(field.as_str(), "name" | "imageUri"))
    {
        Some(field) => Err(format!("unknown field `{field}`")),
        None => Ok(definition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong() {
        let cases: [(&str, &str); 8] = [
            ("{}", "not a JSON array"),
            ("[]", "empty"),
            ("[{\"name\":\"a\"}]", "entry 0: `imageUri` is missing"),
            ("[{\"name\":\"a\",\"imageUri\":3}]", "`imageUri` is not a string"),
            ("[{\"name\":\" \",\"imageUri\":\"x\"}]", "`name` is empty"),
            (
                "[{\"name\":\"a\",\"imageUri\":\"x\",\"image\":\"y\"}]",
                "unknown field `image`",
            ),
            (
                "[{\"name\":\"a\",\"imageUri\":\"x\"},{\"name\":\"a\",\"imageUri\":\"y\"}]",
                "entry 1: a second entry",
            ),
            ("[{\"name\":", "not JSON"),
        ];
        for (text, expected) in cases {
            let error = parse_definitions(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let big = format!("[{}]", " ".repeat(MAX_DEFINITIONS_BYTES));
        assert!(
            parse_definitions(big.as_bytes())
                .unwrap_err()
                .contains("at most 102400")
        );
    }

    #[test]
    fn reads_the_documented_form() {
        let definitions = parse_definitions(br#"[{"name":"app","imageUri":"h/r:1"}]"#).unwrap();
        assert_eq!(
            definitions,
            [ImageDefinition {
                name: "app".into(),
                image_uri: "h/r:1".into()
            }]
        );
    }
}
