//! A commit that was begun and is on its way to the disk.

use std::sync::Arc;

use crate::committer::{Committer, Seat};
use crate::{Committed, LogResult};

/// Proof of a place in line. What stands behind it fails when it fails; what stands before it is durable when it is.
///
/// Dropping it does not take the commit back: it happens with the next that is waited for, at [`crate::Journal::flush`], or when the
/// journal is closed. Only whether it succeeded is then not told.
#[derive(Debug)]
#[must_use = "a commit that was begun is durable only after `wait`"]
pub struct Ticket {
    committed: Committed,
    /// None when there is nothing to wait for.
    pending: Option<(Arc<Committer>, Arc<Seat>)>,
}

impl Ticket {
    pub(crate) fn new(committed: Committed, pending: Option<(Arc<Committer>, Arc<Seat>)>) -> Self {
        Self { committed, pending }
    }

    /// What the commit is told once it is durable. Until then nothing may leave the process that rests on it.
    pub fn committed(&self) -> &Committed {
        &self.committed
    }

    /// Whether [`Ticket::wait`] would answer at once: the commit is durable or has failed.
    pub fn is_settled(&self) -> bool {
        self.pending.as_ref().is_none_or(|(_, seat)| seat.outcome().is_some())
    }

    /// Blocks until the commit is durable (or, with relaxed durability, written), for about one disk sync. Writes and syncs itself when
    /// no other thread does.
    pub fn wait(self) -> LogResult<Committed> {
        self.wait_and(|_| ())
    }

    /// The same, with something short to do as soon as it is durable: before readers are woken, if this thread wrote it.
    pub fn wait_and(self, first: impl FnOnce(&Committed)) -> LogResult<Committed> {
        match &self.pending {
            Some((committer, seat)) => committer.settle(seat, || first(&self.committed))?,
            None => first(&self.committed),
        }
        Ok(self.committed)
    }
}
