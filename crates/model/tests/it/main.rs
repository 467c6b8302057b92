//! Values against their definitions.
#![allow(clippy::unwrap_used)]

mod division;
