//! What can be wrong in what a user wrote. None of it is worth a retry.

use mulgil_model::ids::InvalidTopic;
use mulgil_model::schema::SchemaError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    #[error("feature '{feature}': {reason}")]
    Feature { feature: String, reason: String },
    #[error("rule '{rule}': {reason}")]
    Rule { rule: String, reason: String },
    #[error("detector '{detector}': {reason}")]
    Detector { detector: String, reason: String },
    #[error("there is no detector '{name}'{hint}; known detectors: {known}")]
    UnknownDetector { name: String, hint: String, known: String },
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Name(#[from] InvalidTopic),
}
