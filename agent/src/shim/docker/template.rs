//! The Go templates of `--format` that buildspecs use: paths, `json`, and `index` with a path, a number or a key.
//!
//! Anything else is an error, since half a template engine would print half an answer.

use serde_json::Value;

/// Puts `value` into `template`; `json` alone means the whole value.
pub(super) fn render(template: &str, value: &Value) -> Result<String, String> {
    if template == "json" {
        return Ok(value.to_string());
    }
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after
            .split_once("}}")
            .ok_or("template parsing error: unclosed action")?;
        out.push_str(before);
        out.push_str(&evaluate(action.trim_matches('-').trim(), value)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out.replace("\\n", "\n").replace("\\t", "\t"))
}

fn evaluate(action: &str, value: &Value) -> Result<String, String> {
    let refused = || format!("template `{{{{{action}}}}}` is not served by roadstead");
    let words: Vec<&str> = action.split_whitespace().collect();
    match words[..] {
        [path] if path.starts_with('.') => go_text(lookup(path, value)?).ok_or_else(refused),
        ["json", path] if path.starts_with('.') => Ok(lookup(path, value)?.to_string()),
        ["index", path, ref keys @ ..] if path.starts_with('.') && !keys.is_empty() => {
            let mut found = lookup(path, value)?;
            for key in keys {
                found = index(found, key)?;
            }
            go_text(found).ok_or_else(refused)
        }
        _ => Err(refused()),
    }
}

fn lookup<'v>(path: &str, value: &'v Value) -> Result<&'v Value, String> {
    let mut found = value;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        // Go's templates name a field as the struct does, documents as JSON does: `Digest`, `digest`.
        found = found
            .get(part)
            .or_else(|| found.get(lower_first(part)))
            .ok_or_else(|| format!("template parsing error: map has no entry for key \"{part}\""))?;
    }
    Ok(found)
}

fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

fn index<'v>(value: &'v Value, key: &str) -> Result<&'v Value, String> {
    if let Some(name) = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
        // A key that is missing has Go's zero value.
        return Ok(value.get(name).unwrap_or(&Value::Null));
    }
    let number: usize = key
        .parse()
        .map_err(|_| format!("template parsing error: `{key}` is no index"))?;
    value
        .get(number)
        .ok_or_else(|| format!("template parsing error: error calling index: index out of range: {number}"))
}

/// A value as Go's templates print it; `None` for what only `json` prints well.
fn go_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("<no value>".to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(go_text).collect();
            Some(format!("[{}]", items?.join(" ")))
        }
        Value::Object(fields) => {
            let fields: Option<Vec<String>> = fields
                .iter()
                .map(|(name, value)| Some(format!("{name}:{}", go_text(value)?)))
                .collect();
            Some(format!("map[{}]", fields?.join(" ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_forms_of_buildspecs() {
        let value = json!({"Id": "sha256:a", "RepoDigests": ["h/r@sha256:b"], "Size": 7,
            "Descriptor": {"mediaType": "t"}, "Config": {"Env": ["A=1", "B=2"], "Labels": {"x.y": "z"}}});
        for (template, text) in [
            ("{{index .RepoDigests 0}}", "h/r@sha256:b"),
            ("{{ .Id }} {{.Size}}", "sha256:a 7"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{index .Config.Labels \"x.y\"}}", "z"),
            ("{{.Config.Labels}}", "map[x.y:z]"),
            ("{{.Descriptor.MediaType}}", "t"),
            ("plain", "plain"),
        ] {
            assert_eq!(render(template, &value).unwrap(), text, "{template}");
        }
        for template in [
            "{{range .RepoDigests}}x{{end}}",
            "{{.Nope}}",
            "{{index .RepoDigests 1}}",
            "{{.Id",
            "{{len .Id}}",
        ] {
            assert!(render(template, &value).is_err(), "{template}");
        }
    }
}
