//! Finding what a step gave: in this build, in those before, in the caches of other machines. And taking it over.

use super::error::{BuildError, Result};
use super::packing;
use super::step::StageRun;
use super::steps::Doing;
use super::turns::turn;
use crate::cache::local::Record;
use crate::cache::turns::Turn;
use crate::rootfs::overlay::ChainId;
use roadstead_registry_client::Digest;
use std::sync::Arc;

impl StageRun<'_> {
    /// Whether results of builds before are looked for.
    pub(super) fn is_asked(&self) -> bool {
        !self.shared.request.no_cache && !self.shared.uncached.contains(&self.index)
    }

    /// Looks a step's result up, in this build and unless `--no-cache` or `--no-cache-filter` says not to in those before. When there is
    /// none, equal steps wait until [`Self::accept`], those of other builds included.
    pub(super) async fn find(&mut self, key: &Digest) -> Result<Option<Record>> {
        let mut step = self.shared.steps.hold(key).await;
        self.keys.push(key.clone());
        let is_asked = self.is_asked();
        let mut found = match &*step {
            // The stage that has found it elsewhere may have needed its digest only.
            Some(record) if !self.is_obtained(record).await => None,
            Some(record) => self.as_wanted(key, record.clone()).await?,
            None if is_asked => self.known(key).await?,
            None => None,
        };
        let mut taken = None;
        if found.is_none() && is_asked {
            taken = Some(self.turn(key).await?);
            // Whoever had the turn before may have done the step.
            found = self.remembered(key).await?;
        }
        match &found {
            Some(record) => *step = Some(record.clone()),
            None => self.doing.push(Doing { step, _turn: taken }),
        }
        Ok(found)
    }

    /// Looks a step up among those of the builds before, here and elsewhere.
    async fn known(&self, key: &Digest) -> Result<Option<Record>> {
        match self.remembered(key).await? {
            Some(record) => Ok(Some(record)),
            None => self.find_elsewhere(key).await,
        }
    }

    /// Looks a step's result up in the caches of other machines.
    async fn find_elsewhere(&self, key: &Digest) -> Result<Option<Record>> {
        match self.shared.request.cache_from.find(key) {
            Some(record) if self.is_obtained(&record).await => self.as_wanted(key, record).await,
            _ => Ok(None),
        }
    }

    /// Sees to it that the blob of a step's result can be had, if an image will hold it. Tells whether it can.
    async fn is_obtained(&self, record: &Record) -> bool {
        let blob = record.layer.as_ref().and_then(|layer| layer.descriptor.as_ref());
        let Some(blob) = blob.filter(|_| self.packs) else {
            return true;
        };
        let obtaining = self.shared.request.cache_from.obtain(blob, &self.shared.tools.store);
        let Err(error) = obtaining.await else { return true };
        let message = format!("a cached layer cannot be had, its step runs: {error}");
        self.shared.tools.progress.warn(message);
        false
    }

    /// Waits for another build that does the step.
    async fn turn(&self, key: &Digest) -> Result<Turn> {
        let waiting = || {
            if let Some((id, begun)) = self.showing {
                let line = "waiting for another build that is doing this step";
                let seconds = begun.elapsed().as_secs_f64();
                self.shared.tools.progress.tell(id, line, seconds);
            }
        };
        turn(&self.shared.tools, key, &self.shared.cancel, waiting).await
    }

    /// Looks a step up among those of the builds before. Its blob may have to be hashed.
    async fn remembered(&self, key: &Digest) -> Result<Option<Record>> {
        let tools = Arc::clone(&self.shared.tools);
        let looking = {
            let key = key.clone();
            tokio::task::spawn_blocking(move || tools.cache.find(&key)).await
        };
        match looking.map_err(|e| BuildError::Other(format!("looking a step up ended early: {e}")))? {
            Some(record) => self.as_wanted(key, record).await,
            None => Ok(None),
        }
    }

    async fn lies_unpacked(&self, id: ChainId) -> Result<bool> {
        let tools = Arc::clone(&self.shared.tools);
        let looking = tokio::task::spawn_blocking(move || tools.layers.has(&id)).await;
        looking.map_err(|e| BuildError::Other(format!("looking at a layer ended early: {e}")))
    }

    /// Gives a record whose layer has the blob that the image wants, if it is for the image. A layer that is gone counts as not found,
    /// save where its digest is enough: until somebody needs the files.
    async fn as_wanted(&self, key: &Digest, mut record: Record) -> Result<Option<Record>> {
        let Some(mut layer) = record.layer.clone() else {
            return Ok(Some(record));
        };
        let (chain, compression) = (self.chain(), self.shared.request.compression);
        let known = self
            .shared
            .tools
            .layers
            .known(&ChainId::of(chain.last(), &layer.diff_id));
        if let Some(known) = known.filter(|_| layer.descriptor.is_none()) {
            // A record of a layer that lay unpacked, of which there is a blob meanwhile.
            layer = known.into();
            record.layer = Some(layer.clone());
        }
        let is_lost = self.shared.bases.lost.has(&layer.diff_id);
        let has_blob = layer.descriptor.is_some();
        if is_lost || (self.packs && !has_blob) {
            let lies_unpacked = self.lies_unpacked(ChainId::of(chain.last(), &layer.diff_id)).await?;
            match (lies_unpacked, is_lost || self.in_image) {
                (true, _) => {}
                (false, true) => return Ok(None),
                (false, false) => return Ok(Some(record)),
            }
        }
        if !self.packs || packing::is_packed_as(&layer, compression) {
            return Ok(Some(record));
        }
        if let Some(packed) = layer.packed() {
            match self.shared.bases.fetch(&self.shared.tools, &[packed]).await {
                Ok(()) => {}
                Err(error) if error.is_canceled() => return Err(error),
                // Its download has said why.
                Err(_) => return Ok(None),
            }
            let repacking = self.blocking(move |shared| packing::repack(&shared.tools, &layer, compression));
            let layer = Some(repacking.await?);
            return Ok(Some(Record { layer, ..record }));
        }
        // Packing reads the layers below, for which directories replaced others.
        self.shared.bases.unpack(&self.shared.tools, &self.layers).await?;
        let wanted = self.packing();
        let packing = self.blocking(move |shared| packing::pack(&shared, &chain, &layer.diff_id, wanted));
        let Some(layer) = packing.await? else { return Ok(None) };
        let record = Record {
            layer: Some(layer),
            ..record
        };
        packing::remember(&self.shared.tools, key, &record)?;
        Ok(Some(record))
    }

    /// Takes a step's result over into the stage.
    pub(super) fn accept(&mut self, record: Record, created_by: &str) {
        self.state
            .add_history(&self.shared.created, created_by, record.layer.is_none());
        self.put(record);
    }

    /// Adds a step's layer, and lets equal steps go on.
    pub(super) fn put(&mut self, record: Record) {
        for mut doing in self.doing.drain(..) {
            *doing.step = Some(record.clone());
        }
        for (at, key) in self.keys.drain(..).enumerate() {
            self.shared
                .used
                .add_step(key, record.layer.as_ref(), self.in_image, at == 0);
        }
        if let Some(layer) = record.layer {
            if self.in_image {
                self.shared.announce(&layer);
            }
            self.layers.push(layer);
        }
    }

    /// Remembers a step's result.
    pub(super) fn remember(&self, key: &Digest, record: &Record) -> Result<()> {
        packing::remember(&self.shared.tools, key, record)
    }

    /// Remembers a step's result, unless the files that its key was made of changed while it was done.
    pub(super) fn remember_steady(&self, key: &Digest, record: &Record, steady: bool) -> Result<()> {
        if steady {
            return self.remember(key, record);
        }
        // The key tells of files as they were read first, the result is of files as they were read next.
        let message = "files changed while they were copied: the result is used, but not remembered";
        self.shared.tools.progress.warn(message);
        Ok(())
    }
}
