//! Names of images in layouts, as the tools write them: full ones, mere tags, or none.

use std::path::Path;

use super::{CONTAINERD_NAME, REF_NAME};
use crate::digest::shorten;
use crate::error::{RegistryError, Result};
use crate::manifest::Descriptor;
use crate::reference::Reference;

/// Names shown when the wanted one is not there.
const SHOWN: usize = 20;

/// An image that may be meant.
#[derive(Debug)]
pub(super) struct Candidate<'a, T> {
    /// All its names, the fullest first.
    pub(super) names: Vec<&'a str>,
    /// Two names of one thing are not ambiguous.
    pub(super) image: T,
}

/// Returns the names of an entry of `index.json`, the fullest first.
pub(super) fn names_of(entry: &Descriptor) -> Vec<&str> {
    let name = |key| entry.annotations.get(key).map(String::as_str);
    let mut names: Vec<&str> = [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(name).collect();
    names.dedup();
    names
}

/// Lists the fullest name of each entry, sorted.
pub(super) fn fullest(entries: &[Descriptor]) -> Vec<String> {
    let fullest = entries.iter().filter_map(|entry| names_of(entry).first().copied());
    let mut names: Vec<String> = fullest.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Finds the image of a name, or the only one.
///
/// A name is looked for as it is, then as the image it means (`app:v1` is `docker.io/library/app:v1`), then as a tag where
/// the other side says more or less: `v1` finds `docker.io/library/app:v1`, and the other way round when the entry has no
/// full name. At each step all that is found must be one image.
pub(super) fn choose<'a, T: PartialEq>(
    path: &Path,
    candidates: &'a [Candidate<'_, T>],
    name: Option<&str>,
) -> Result<&'a T> {
    let Some(name) = name else {
        return match agreed(candidates.iter()) {
            Found::One(image) => Ok(image),
            Found::None => Err(RegistryError::layout(path, "it holds no image")),
            Found::Several => {
                let reason = format!("it holds several images, and none was named: {}", list(candidates));
                Err(RegistryError::layout(path, reason))
            }
        };
    };
    let wanted: Option<Reference> = name.parse().ok();
    let steps: [Step<'_, T>; 3] = [
        &|candidate| candidate.names.contains(&name),
        &|candidate| {
            let canonical = wanted.as_ref().map(Reference::canonical);
            let mut full = candidate.names.iter().filter_map(|name| full_name(name));
            canonical.is_some_and(|canonical| full.any(|name| name.canonical() == canonical))
        },
        &|candidate| tags_agree(candidate, name, wanted.as_ref()),
    ];
    for step in steps {
        match agreed(candidates.iter().filter(|candidate| step(candidate))) {
            Found::One(image) => return Ok(image),
            Found::None => {}
            Found::Several => {
                let reason = format!(
                    "`{}` may mean several images of it: {}",
                    shorten(name),
                    list(candidates)
                );
                return Err(RegistryError::layout(path, reason));
            }
        }
    }
    let reason = format!("it holds no image `{}`, only: {}", shorten(name), list(candidates));
    Err(RegistryError::layout(path, reason))
}

type Step<'s, T> = &'s dyn Fn(&Candidate<'_, T>) -> bool;

enum Found<'a, T> {
    None,
    One(&'a T),
    Several,
}

fn agreed<'a, 'b: 'a, T: PartialEq>(mut found: impl Iterator<Item = &'a Candidate<'b, T>>) -> Found<'a, T> {
    let Some(first) = found.next() else { return Found::None };
    if found.all(|other| other.image == first.image) {
        Found::One(&first.image)
    } else {
        Found::Several
    }
}

fn tags_agree<T>(candidate: &Candidate<'_, T>, name: &str, wanted: Option<&Reference>) -> bool {
    let mut full = candidate.names.iter().filter_map(|name| full_name(name));
    if is_short(name) {
        return full.any(|full| full.tag_or_latest() == name);
    }
    let tag = wanted.map(Reference::tag_or_latest);
    full.next().is_none() && tag.is_some_and(|tag| candidate.names.contains(&tag))
}

/// Tells whether a name has no part that could be a registry or a repository besides a tag.
fn is_short(name: &str) -> bool {
    !name.contains(['/', ':', '@'])
}

/// Reads a name that is more than a tag.
pub(super) fn full_name(name: &str) -> Option<Reference> {
    if is_short(name) {
        return None;
    }
    name.parse().ok()
}

fn list<T>(candidates: &[Candidate<'_, T>]) -> String {
    let mut names: Vec<String> = candidates
        .iter()
        .map(|candidate| {
            candidate
                .names
                .first()
                .map_or_else(|| "one without a name".to_owned(), |name| shorten(name))
        })
        .collect();
    names.sort();
    names.dedup();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names.truncate(SHOWN);
    format!("{}{more}", names.join(", "))
}

/// A name that an image gets in a layout.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// As it was typed, or none.
    Typed(Option<String>),
    /// As `docker buildx build` writes it: containerd's annotation has the name, OCI's the tag.
    Full(Reference),
}

impl Entry {
    /// Entries for several full names, or one without.
    pub(super) fn full(names: &[Reference]) -> Vec<Self> {
        match names {
            [] => vec![Self::Typed(None)],
            names => names.iter().cloned().map(Self::Full).collect(),
        }
    }

    /// The descriptor of an image under the name.
    pub(super) fn of(&self, image: &Descriptor) -> Descriptor {
        match self {
            Self::Typed(name) => entry(image, name.as_deref()),
            Self::Full(name) => {
                let mut entry = super::without_names(image.clone());
                let tag = name.tag_or_latest().to_owned();
                entry.annotations.insert(CONTAINERD_NAME.to_owned(), name.canonical());
                entry.annotations.insert(REF_NAME.to_owned(), tag);
                entry
            }
        }
    }

    /// The name as docker writes it.
    pub(super) fn repo_tag(&self) -> Option<String> {
        let name = match self {
            Self::Typed(name) => full_name(name.as_deref()?)?,
            Self::Full(name) => name.clone(),
        };
        let name = name.without_tag().with_tag(name.tag_or_latest()).ok()?;
        Some(name.familiar())
    }
}

/// Makes an entry under a name as it was typed: what reads it is asked for the same text.
pub(super) fn entry(descriptor: &Descriptor, name: Option<&str>) -> Descriptor {
    let mut entry = super::without_names(descriptor.clone());
    if let Some(name) = name {
        entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        if let Some(full) = full_name(name) {
            entry.annotations.insert(CONTAINERD_NAME.to_owned(), full.canonical());
        }
    }
    entry
}

/// Adds an entry in the place of the one that has its name; one without a name stands for its image.
pub(super) fn put(entries: &mut Vec<Descriptor>, entry: Descriptor) {
    entries.retain(|other| !same_name(other, &entry));
    entries.push(entry);
}

fn same_name(one: &Descriptor, other: &Descriptor) -> bool {
    let name = |entry: &Descriptor, key| entry.annotations.get(key).cloned();
    match (name(one, CONTAINERD_NAME), name(other, CONTAINERD_NAME)) {
        (Some(one), Some(other)) => one == other,
        // A mere tag may stand beside full names that end in it.
        (Some(_), None) | (None, Some(_)) => false,
        (None, None) => match (name(one, REF_NAME), name(other, REF_NAME)) {
            (None, None) => one.digest == other.digest,
            (one, other) => one == other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::media_type;

    fn image(content: &str, names: &[(&str, &str)]) -> Descriptor {
        let mut entry = Descriptor::of(media_type::OCI_MANIFEST, content.as_bytes());
        entry.annotations = names.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        entry
    }

    fn find(entries: &[Descriptor], name: Option<&str>) -> std::result::Result<Descriptor, String> {
        let candidate = |entry| Candidate {
            names: names_of(entry),
            image: super::super::without_names(entry.clone()),
        };
        let candidates: Vec<_> = entries.iter().map(candidate).collect();
        choose(Path::new("place"), &candidates, name)
            .cloned()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_found_as_the_tools_write_them() {
        let entries = [
            image("skopeo", &[(REF_NAME, "quay.io/a/b:v1")]),
            image("umoci", &[(REF_NAME, "latest")]),
            image(
                "buildx",
                &[(CONTAINERD_NAME, "docker.io/library/app:v2"), (REF_NAME, "v2")],
            ),
            image(
                "buildx",
                &[(CONTAINERD_NAME, "docker.io/library/app:v3"), (REF_NAME, "v3")],
            ),
        ];
        for (name, want) in [
            ("quay.io/a/b:v1", Ok("skopeo")),
            ("v1", Ok("skopeo")),
            ("latest", Ok("umoci")),
            ("quay.io/any/thing", Ok("umoci")),
            ("app:v2", Ok("buildx")),
            ("docker.io/library/app:v2", Ok("buildx")),
            ("v3", Ok("buildx")),
            // Its full name is another one.
            ("other:v2", Err("it holds no image `other:v2`, only: ")),
            ("v9", Err("it holds no image `v9`, only: ")),
            ("\u{1b}[31m", Err("it holds no image `?[31m`, only: ")),
        ] {
            let names = "docker.io/library/app:v2, docker.io/library/app:v3, latest, quay.io/a/b:v1";
            let want = want
                .map(|content: &str| Descriptor::of(media_type::OCI_MANIFEST, content.as_bytes()))
                .map_err(|reason| format!("cannot use `place`: {reason}{names}"));
            assert_eq!(find(&entries, Some(name)), want, "{name}");
        }
    }

    #[test]
    fn without_a_name_the_only_image_is_meant() {
        let one = image("x", &[(REF_NAME, "a")]);
        let again = image("x", &[(REF_NAME, "b")]);
        let other = image("y", &[]);
        assert_eq!(find(&[one.clone(), again.clone()], None), Ok(image("x", &[])));
        assert_eq!(find(&[], None), Err("cannot use `place`: it holds no image".to_owned()));
        assert_eq!(
            find(&[one, again, other], None),
            Err("cannot use `place`: it holds several images, and none was named: a, b, one without a name".to_owned())
        );
    }

    #[test]
    fn what_may_mean_two_images_is_refused() {
        let entries = [
            image("x", &[(REF_NAME, "a/b:v1")]),
            image("y", &[(REF_NAME, "c/d:v1")]),
            image("x", &[(REF_NAME, "twice")]),
            image("y", &[(REF_NAME, "twice")]),
        ];
        for name in ["v1", "twice"] {
            let message = find(&entries, Some(name)).unwrap_err();
            assert!(message.contains("may mean several images"), "{message}");
        }
        assert_eq!(find(&entries, Some("a/b:v1")), Ok(image("x", &[])));
    }

    #[test]
    fn an_entry_takes_the_place_of_its_name() {
        let descriptor = image("new", &[(REF_NAME, "stale"), ("kept", "1")]);
        let mut entries = vec![
            image("old", &[(REF_NAME, "v1")]),
            image(
                "old",
                &[(CONTAINERD_NAME, "docker.io/library/app:v1"), (REF_NAME, "v1")],
            ),
            image("old", &[(REF_NAME, "v2")]),
            image("old", &[]),
        ];
        put(&mut entries, entry(&descriptor, Some("app:v1")));
        put(&mut entries, entry(&image("old", &[]), None));
        let names: Vec<_> = entries.iter().map(|entry| (names_of(entry), &entry.digest)).collect();
        let (new, old) = (&crate::digest::Digest::of(b"new"), &crate::digest::Digest::of(b"old"));
        assert_eq!(
            names,
            [
                (vec!["v1"], old),
                (vec!["v2"], old),
                (vec!["docker.io/library/app:v1", "app:v1"], new),
                (vec![], old)
            ]
        );
        assert_eq!(entries[2].annotations["kept"], "1");
    }
}
