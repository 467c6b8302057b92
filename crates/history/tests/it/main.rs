//! The history as its users see it: files that others read, exactly the committed rows whatever crashes, bounded queries, true pages.
#![allow(clippy::unwrap_used)]

mod support;

mod bounds;
mod crash;
mod files;
mod queries;
mod searches;
mod upkeep;
