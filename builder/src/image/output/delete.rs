//! `mode=delete`: what a directory holds besides the result goes.

use super::{Result, Root, walk};
use crate::beneath::{Dir, kind};
use rustix::fs::FileType;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Removes what lies in `destination` and in none of the roots. Links are removed, never followed.
///
/// # Errors
/// When reading or removing fails.
pub fn keep_only(roots: &[Root<'_>], destination: &Path) -> Result<()> {
    let mut kept: HashSet<PathBuf> = HashSet::new();
    for root in roots {
        kept.extend(root.below.ancestors().map(Path::to_owned));
        walk(&Dir::open(root.path)?, Path::new(""), &mut |path, _| {
            kept.insert(root.below.join(path));
            Ok(())
        })?;
    }
    clear(&Dir::open(destination)?, Path::new(""), &kept)
}

/// Goes no deeper than what is kept, whose depth is bounded.
fn clear(root: &Dir, path: &Path, kept: &HashSet<PathBuf>) -> Result<()> {
    let dir = root.plain_dir(path)?;
    for name in dir.names()? {
        let full = path.join(&name);
        if !kept.contains(&full) {
            dir.remove_all(&name)?;
        } else if dir
            .metadata(&name)?
            .is_some_and(|stat| kind(&stat) == FileType::Directory)
        {
            clear(root, &full, kept)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_result_stays_and_links_are_not_followed() {
        let base = std::env::temp_dir().join(format!("roadstead-delete-{}", std::process::id()));
        for dir in ["root/a", "out/linux_amd64/a/old", "out/gone", "outside"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        for file in [
            "root/a/f",
            "out/linux_amd64/a/f",
            "out/linux_amd64/x",
            "out/gone/x",
            "outside/kept",
        ] {
            std::fs::write(base.join(file), "").unwrap();
        }
        std::os::unix::fs::symlink(base.join("outside"), base.join("out/link")).unwrap();
        let path = base.join("root");
        let root = Root {
            path: &path,
            name: "linux/amd64".to_owned(),
            below: "linux_amd64".into(),
        };
        keep_only(&[root], &base.join("out")).unwrap();
        assert!(base.join("out/linux_amd64/a/f").exists() && base.join("outside/kept").exists());
        for gone in ["out/gone", "out/link", "out/linux_amd64/x", "out/linux_amd64/a/old"] {
            assert!(base.join(gone).symlink_metadata().is_err(), "{gone}");
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
