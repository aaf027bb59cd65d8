//! Names of users and groups, looked up in the image's own `/etc/passwd` and `/etc/group`.

use crate::beneath::{Dir, FileError, Owner};
use std::path::Path;

/// Largest passwd or group file read.
const MAX_BYTES: u64 = 16 << 20;

/// For the kernel this id is nobody: "leave the owner as it is".
const NOBODY: u32 = u32::MAX;

/// Tells why a user or group has no id.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user in the image.
    #[error("no user `{0}` in the image's /etc/passwd")]
    User(String),
    /// No such group in the image.
    #[error("no group `{0}` in the image's /etc/group")]
    Group(String),
    /// The value is empty or malformed.
    #[error("invalid user `{0}`: expected user[:group]")]
    Malformed(String),
    /// The files could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a process of a user runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User and primary group.
    pub owner: Owner,
    /// Supplementary groups; only the own one when the group was given explicitly.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Resolves `user[:group]` for `--chown`. A number needs no entry; a number without group has the group of the same number.
///
/// # Errors
/// A name the image does not know.
pub fn resolve_owner(root: &Dir, spec: &str) -> Result<Owner, UserError> {
    // `:group` is root's.
    let spec = if spec.starts_with(':') {
        format!("0{spec}")
    } else {
        spec.to_owned()
    };
    let (user, group) = split(&spec)?;
    let passwd = read(root, "etc/passwd")?;
    let uid = match user.parse::<u32>() {
        Ok(uid) => uid,
        Err(_) => {
            passwd_entry(&passwd, |name, _| name == user)
                .ok_or_else(|| UserError::User(user.to_owned()))?
                .uid
        }
    };
    let gid = match group {
        Some(group) => group_id(root, group)?,
        None if user.parse::<u32>().is_ok() => uid,
        None => passwd_entry(&passwd, |name, _| name == user).map_or(uid, |e| e.gid),
    };
    Ok(Owner { uid, gid })
}

/// Resolves `USER user[:group]` for a process: ids, supplementary groups and home as the OCI runtimes do.
///
/// # Errors
/// A name the image does not know.
pub fn resolve_user(root: &Dir, spec: &str) -> Result<User, UserError> {
    if spec.is_empty() {
        let passwd = read(root, "etc/passwd")?;
        let home = passwd_entry(&passwd, |_, uid| uid == 0).map_or_else(|| "/".to_owned(), |e| e.home);
        let groups = member_groups(&read(root, "etc/group")?, "root");
        return Ok(User {
            owner: Owner { uid: 0, gid: 0 },
            groups: with_own(0, groups),
            home,
        });
    }
    let (user, group) = split(spec)?;
    let passwd = read(root, "etc/passwd")?;
    let number = user.parse::<u32>().ok();
    let entry = passwd_entry(&passwd, |name, uid| name == user || number == Some(uid));
    let uid = match (number, &entry) {
        (_, Some(entry)) => entry.uid,
        (Some(uid), None) => uid,
        (None, None) => return Err(UserError::User(user.to_owned())),
    };
    let (gid, groups) = match group {
        Some(group) => (group_id(root, group)?, Vec::new()),
        None => {
            let name = entry.as_ref().map_or("", |e| e.name.as_str());
            (
                entry.as_ref().map_or(0, |e| e.gid),
                member_groups(&read(root, "etc/group")?, name),
            )
        }
    };
    let home = entry
        .map(|e| e.home)
        .filter(|h| !h.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    Ok(User {
        owner: Owner { uid, gid },
        groups: with_own(gid, groups),
        home,
    })
}

/// A process has its own group among the supplementary ones, so that it cannot lose it by a change of group (CVE-2022-2995).
fn with_own(gid: u32, mut groups: Vec<u32>) -> Vec<u32> {
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    groups
}

fn split(spec: &str) -> Result<(&str, Option<&str>), UserError> {
    let (user, group) = spec.split_once(':').map_or((spec, None), |(u, g)| (u, Some(g)));
    let nobody = |text: &str| text.parse() == Ok(NOBODY);
    if nobody(user) || group.is_some_and(nobody) {
        return Err(UserError::Malformed(spec.to_owned()));
    }
    if user.is_empty() || group.is_some_and(|g| g.is_empty() || g.contains(':')) {
        return Err(UserError::Malformed(spec.to_owned()));
    }
    Ok((user, group))
}

/// An id in a line of passwd or group; a line with [`NOBODY`] is no entry.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != NOBODY)
}

struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

fn read(root: &Dir, path: &str) -> Result<String, UserError> {
    let bytes = root.read_small(Path::new(path), MAX_BYTES)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn passwd_entry(text: &str, wanted: impl Fn(&str, u32) -> bool) -> Option<Passwd> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            number(fields.next()?)?,
            number(fields.next()?)?,
        );
        let home = fields.nth(1).unwrap_or("").to_owned();
        wanted(name, uid).then(|| Passwd {
            name: name.to_owned(),
            uid,
            gid,
            home,
        })
    })
}

fn group_id(root: &Dir, group: &str) -> Result<u32, UserError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let text = read(root, "etc/group")?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group)
            .then(|| fields.nth(1).and_then(number))
            .flatten()
    });
    found.ok_or_else(|| UserError::Group(group.to_owned()))
}

fn member_groups(text: &str, user: &str) -> Vec<u32> {
    let mut groups: Vec<u32> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let members = fields.get(3)?;
            let gid = number(fields.get(2)?)?;
            (!user.is_empty() && members.split(',').any(|m| m == user)).then_some(gid)
        })
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_groups() {
        let base = std::env::temp_dir().join(format!("roadstead-users-{}", std::process::id()));
        std::fs::create_dir_all(base.join("etc")).unwrap();
        std::fs::write(
            base.join("etc/passwd"),
            "root:x:0:0:r:/root:/bin/sh\nnode:x:1000:1001::/home/node:/bin/sh\nbad\nnobody:x:4294967295:1::/:\n",
        )
        .unwrap();
        std::fs::write(base.join("etc/group"), "root:x:0:\naudio:x:29:x,node\nnode:x:1001:\n").unwrap();
        let root = Dir::open(&base).unwrap();
        let owner = |spec| {
            resolve_owner(&root, spec)
                .map(|o| (o.uid, o.gid))
                .map_err(|e| e.to_string())
        };
        assert_eq!(owner("node"), Ok((1000, 1001)));
        assert_eq!(owner("node:audio"), Ok((1000, 29)));
        assert_eq!(owner("55"), Ok((55, 55)));
        assert_eq!(owner("nobody"), Err(UserError::User("nobody".to_owned()).to_string()));
        assert_eq!(owner("55:0"), Ok((55, 0)));
        assert!(owner("nobody").is_err() && owner("node:x").is_err() && owner(":").is_err());
        let user = resolve_user(&root, "node").unwrap();
        assert_eq!(
            (user.owner.gid, user.groups.as_slice(), user.home.as_str()),
            (1001, &[1001, 29][..], "/home/node")
        );
        assert_eq!(resolve_user(&root, "node:root").unwrap().groups, [0]);
        assert_eq!(resolve_user(&root, "1000").unwrap().home, "/home/node");
        assert_eq!(
            resolve_user(&root, "7").unwrap(),
            User {
                owner: Owner { uid: 7, gid: 0 },
                groups: vec![0],
                home: "/".into()
            }
        );
        std::fs::remove_dir_all(&base).unwrap();
    }
}
