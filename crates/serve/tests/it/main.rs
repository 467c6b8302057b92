//! The server over real sockets, with a small log in memory behind its ports.
#![allow(clippy::unwrap_used)]

mod audience;
mod captures;
mod changes;
mod events;
mod live;
mod market;
mod policy;
mod rest;
mod socket;
