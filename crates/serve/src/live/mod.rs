//! Live clients: a hub of recent rows, and what a socket or an event stream makes of them.

pub mod audience;
pub mod hub;
pub mod scan;

pub mod candles;
pub mod chunk;
pub mod filter;
pub mod latest;
pub mod selection;
pub mod token;

pub mod events;
pub mod outbox;
pub mod request;
pub mod socket;
