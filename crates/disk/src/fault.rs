//! Which operation of a disk in memory goes wrong, and how: chosen beforehand by its number, so that a run can be repeated.

use std::collections::BTreeMap;

use crate::Crash;

/// What is asked of a disk. Operations that change something are numbered from 0, reads apart from them, also from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Looks at names only: never numbered, never fails on purpose.
    Open,
    Read,
    Create,
    Write,
    Sync,
    Truncate,
    Rename,
    Remove,
    CreateDir,
    RemoveDir,
    SyncDir,
}

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An input/output error. Of a write or a truncation a part, of a rename the visible half may have happened (`half_done`).
    Fail { half_done: bool },
    /// A read that finds the file shorter than it is. For other operations an error.
    Short,
    /// The machine stops just before the operation took effect, or just after (`half_done`; a write: in the middle of it). The disk stays
    /// down until it is restarted.
    Crash { how: Crash, half_done: bool },
}

/// Faults that wait for their operation. Each strikes once.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    changes: BTreeMap<u64, Fault>,
    reads: BTreeMap<u64, Fault>,
    n_changes: u64,
    n_reads: u64,
    n_struck: u64,
    is_held: bool,
}

/// What an operation meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meets {
    Nothing,
    Failure { half_done: bool },
    Short,
    Crash { how: Crash, half_done: bool },
}

impl Op {
    pub(crate) fn action(self) -> &'static str {
        match self {
            Op::Open => "open",
            Op::Read => "read",
            Op::Create => "create",
            Op::Write => "write",
            Op::Sync => "sync",
            Op::Truncate => "truncate",
            Op::Rename => "rename",
            Op::Remove => "remove",
            Op::CreateDir => "create folder",
            Op::RemoveDir => "remove folder",
            Op::SyncDir => "sync folder",
        }
    }
}

impl Faults {
    /// `fault` at the `nth` operation from now on that changes something; 0 is the next.
    pub fn at_change(&mut self, nth: u64, fault: Fault) {
        self.changes.insert(self.n_changes + nth, fault);
    }

    /// `fault` at the `nth` read from now on.
    pub fn at_read(&mut self, nth: u64, fault: Fault) {
        self.reads.insert(self.n_reads + nth, fault);
    }

    /// Nothing strikes, nor is counted, until it is told again: for one who only looks.
    pub fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Forgets what has not struck yet.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.reads.clear();
    }

    pub(crate) fn n_struck(&self) -> u64 {
        self.n_struck
    }

    pub(crate) fn n_ops(&self) -> (u64, u64) {
        (self.n_changes, self.n_reads)
    }

    pub(crate) fn meet(&mut self, op: Op) -> Meets {
        let (waiting, number) = match op {
            _ if self.is_held => return Meets::Nothing,
            Op::Open => return Meets::Nothing,
            Op::Read => (&mut self.reads, &mut self.n_reads),
            _ => (&mut self.changes, &mut self.n_changes),
        };
        *number += 1;
        let fault = waiting.remove(&(*number - 1));
        self.n_struck += u64::from(fault.is_some());
        match fault {
            None => Meets::Nothing,
            Some(Fault::Fail { half_done }) => Meets::Failure { half_done },
            Some(Fault::Short) => Meets::Short,
            Some(Fault::Crash { how, half_done }) => Meets::Crash { how, half_done },
        }
    }
}

impl Meets {
    /// None when nothing goes wrong; else whether a part of the operation happens.
    pub(crate) fn half_done(self) -> Option<bool> {
        match self {
            Meets::Nothing => None,
            Meets::Short => Some(false),
            Meets::Failure { half_done } | Meets::Crash { half_done, .. } => Some(half_done),
        }
    }
}
