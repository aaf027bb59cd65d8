//! The steps that a build has looked up or done, for those who carry them to other machines.

use crate::layer::write::StepLayer;
use roadstead_registry_client::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// One step's result.
#[derive(Debug, Clone)]
pub(super) struct UsedStep {
    pub(super) layer: Option<StepLayer>,
    /// Whether the image holds the layer.
    pub(super) in_image: bool,
    /// Whether the key is the one that was looked up first, which every build of the step looks up.
    pub(super) is_first: bool,
}

/// All of a build, for all of its platforms.
#[derive(Debug, Default)]
pub struct Used {
    steps: Mutex<BTreeMap<Digest, UsedStep>>,
    mounts: Mutex<BTreeSet<Digest>>,
}

impl Used {
    /// Notes what a step gave. A step that one stage copies from and another one stands on is in the image.
    pub(super) fn add_step(&self, key: Digest, layer: Option<&StepLayer>, in_image: bool, is_first: bool) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let step = steps.entry(key).or_insert_with(|| UsedStep {
            layer: layer.cloned(),
            in_image,
            is_first,
        });
        if in_image && !step.in_image {
            step.layer = layer.cloned();
            step.in_image = true;
        }
    }

    /// All steps.
    pub(super) fn steps(&self) -> BTreeMap<Digest, UsedStep> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the key of a cache mount that a command has.
    pub(super) fn add_mount(&self, key: &Digest) {
        self.mounts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone());
    }

    /// The keys of all cache mounts.
    pub(super) fn mounts(&self) -> BTreeSet<Digest> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
