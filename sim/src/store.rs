//! What stands in for the embedded tree of the shards' state: the same contract, on the simulated disk.
//!
//! One file, `entries.log`: per batch u32 bytes, u32 crc32c, then the changes (u32 key bytes, key, u32 value bytes or u32::MAX for a
//! removal, value), little-endian. A batch that is not whole at the end was never acknowledged, and is left out when the file is opened, which writes it anew.
//! So it stands for a store that survives a failed sync; whether the real one does is not simulated.

use anyhow::{Context, Result, bail};
use mulgil::pipeline::state::Entries;
use mulgil_disk::{Disk, DiskFile, OpenMode};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const REMOVED: u32 = u32::MAX;

pub struct DiskEntries {
    file: Arc<dyn DiskFile>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// After a failed write nobody knows what stands in the file.
    broken: bool,
}

type Change = (Vec<u8>, Option<Vec<u8>>);

impl DiskEntries {
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        disk.create_dir_all(dir)?;
        let path = dir.join("entries.log");
        let file = match disk.open(&path, OpenMode::Append) {
            Err(error) if error.is_missing() => {
                let file = disk.open(&path, OpenMode::Create)?;
                disk.sync_dir(dir)?;
                file
            }
            opened => opened?,
        };
        let mut bytes = vec![0; file.size_bytes()? as usize];
        file.read_at(0, &mut bytes)?;
        let mut inner = Inner::default();
        let mut rest = bytes.as_slice();
        while let Some((changes, behind)) = batch(rest) {
            inner.take(changes);
            rest = behind;
        }
        // What a failed sync left may be readable and not on the disk: all of it is written anew.
        let whole = &bytes[..bytes.len() - rest.len()];
        drop(file);
        let unfinished = path.with_extension("tmp");
        let copy = disk.open(&unfinished, OpenMode::Create)?;
        copy.append(whole)?;
        copy.sync_data()?;
        disk.rename(&unfinished, &path)?;
        let file = disk.open(&path, OpenMode::Append)?;
        Ok(Self { file, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
    }
}

/// The first whole batch and what is behind it.
fn batch(bytes: &[u8]) -> Option<(Vec<Change>, &[u8])> {
    let (n, rest) = number(bytes)?;
    let (sum, rest) = number(rest)?;
    let (body, behind) = rest.split_at_checked(n as usize)?;
    if crc32c::crc32c(body) != sum {
        return None;
    }
    let (mut changes, mut body) = (Vec::new(), body);
    while !body.is_empty() {
        let (n, rest) = number(body)?;
        let (key, rest) = rest.split_at_checked(n as usize)?;
        let (n, rest) = number(rest)?;
        let (value, rest) =
            if n == REMOVED { (None, rest) } else { rest.split_at_checked(n as usize).map(|(v, r)| (Some(v.to_vec()), r))? };
        changes.push((key.to_vec(), value));
        body = rest;
    }
    Some((changes, behind))
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*head), rest))
}

impl Entries for DiskEntries {
    fn apply(&self, changes: Vec<Change>) -> Result<()> {
        let mut inner = self.inner();
        if inner.broken {
            bail!("the state store stopped after a failed write");
        }
        let mut body = Vec::new();
        for (key, value) in &changes {
            body.extend((key.len() as u32).to_le_bytes());
            body.extend(key);
            body.extend(value.as_ref().map_or(REMOVED, |v| v.len() as u32).to_le_bytes());
            body.extend(value.as_deref().unwrap_or_default());
        }
        let mut frame = Vec::with_capacity(body.len() + 8);
        frame.extend((body.len() as u32).to_le_bytes());
        frame.extend(crc32c::crc32c(&body).to_le_bytes());
        frame.extend(body);
        // Until it is known to be durable, whatever happens counts as broken.
        inner.broken = true;
        self.file.append(&frame).and_then(|()| self.file.sync_data()).context("cannot write a state snapshot")?;
        inner.broken = false;
        inner.take(changes);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.inner().entries.get(key).cloned())
    }

    fn range(&self, from: Bound<&[u8]>, to: Bound<Vec<u8>>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let inner = self.inner();
        let to = to.as_ref().map(Vec::as_slice);
        if let (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) = (from, to)
            && from >= to
        {
            return Ok(());
        }
        for (key, value) in inner.entries.range::<[u8], _>((from, to)) {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.file.size_bytes().unwrap_or(0)
    }
}
