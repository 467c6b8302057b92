//! Transactions that the server streams before they commit (protocol version 2): kept until it says how they ended.
//!
//! The messages of each are one run of bytes, `length u32 | message` after `length | message`, in memory as long as all together stay below a
//! bound, else in a file. Nothing of it outlives the connection: what was not committed when it broke is sent again, so files are not synced.

use super::pgoutput::{self, Message};
use bytes::{Buf, Bytes, BytesMut};
use mulgil_disk::{Disk, DiskError, DiskFile, OpenMode};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Streamed transactions at a time. The server streams the largest ones; it has no more than connections.
const TRANSACTIONS_MAX: usize = 100_000;
/// Read back from a file at a time.
const READ_BYTES: usize = 1 << 20;
/// The ending of the files' names.
const SUFFIX: &str = "spill";

/// Where transactions go that memory is too small for.
#[derive(Debug, Clone)]
pub struct Spill {
    pub disk: Arc<dyn Disk>,
    /// Of this source alone: what is in it when the source starts is removed.
    pub dir: PathBuf,
    /// What all streamed transactions together may take of memory.
    pub memory_bytes_max: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    #[error("a large transaction could not be kept in {dir}: {source}; make room there", dir = .dir.display())]
    Disk { dir: PathBuf, source: DiskError },
    #[error("the server streams more than {TRANSACTIONS_MAX} transactions at a time")]
    TooMany,
    #[error("the server ends the streamed transaction {0}, which it never began")]
    Unknown(u32),
    #[error("a file of a streamed transaction is damaged")]
    Damaged,
}

#[derive(Debug)]
pub struct Streams {
    spill: Spill,
    open: BTreeMap<u32, Transaction>,
    memory_bytes: usize,
    n_files: u64,
}

/// One streamed transaction.
#[derive(Debug, Default)]
struct Transaction {
    file: Option<File>,
    memory: Vec<u8>,
    /// Subtransactions that were rolled back.
    aborted: HashSet<u32>,
}

#[derive(Debug)]
struct File {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl Drop for File {
    fn drop(&mut self) {
        // What stays is removed when the source starts again.
        let _ = self.disk.remove(&self.path);
    }
}

impl Streams {
    /// Makes the folder, and removes what a process that was killed left in it.
    pub fn open(spill: Spill) -> Result<Self, StreamsError> {
        let failed = |source| StreamsError::Disk { dir: spill.dir.clone(), source };
        spill.disk.create_dir_all(&spill.dir).map_err(failed)?;
        for entry in spill.disk.list(&spill.dir).map_err(failed)? {
            if Path::new(&entry.name).extension().is_some_and(|e| e == SUFFIX) {
                spill.disk.remove(&spill.dir.join(&entry.name)).map_err(failed)?;
            }
        }
        Ok(Self { spill, open: BTreeMap::new(), memory_bytes: 0, n_files: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn begin(&mut self, xid: u32) -> Result<(), StreamsError> {
        self.open.entry(xid).or_default();
        if self.open.len() > TRANSACTIONS_MAX { Err(StreamsError::TooMany) } else { Ok(()) }
    }

    /// Keeps a message of the transaction, with its own id inside.
    pub fn keep(&mut self, xid: u32, message: &[u8]) -> Result<(), StreamsError> {
        let transaction = self.open.get_mut(&xid).ok_or(StreamsError::Unknown(xid))?;
        let length = u32::try_from(message.len()).map_err(|_| StreamsError::Damaged)?;
        transaction.memory.extend_from_slice(&length.to_be_bytes());
        transaction.memory.extend_from_slice(message);
        self.memory_bytes += 4 + message.len();
        if self.memory_bytes > self.spill.memory_bytes_max { self.spill_largest() } else { Ok(()) }
    }

    fn spill_largest(&mut self) -> Result<(), StreamsError> {
        let Some(transaction) = self.open.values_mut().max_by_key(|t| t.memory.len()) else { return Ok(()) };
        let failed = |source| StreamsError::Disk { dir: self.spill.dir.clone(), source };
        if transaction.file.is_none() {
            self.n_files += 1;
            let path = self.spill.dir.join(format!("{}.{SUFFIX}", self.n_files));
            let file = self.spill.disk.open(&path, OpenMode::Create).map_err(failed)?;
            transaction.file = Some(File { disk: self.spill.disk.clone(), path, file });
        }
        let file = transaction.file.as_ref().expect("invariant: it was just made");
        file.file.append(&transaction.memory).map_err(failed)?;
        self.memory_bytes -= transaction.memory.len();
        transaction.memory = Vec::new();
        Ok(())
    }

    /// The transaction or one of its subtransactions was rolled back.
    pub fn abort(&mut self, xid: u32, subxid: u32) -> Result<(), StreamsError> {
        if xid == subxid {
            return self.take(xid).map(drop);
        }
        self.open.get_mut(&xid).ok_or(StreamsError::Unknown(xid))?.aborted.insert(subxid);
        Ok(())
    }

    /// The transaction was committed: its messages, in order.
    pub fn commit(&mut self, xid: u32) -> Result<Replay, StreamsError> {
        let transaction = self.take(xid)?;
        let size = match &transaction.file {
            None => 0,
            Some(f) => f.file.size_bytes().map_err(|source| StreamsError::Disk { dir: self.spill.dir.clone(), source })?,
        };
        Ok(Replay {
            file: transaction.file,
            at: 0,
            size,
            memory: transaction.memory.into(),
            buffer: BytesMut::new(),
            aborted: transaction.aborted,
        })
    }

    fn take(&mut self, xid: u32) -> Result<Transaction, StreamsError> {
        let transaction = self.open.remove(&xid).ok_or(StreamsError::Unknown(xid))?;
        self.memory_bytes -= transaction.memory.len();
        Ok(transaction)
    }
}

/// A committed transaction, read back.
#[derive(Debug)]
pub struct Replay {
    file: Option<File>,
    at: u64,
    size: u64,
    memory: Bytes,
    /// Of the file, read but not yet given.
    buffer: BytesMut,
    aborted: HashSet<u32>,
}

impl Replay {
    /// The next message that was not rolled back, and its length.
    pub fn next_message(&mut self) -> Result<Option<(Message, usize)>, StreamsError> {
        while let Some(bytes) = self.next_bytes()? {
            let length = bytes.len();
            let (xid, message) = pgoutput::decode(bytes, true).map_err(|_| StreamsError::Damaged)?;
            // A description of a table is kept also when who caused it was rolled back: the server does not send it twice in one transaction.
            // It sends another one where the rollback took a change of the table back.
            let is_description = matches!(message, Message::Relation(_) | Message::Type { .. });
            if is_description || xid.is_none_or(|x| !self.aborted.contains(&x)) {
                return Ok(Some((message, length)));
            }
        }
        Ok(None)
    }

    fn next_bytes(&mut self) -> Result<Option<Bytes>, StreamsError> {
        if self.file.is_some() {
            if let Some(message) = self.next_of_file()? {
                return Ok(Some(message));
            }
            self.file = None;
        }
        if self.memory.is_empty() {
            return Ok(None);
        }
        let length = self.memory.try_get_u32().map_err(|_| StreamsError::Damaged)? as usize;
        if length > self.memory.len() {
            return Err(StreamsError::Damaged);
        }
        Ok(Some(self.memory.split_to(length)))
    }

    fn next_of_file(&mut self) -> Result<Option<Bytes>, StreamsError> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            if self.at == self.size {
                return if self.buffer.is_empty() { Ok(None) } else { Err(StreamsError::Damaged) };
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<(), StreamsError> {
        let Some(file) = &self.file else { return Ok(()) };
        let n = (self.size - self.at).min(READ_BYTES as u64) as usize;
        let start = self.buffer.len();
        self.buffer.resize(start + n, 0);
        let failed = |source| StreamsError::Disk { dir: file.path.clone(), source };
        file.file.read_at(self.at, &mut self.buffer[start..]).map_err(failed)?;
        self.at += n as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mulgil_disk::MemDisk;

    /// A logical message of a (sub)transaction, as the stream carries it.
    fn message(xid: u32, content: &str) -> Vec<u8> {
        let mut bytes = vec![b'M'];
        bytes.extend(xid.to_be_bytes());
        bytes.push(1);
        bytes.extend([0; 8]);
        bytes.extend(b"p\0");
        bytes.extend((content.len() as u32).to_be_bytes());
        bytes.extend(content.as_bytes());
        bytes
    }

    fn relation(xid: u32) -> Vec<u8> {
        let mut bytes = vec![b'R'];
        bytes.extend(xid.to_be_bytes());
        bytes.extend(7u32.to_be_bytes());
        bytes.extend(b"public\0t\0d\0\0");
        bytes
    }

    fn streams(disk: &Arc<MemDisk>, memory_bytes_max: usize) -> Streams {
        Streams::open(Spill { disk: disk.clone(), dir: "/spill".into(), memory_bytes_max }).unwrap()
    }

    fn all(mut replay: Replay) -> Vec<String> {
        let mut found = Vec::new();
        while let Some((message, _)) = replay.next_message().unwrap() {
            found.push(match message {
                Message::Logical { content, .. } => String::from_utf8(content.to_vec()).unwrap(),
                Message::Relation(r) => r.name,
                other => panic!("{other:?}"),
            });
        }
        found
    }

    #[test]
    fn interleaved_transactions_come_back_each_in_its_order_in_memory_and_from_files() {
        for memory_bytes_max in [0, 60, 200, 1_000_000] {
            let disk = Arc::new(MemDisk::new(1));
            let mut streams = streams(&disk, memory_bytes_max);
            streams.begin(1).unwrap();
            streams.begin(2).unwrap();
            for n in 0..20 {
                streams.keep(1, &message(1, &format!("a{n}"))).unwrap();
                streams.keep(2, &message(2, &format!("b{n}"))).unwrap();
            }
            let expected = |letter| (0..20).map(|n| format!("{letter}{n}")).collect::<Vec<_>>();
            assert_eq!(all(streams.commit(2).unwrap()), expected('b'), "{memory_bytes_max}");
            assert_eq!(all(streams.commit(1).unwrap()), expected('a'), "{memory_bytes_max}");
            assert!(streams.is_empty());
            assert_eq!(disk.list(Path::new("/spill")).unwrap(), [], "files are gone with their transactions");
        }
    }

    #[test]
    fn what_was_rolled_back_is_left_out_but_not_its_descriptions() {
        let disk = Arc::new(MemDisk::new(1));
        let mut streams = streams(&disk, 40);
        streams.begin(1).unwrap();
        for (xid, content) in [(1, "a"), (5, "b"), (6, "c"), (5, "d"), (1, "e")] {
            streams.keep(1, &message(xid, content)).unwrap();
            streams.keep(1, &relation(xid)).unwrap();
        }
        streams.abort(1, 5).unwrap();
        assert_eq!(all(streams.commit(1).unwrap()), ["a", "t", "t", "c", "t", "t", "e", "t"]);
        streams.begin(9).unwrap();
        streams.keep(9, &message(9, "x")).unwrap();
        streams.abort(9, 9).unwrap();
        assert!(matches!(streams.commit(9), Err(StreamsError::Unknown(9))));
        assert!(matches!(streams.abort(9, 10), Err(StreamsError::Unknown(9))));
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let disk = Arc::new(MemDisk::new(1));
        let mut first = streams(&disk, 0);
        first.begin(1).unwrap();
        first.keep(1, &message(1, "a")).unwrap();
        std::mem::forget(first);
        assert_eq!(disk.list(Path::new("/spill")).unwrap().len(), 1);
        streams(&disk, 0);
        assert_eq!(disk.list(Path::new("/spill")).unwrap(), []);
    }

    #[test]
    fn a_full_disk_is_an_error_that_says_where() {
        let disk = Arc::new(MemDisk::new(1));
        let mut streams = streams(&disk, 0);
        disk.set_capacity(Some(64));
        streams.begin(1).unwrap();
        let failed = (0..10).find_map(|_| streams.keep(1, &message(1, "0123456789")).err()).unwrap();
        assert!(failed.to_string().contains("/spill"), "{failed}");
        drop(streams);
        disk.set_capacity(None);
        assert_eq!(disk.list(Path::new("/spill")).unwrap(), []);
    }
}
