//! Changes made to a tree are found, all of them, and written as those of an overlay are.

use super::site::{EPOCH, Site, append, listing, may_mount};
use crate::layer::tar::TarWriter;
use crate::rootfs::aside::Aside;
use crate::rootfs::diff::{self, Options};
use crate::rootfs::overlay::{ChainId, Layers, RootForm, Rootfs};
use proptest::prelude::*;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A tree with something in every place that changes may name.
const BASE: [&str; 2] = [
    "d a; f a/a = 1 @ 640 0; d a/b; f a/b/a = 2; f a/b/b = 3; l a/c > b; d b; d b/a; f b/a/c = 4",
    "d b; f b/b = 5; d c; l c/a > ../a; p c/b; d c/c @ 1777 0; w a/c; d a/b",
];

/// What is done to a tree: a number, and two places.
type Change = (u8, u8, u8);

/// How many kinds of changes there are; the last ones are not the same in overlays.
const KINDS: u8 = 17;
const OVERLAY_KINDS: u8 = 14;
/// A new file with two names. In an overlay, the next step changes them one by one.
const TWICE: u8 = 12;

fn place(number: u8) -> PathBuf {
    let names = ["a", "b", "c"];
    let name = |at: u8| names[usize::from(at % 3)];
    match number / 3 % 4 {
        0 => PathBuf::from(name(number)),
        1 | 2 => Path::new(name(number)).join(name(number / 12)),
        _ => Path::new(name(number)).join(name(number / 12)).join(name(number / 36)),
    }
}

/// Makes one change, if it can be made there.
fn change(root: &Path, (kind, first, second): Change) {
    let (one, other) = (root.join(place(first)), root.join(place(second)));
    let is_plain = |path: &Path| fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file());
    let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|stat| stat.is_dir());
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    // Links lead out of where changes are meant; on the way to a place there are none, or nothing happens.
    let through_link = |path: &Path| {
        let below = path.strip_prefix(root).unwrap().ancestors().skip(1);
        below
            .into_iter()
            .any(|above| fs::symlink_metadata(root.join(above)).is_ok_and(|stat| stat.is_symlink()))
    };
    if through_link(&one) || through_link(&other) {
        return;
    }
    let done = match kind {
        0 if is_plain(&one) || !is_there(&one) => fs::write(&one, format!("new {second}")),
        1 if is_plain(&one) => fs::File::options()
            .append(true)
            .open(&one)
            .and_then(|mut file| file.write_all(b"+")),
        2 if !is_dir(&one) => fs::remove_file(&one),
        3 if is_dir(&one) => fs::remove_dir_all(&one),
        4 => fs::create_dir(&one),
        5 if is_dir(&one) => fs::remove_dir_all(&one).and_then(|()| fs::create_dir(&one)),
        6 if is_plain(&one) && !is_dir(&other) => fs::rename(&one, &other),
        7 => std::os::unix::fs::symlink("a", &one),
        8 if is_there(&one) => fs::set_permissions(&one, fs::Permissions::from_mode(0o700 | u32::from(second % 64))),
        9 if is_plain(&one) => rewrite_in_place(&one),
        10 if !is_there(&one) => {
            rustix::fs::mknodat(rustix::fs::CWD, &one, rustix::fs::FileType::Fifo, 0o640.into(), 0).map_err(Into::into)
        }
        11 if is_plain(&one) || is_dir(&one) => {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&one, "user.new", &[second], flags).map_err(Into::into)
        }
        TWICE if !is_there(&one) && !is_there(&other) => {
            fs::write(&one, "twice").and_then(|()| fs::hard_link(&one, &other))
        }
        13 if !is_there(&one) => fs::write(&one, "short").and_then(|()| fs::remove_file(&one)),
        14 => fs::rename(&one, &other),
        15 if is_plain(&one) => fs::hard_link(&one, &other),
        16 if is_dir(&one) => fs::rename(&one, root.join("aside")).and_then(|()| fs::rename(root.join("aside"), &one)),
        _ => Ok(()),
    };
    // What cannot be done there is not done.
    drop(done);
}

/// Changes a byte and leaves size and modification time as they are.
fn rewrite_in_place(path: &Path) -> std::io::Result<()> {
    let mut content = fs::read(path)?;
    let modified = fs::metadata(path)?.modified()?;
    content.iter_mut().for_each(|byte| *byte ^= 1);
    let mut file = fs::File::options().write(true).open(path)?;
    file.write_all(&content)?;
    file.set_modified(modified)
}

/// Writes the changes of a root file system as a layer.
fn layer_of(layers: &Layers, rootfs: &mut Rootfs, chain: &[ChainId]) -> (usize, Vec<u8>) {
    let mut tar = TarWriter::new(Vec::new());
    let options = Options {
        epoch: Some(EPOCH),
        whiteouts: true,
        ..Options::default()
    };
    let count = match layers.form() {
        RootForm::Directories => rootfs.write_changes(&mut tar, &options, &Aside::default()).unwrap(),
        RootForm::Overlay => {
            rootfs.unmount();
            let lowers = layers.lowers(chain).unwrap();
            let options = Options {
                lowers: &lowers,
                ..options
            };
            diff::write(&rootfs.changes().unwrap(), &mut tar, &options).unwrap()
        }
    };
    (count, tar.finish().unwrap())
}

fn base(site: &Site) -> Vec<crate::layer::write::Layer> {
    let layer = |text: &&str| site.layer(|tar| text.split("; ").for_each(|line| append(tar, line)));
    BASE.iter().map(layer).collect()
}

/// Names the entries of a layer.
fn entries(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

fn changes(kinds: u8) -> impl Strategy<Value = Vec<Vec<Change>>> {
    let step = prop::collection::vec((0..kinds, any::<u8>(), any::<u8>()), 1..12);
    prop::collection::vec(step, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Applying the layers of some steps, written one after the other from one tree, gives that tree.
    #[test]
    fn layers_hold_all_changes(steps in changes(KINDS)) {
        if !may_mount("layers_hold_all_changes") {
            return Ok(());
        }
        let site = Site::new();
        let mut stack = base(&site);
        let layers = site.layers(RootForm::Directories);
        for step in &steps {
            let chain = site.unpack(&layers, &stack);
            let mut rootfs = layers.mount(&chain, None).unwrap();
            let before = listing(rootfs.path());
            step.iter().for_each(|one| change(rootfs.path(), *one));
            let (count, bytes) = layer_of(&layers, &mut rootfs, &chain);
            if count == 0 {
                prop_assert_eq!(listing(rootfs.path()), before);
                continue;
            }
            stack.push(site.store_tar(&bytes));
            let chain = site.unpack(&layers, &stack);
            let now = listing(rootfs.path());
            layers.adopt(rootfs, chain.last().unwrap()).unwrap();
            // Out of the blobs alone.
            let others = site.layers(RootForm::Directories);
            let chain = site.unpack(&others, &stack);
            prop_assert_eq!(listing(others.mount_readonly(&chain).unwrap().path()), now, "{:?}", entries(&bytes));
        }
    }

    /// The same changes give the same bytes in both forms.
    #[test]
    fn privileged_layers_are_those_of_overlays(steps in changes(OVERLAY_KINDS)) {
        if !may_mount("privileged_layers_are_those_of_overlays") {
            return Ok(());
        }
        let site = Site::new();
        let mut stack = base(&site);
        let forms = [RootForm::Overlay, RootForm::Directories].map(|form| site.layers(form));
        for (number, step) in steps.iter().enumerate() {
            let is_last = number + 1 == steps.len();
            let [overlay, tree] = [0, 1].map(|at| {
                let layers = &forms[at];
                let chain = site.unpack(layers, &stack);
                let mut rootfs = layers.mount(&chain, None).unwrap();
                let alike = step.iter().filter(|(kind, ..)| is_last || *kind != TWICE);
                alike.for_each(|one| change(rootfs.path(), *one));
                layer_of(layers, &mut rootfs, &chain)
            });
            prop_assert_eq!(entries(&tree.1), entries(&overlay.1));
            prop_assert!(tree == overlay);
            if tree.0 > 0 {
                stack.push(site.store_tar(&tree.1));
            }
        }
    }
}

/// A change in the very moment after a tree was given out has a later change time than anything in it. On ramfs the clock of change times
/// ticks slowly, on every kernel.
#[test]
fn privileged_changes_at_once_are_found() {
    if !may_mount("privileged_changes_at_once_are_found") {
        return;
    }
    for site in [Site::new(), Site::on_ramfs()] {
        let stack = [site.layer(|tar| ["d a", "f a/a = 1"].iter().for_each(|line| append(tar, line)))];
        let layers = site.layers(RootForm::Directories);
        let chain = site.unpack(&layers, &stack);
        for _ in 0..100 {
            let mut rootfs = layers.mount(&chain, None).unwrap();
            rewrite_in_place(&rootfs.path().join("a/a")).unwrap();
            let (_, bytes) = layer_of(&layers, &mut rootfs, &chain);
            assert_eq!(entries(&bytes), ["a/", "a/a"]);
            // Again, after the writer has set times.
            layers.adopt(rootfs, &chain[0]).unwrap();
            let mut rootfs = layers.mount(&chain, None).unwrap();
            rewrite_in_place(&rootfs.path().join("a/a")).unwrap();
            let (_, bytes) = layer_of(&layers, &mut rootfs, &chain);
            assert_eq!(entries(&bytes), ["a/", "a/a"]);
        }
    }
}

#[test]
fn privileged_what_a_sandbox_did_does_not_show() {
    if !may_mount("privileged_what_a_sandbox_did_does_not_show") {
        return;
    }
    let site = Site::new();
    let stack = base(&site);
    let layers = site.layers(RootForm::Directories);
    let chain = site.unpack(&layers, &stack);
    let mut rootfs = layers.mount(&chain, None).unwrap();
    let root = rootfs.path().to_owned();
    // Moved away and back, with something in its place meanwhile.
    let stand_in = || {
        fs::rename(root.join("a/b"), root.join("a/away")).unwrap();
        fs::create_dir(root.join("a/b")).unwrap();
        fs::remove_dir(root.join("a/b")).unwrap();
        fs::rename(root.join("a/away"), root.join("a/b")).unwrap();
    };
    let aside = Aside {
        leave_out: vec!["mine".into()],
        untouched_dirs: vec!["a".into()],
        untouched: vec!["a/b".into()],
    };
    let write = |rootfs: &mut Rootfs| {
        let mut tar = TarWriter::new(Vec::new());
        let options = Options::default();
        rootfs.write_changes(&mut tar, &options, &aside).unwrap();
        entries(&tar.finish().unwrap())
    };
    stand_in();
    fs::create_dir(root.join("mine")).unwrap();
    assert_eq!(write(&mut rootfs), [""; 0]);
    fs::remove_dir(root.join("mine")).unwrap();
    // What the command did beside it shows, then and later.
    stand_in();
    fs::write(root.join("a/new"), "").unwrap();
    assert_eq!(write(&mut rootfs), ["a/", "a/new"]);
    stand_in();
    assert_eq!(write(&mut rootfs), [""; 0]);
    rewrite_in_place(&root.join("a/b/a")).unwrap();
    let looks = fs::metadata(root.join("a/b/a")).unwrap().ctime_nsec();
    assert!(looks > 0);
    let mut tar = TarWriter::new(Vec::new());
    rootfs
        .write_changes(&mut tar, &Options::default(), &Aside::default())
        .unwrap();
    assert_eq!(entries(&tar.finish().unwrap()), ["a/", "a/b/", "a/b/a"]);
}
