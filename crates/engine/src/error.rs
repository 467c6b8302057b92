//! What can go wrong inside a shard. None of it is worth a retry: the same rows would fail again.

use mulgil_model::position::Position;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("operator '{operator}': {reason}")]
    Operator { operator: String, reason: String },
    #[error("state entry '{prefix}' cannot be read: {reason}; delete the state folder to rebuild it from the log")]
    State { prefix: String, reason: String },
    #[error("the state store failed: {0}")]
    Store(String),
    #[error("rows of '{stream}' begin at offset {got}, expected {expected}")]
    Gap { stream: String, expected: u64, got: u64 },
    #[error("rows of {got} were handed to the shard of {owner}")]
    Misdirected { owner: String, got: String },
    #[error("a recorded decision belongs to position {at}, but the shard is at {position}: rows or decisions are missing in between")]
    Decision { at: Position, position: Position },
    #[error("the shard has failed before: open it again from its store")]
    Failed,
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}
