//! The servers themselves: that they start, survive what tests do to them, and end with whoever started them.

#![allow(clippy::unwrap_used)]

mod mariadb;
mod orphans;
mod postgres;
