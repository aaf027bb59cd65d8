//! The names in a repository: listing tags, and taking images away.

use std::collections::BTreeSet;

use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use crate::error::{RegistryError, Result};
use crate::reference::Reference;
use crate::transport::retry::retry;
use crate::transport::{Answer, Endpoint, Payload, Request, Transport, resolve_location};

const PAGE_SIZE: &str = "1000";
const PAGE_LIMIT: u64 = 4 * 1024 * 1024;
/// A repository with more tags is listed in vain: nobody reads that.
const TAG_LIMIT: usize = 1_000_000;

#[derive(Deserialize)]
struct Page {
    /// Some write `null` for none.
    tags: Option<Vec<String>>,
}

/// Lists the tags of a repository, sorted. What is not a tag is passed over.
pub(crate) async fn list(transport: &Transport, repository: &Reference) -> Result<Vec<String>> {
    let endpoint = transport.endpoint(repository)?;
    let operation = format!("the list of tags of `{}`", repository.name());
    let budget = transport.budget();
    let mut tags = BTreeSet::new();
    let mut url = endpoint.url("tags/list")?;
    url.query_pairs_mut().append_pair("n", PAGE_SIZE);
    loop {
        let ask = || async {
            let request = Request {
                method: Method::GET,
                url: url.clone(),
                operation: &operation,
                scopes: vec![endpoint.scope("pull")],
                headers: HeaderMap::new(),
                payload: Payload::None,
            };
            read_page(&endpoint, &operation, transport.send(&endpoint, request).await?).await
        };
        let (page, link) = retry(&budget, |_| (), ask).await?;
        let found = page.tags.unwrap_or_default().into_iter();
        let before = tags.len();
        tags.extend(found.filter(|tag| repository.with_tag(tag).is_ok()));
        match link {
            Some(_) if tags.len() >= TAG_LIMIT => {
                return Err(RegistryError::InvalidDocument {
                    what: "list of tags",
                    reason: format!("`{}` has more than {TAG_LIMIT}", repository.name()),
                });
            }
            // A page without new tags that names another one could go on for ever.
            Some(link) if tags.len() > before => {
                url = resolve_location(&endpoint, &operation, &url, &link)?;
            }
            _ => break,
        }
    }
    Ok(tags.into_iter().collect())
}

async fn read_page(endpoint: &Endpoint, operation: &str, answer: Answer) -> Result<(Page, Option<String>)> {
    if answer.status() != 200 || answer.is_web_page() {
        return Err(match answer.into_error(endpoint, operation).await {
            RegistryError::Status { status: 404, .. } => RegistryError::RepositoryUnknown {
                host: endpoint.name().registry().to_owned(),
                repository: endpoint.name().repository().to_owned(),
                ecr: false,
                detail: String::new(),
            },
            other => other,
        });
    }
    let link = answer.header(LINK).and_then(next_page).map(str::to_owned);
    let bytes = answer.bytes(endpoint, operation, PAGE_LIMIT).await?;
    let page = serde_json::from_slice(&bytes).map_err(|error| RegistryError::InvalidDocument {
        what: "list of tags",
        reason: error.to_string(),
    })?;
    Ok((page, link))
}

/// Reads `</v2/app/tags/list?n=2&last=b>; rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    let (target, parameters) = header.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters
        .split(';')
        .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
    is_next.then_some(target)
}

/// Takes an image away: the tag alone when the name has one, else the manifest with all of its tags.
pub(crate) async fn remove(transport: &Transport, name: &Reference) -> Result<()> {
    let endpoint = transport.endpoint(name)?;
    let budget = transport.budget();
    let wanted = match name.digest() {
        Some(digest) => digest.to_string(),
        None => name.tag_or_latest().to_owned(),
    };
    let operation = format!("the removal of `{name}`");
    let ask = || async {
        let request = Request {
            method: Method::DELETE,
            url: endpoint.url(&format!("manifests/{wanted}"))?,
            operation: &operation,
            scopes: vec![endpoint.scope("pull,delete")],
            headers: HeaderMap::new(),
            payload: Payload::None,
        };
        let answer = transport.send(&endpoint, request).await?;
        match answer.status().as_u16() {
            200..=299 if !answer.is_web_page() => Ok(()),
            404 => Err(match answer.into_error(&endpoint, &operation).await {
                RegistryError::Status { .. } => RegistryError::NotFound {
                    reference: name.to_string(),
                },
                other => other,
            }),
            _ => Err(answer.into_error(&endpoint, &operation).await),
        }
    };
    match retry(&budget, |_| (), ask).await {
        // Distribution before version 3 removes manifests only, and with them all of their tags: that is not what was asked.
        Err(RegistryError::Status { status: 400 | 405, .. }) if name.digest().is_none() => {
            Err(RegistryError::CannotUntag { name: name.to_string() })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_read() {
        for (header, next) in [
            (
                r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
                Some("/v2/a/tags/list?last=b&n=2"),
            ),
            ("</x>; a=b; rel=next", Some("/x")),
            ("</x>; rel=\"prev\"", None),
            ("</x", None),
            ("", None),
        ] {
            assert_eq!(next_page(header), next, "{header}");
        }
    }
}
