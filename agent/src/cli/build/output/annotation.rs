//! Annotations as buildx takes them: `--annotation [TYPE[[PLATFORM]],...:]key=value`, and the keys `annotation[-TYPE][[PLATFORM]].key` of
//! `--output`.

use roadstead_builder::image::form::{Annotation, Place};

/// Reads `--annotation`. Several types make several annotations.
pub(super) fn flag(text: &str) -> Result<Vec<Annotation>, String> {
    let wrong = || format!("invalid annotation `{text}`: expected [TYPE[[PLATFORM]]:]KEY=VALUE");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let (types, key) = match name.split_once(':') {
        Some((types, key)) => (types, key),
        None => ("manifest", name),
    };
    if key.is_empty() {
        return Err(wrong());
    }
    types.split(',').map(|one| annotation(one, key, value)).collect()
}

/// Reads a key of `--output` that begins with `annotation`.
pub(super) fn key(name: &str, value: &str) -> Result<Annotation, String> {
    let wrong = || format!("invalid annotation `{name}`: expected annotation[-TYPE][[PLATFORM]].KEY=VALUE");
    let rest = name.strip_prefix("annotation").ok_or_else(wrong)?;
    // A platform has no dot, a key mostly has.
    let (head, key) = rest
        .split_once('.')
        .filter(|(_, key)| !key.is_empty())
        .ok_or_else(wrong)?;
    let kind = match head.strip_prefix('-') {
        Some(kind) => kind.to_owned(),
        None if head.is_empty() || head.starts_with('[') => format!("manifest{head}"),
        None => return Err(wrong()),
    };
    annotation(&kind, key, value)
}

/// Makes an annotation out of `TYPE[[PLATFORM]]`.
fn annotation(kind: &str, key: &str, value: &str) -> Result<Annotation, String> {
    let (name, platform) = match kind.split_once('[') {
        None => (kind, None),
        Some((name, rest)) => {
            let platform = rest
                .strip_suffix(']')
                .ok_or_else(|| format!("invalid annotation type `{kind}`: `]` is missing"))?;
            let parsed = platform
                .parse()
                .map_err(|e| format!("invalid annotation type `{kind}`: {e}"))?;
            (name, Some(parsed))
        }
    };
    let place = match name {
        "manifest" => Place::Manifest,
        "index" => Place::Index,
        "manifest-descriptor" => Place::ManifestDescriptor,
        "index-descriptor" => Place::IndexDescriptor,
        _ => {
            return Err(format!(
                "unknown annotation type `{name}`: it is manifest, index, manifest-descriptor or index-descriptor"
            ));
        }
    };
    if platform.is_some() && matches!(place, Place::Index | Place::IndexDescriptor) {
        return Err(format!(
            "invalid annotation type `{kind}`: an index is for all platforms"
        ));
    }
    Ok(Annotation {
        place,
        platform,
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_keys() {
        let one = |text: &str| flag(text).unwrap().pop().unwrap();
        assert_eq!(one("a.b=c=d").place, Place::Manifest);
        assert_eq!((one("a.b=c=d").key, one("a.b=c=d").value), ("a.b".into(), "c=d".into()));
        let both = flag("index,manifest-descriptor[linux/arm64]:k=v").unwrap();
        assert_eq!(
            (both[0].place, both[1].place),
            (Place::Index, Place::ManifestDescriptor)
        );
        assert_eq!(both[1].platform, Some("linux/arm64".parse().unwrap()));
        assert_eq!(key("annotation.org.x", "1").unwrap().key, "org.x");
        assert_eq!(key("annotation-index.a", "1").unwrap().place, Place::Index);
        assert_eq!(
            key("annotation-manifest[linux/arm/v7].a", "1")
                .unwrap()
                .platform
                .unwrap()
                .to_string(),
            "linux/arm/v7"
        );
        assert_eq!(key("annotation[linux/arm64].a.b", "1").unwrap().key, "a.b");
        for bad in [
            "a",
            ":a=b",
            "manifest:=b",
            "layer:a=b",
            "manifest[x:a=b",
            "manifest[x]:a=b",
            "index[linux/amd64]:a=b",
        ] {
            flag(bad).unwrap_err();
        }
        for bad in ["annotation", "annotation.", "annotationx.a", "annotation-layer.a"] {
            key(bad, "1").unwrap_err();
        }
    }
}
