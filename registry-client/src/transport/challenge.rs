//! `WWW-Authenticate`: how a registry asks for a login (RFC 9110, section 11.6.1).

/// One challenge of a 401 answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// More than this in one header is an attack, not a challenge.
const HEADER_LIMIT: usize = 16 * 1024;

/// Reads all challenges of a header that are understood here.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    if header.len() > HEADER_LIMIT {
        return Vec::new();
    }
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for item in split_outside_quotes(header) {
        let item = item.trim();
        // `Bearer realm="x"` starts a challenge, `service="y"` continues it, `Basic` alone is one without parameters.
        let (scheme, parameter) = match item.split_once([' ', '\t']) {
            Some((scheme, parameter)) if !scheme.contains('=') => (Some(scheme), parameter.trim()),
            _ if !item.contains('=') => (Some(item), ""),
            _ => (None, item),
        };
        if let Some(scheme) = scheme.filter(|scheme| !scheme.is_empty()) {
            challenges.push((scheme.to_ascii_lowercase(), Vec::new()));
        }
        if let (Some((_, parameters)), Some((name, value))) = (challenges.last_mut(), parameter.split_once('=')) {
            parameters.push((name.trim().to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    challenges
        .into_iter()
        .filter_map(|(scheme, parameters)| understand(&scheme, &parameters))
        .collect()
}

fn understand(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |wanted: &str| {
        parameters
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.clone())
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
        }),
        _ => None,
    }
}

fn split_outside_quotes(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let text = |value: Option<&str>| value.map(str::to_owned);
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: text(service),
            scope: text(scope),
        }
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        for (header, expected) in [
            (
                hub,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (
                r#"Basic realm="https://x.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com""#,
                vec![Challenge::Basic],
            ),
            ("basic", vec![Challenge::Basic]),
            (
                r#"BEARER REALM=https://t.example , service="a\"b,c""#,
                vec![bearer("https://t.example", Some("a\"b,c"), None)],
            ),
            (
                r#"Basic realm="x", Bearer realm="https://t""#,
                vec![Challenge::Basic, bearer("https://t", None, None)],
            ),
            (r#"Negotiate, Basic realm="x""#, vec![Challenge::Basic]),
            (r#"Bearer service="no realm""#, vec![]),
            ("Digest realm=\"x\"", vec![]),
            ("", vec![]),
            (",,,", vec![]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(header in "(Bearer |Basic |[a-z]+=|\"|,|\\\\|é| ){0,20}|.{0,60}") {
            drop(parse(&header));
        }
    }
}
