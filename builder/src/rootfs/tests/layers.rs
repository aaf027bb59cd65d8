//! Layers applied to each other's files show what an overlay of them shows.

use super::site::{Site, append, listing, may_mount};
use crate::layer::extract::ExtractError;
use crate::rootfs::overlay::{Layers, OverlayError, RootForm};

/// Layers, lowest first, each a list of entries divided by `;`.
const CASES: &[&[&str]] = &[
    // Whiteouts.
    &["d a; f a/x = 1; f a/y = 2", "w a/x"],
    &["d a; f a/x = 1; d a/d; f a/d/z = 3", "d a @ 700 5; w a/d; w a/nothing"],
    &["f a/x = 1", "w a", "f b = 2"],
    &["f a/x = 1", "w a", "f a/y = 2"],
    &["f new/dir/x = 1", "w other/gone"],
    // A directory in the place of a deletion hides what was there, in whatever order they are.
    &["d a; f a/x = 1", "w a; d a; f a/y = 2"],
    &["d a; f a/x = 1", "w a; f a/y = 2"],
    &["d a; f a/x = 1", "d a; f a/y = 2; w a"],
    &["d a; f a/x = 1", "f a = file; d a; f a/y = 2"],
    &["d a @ 700 5; f a/x = 1", "w a; f a/y = 2"],
    &["d a @ 700 5; f a/x = 1", "f a/y = 2; w a; f a/z = 3"],
    // Opaque directories.
    &["d a; f a/x = 1; d a/d; f a/d/z = 3", "o a; f a/y = 2"],
    &[
        "d a; f a/x = 1; d a/d; f a/d/z = 3",
        "d a; f a/!before = 2; d a/d; f a/d/new = 4; o a; f a/y = 5",
    ],
    &["d a; f a/x = 1; d a/d; f a/d/z = 3", "f a/d/new = 4; o a"],
    &["d a; f a/x = 1; f a/y = 2", "f a/x = other; o a"],
    &["d a/b; f a/b/x = 1", "o a; f a/b/y = 2", "f a/b/z = 3"],
    &["f x = 1; d a; f a/y = 2", "f z = 3; o ."],
    &["d a; f a/x = 1; d a/d; f a/d/z = 3", "w a/x; w a/d/z; f a/d/y = 2; o a"],
    &[
        "d a; f a/x = 1; d a/d @ 700 5; f a/d/z = 3",
        "o a; w a/x; w a/d; f a/d/y = 2",
    ],
    &["d a; d a/d @ 700 5; f a/d/z = 3", "w a; f a/d/y = 2"],
    // What replaces.
    &["f a = 1", "d a; f a/x = 2"],
    &["d a; f a/x = 1", "f a = 2"],
    &["d a; f a/x = 1", "l a > b; d b; f b/x = 3"],
    &["d b; f b/x = 1; l a > b", "d a; f a/y = 2"],
    &["d b; f b/x = 1; l a > b", "f a/y = 2"],
    &["f a = 1", "f a/b/c = 2"],
    &["f a = 1; h b > a; h d/c > a", "f a = 2"],
    &["p a; f b = 1", "f a = 2; p b"],
    &["l a > nowhere", "f a = 2; l b > a"],
    // What is merged.
    &["d a @ 700 5; f a/x = 1 @ 640 6", "f a/y = 2", "d a @ 711 7; f a/x = 3"],
    &["d a @ 700 5; f a/b/x = 1", "f a/b/c/d = 2"],
    &["d a @ 1777 5; d a/b @ 2755 6", "w a/b", "f a/b/x = 1"],
    &["d a @ 700 5; d a/b @ 711 6", "o a", "f a/b/x = 1"],
    &["d a @ 700 5", "d a"],
    // Links within a layer.
    &["d a; f a/x = 1", "d r; l l > r; f l/y = 2; h z > r/y"],
    &["f a = 1; h b > a", "f c = 3; h a > c"],
    &["d . @ 700 5; f a = 1", "f b = 2"],
];

fn stack(site: &Site, layers: &[&str]) -> Vec<crate::layer::write::Layer> {
    let layer = |text: &&str| site.layer(|tar| text.split("; ").for_each(|line| append(tar, line)));
    layers.iter().map(layer).collect()
}

/// What a stack shows in a form, once read and once made ready for changes.
fn shown(site: &Site, layers: &Layers, stack: &[crate::layer::write::Layer]) -> String {
    let chain = site.unpack(layers, stack);
    let read = listing(layers.mount_readonly(&chain).unwrap().path());
    let mounted = layers.mount(&chain, None).unwrap();
    assert_eq!(listing(mounted.path()), read);
    let top = std::fs::metadata(mounted.path()).unwrap();
    let looks = (
        std::os::unix::fs::MetadataExt::mode(&top),
        std::os::unix::fs::MetadataExt::uid(&top),
    );
    assert_eq!(looks, (0o40755, 0));
    read
}

#[test]
fn privileged_trees_show_what_overlays_show() {
    if !may_mount("privileged_trees_show_what_overlays_show") {
        return;
    }
    for case in CASES {
        let site = Site::new();
        let stack = stack(&site, case);
        let overlay = shown(&site, &site.layers(RootForm::Overlay), &stack);
        let tree = shown(&site, &site.layers(RootForm::Directories), &stack);
        assert_eq!(tree, overlay, "{case:?}");
        assert!(!tree.contains(".wh."), "{case:?}: {tree}");
        // Layer by layer, each upon the tree that is there.
        let layers = site.layers(RootForm::Directories);
        let mut last = String::new();
        for count in 1..=stack.len() {
            let chain = site.unpack(&layers, &stack[..count]);
            last = listing(layers.mount_readonly(&chain).unwrap().path());
        }
        assert_eq!(last, overlay, "{case:?}");
    }
}

#[test]
fn privileged_both_forms_refuse_the_same() {
    if !may_mount("privileged_both_forms_refuse_the_same") {
        return;
    }
    for case in [
        // A hard link to a file of another layer, and a way through a link into another layer's directory.
        &["d a; f a/x = 1", "h b > a/x"][..],
        &["d a; f a/x = 1", "l l > a; f l/y = 2"],
        &["d a", "f a/.wh.. = "],
    ] {
        let site = Site::new();
        let stack = stack(&site, case);
        let layers = site.layers(RootForm::Overlay);
        let chain = site.unpack(&layers, &stack[..1]);
        let chain = [
            chain,
            crate::rootfs::overlay::ChainId::stack(stack.iter().map(|l| &l.diff_id))[1..].to_vec(),
        ]
        .concat();
        let overlay = layers.unpack(&site.store, &chain, &stack[1]).unwrap_err();
        let layers = site.layers(RootForm::Directories);
        let chain = site.unpack(&layers, &stack);
        let tree = layers.mount_readonly(&chain).expect_err(case[1]);
        for error in [overlay, tree] {
            let OverlayError::Extract { source, .. } = error else {
                panic!("{error:?}");
            };
            assert!(
                matches!(source, ExtractError::Entry { .. } | ExtractError::File(_)),
                "{source:?}"
            );
        }
        // What cannot be unpacked is not there.
        assert!(!layers.has(&chain[1]) && layers.has(&chain[0]));
    }
}
