//! What clients send back to the server: cursors, resume tokens, messages on a socket.

use crate::trades::SCHEMA;
use mulgil_model::ids::Offset;
use mulgil_model::search::{SearchCursor, SearchTie};
use mulgil_model::time::EventTime;
use mulgil_serve::config::Limits;
use mulgil_serve::ports::StreamInfo;
use mulgil_serve::wire::request::{Context, NAME_BYTES_MAX, Request, read};
use mulgil_serve::wire::token::{Token, seal};
use mulgil_serve::wire::{Cursor, read_cursor};

/// The longest words to a client, whatever it sent.
const REASON_BYTES_MAX: usize = 4_096;

/// The body of a cursor behind a good checksum, and the text itself. What is read says the same when it is written.
pub fn cursor(input: &[u8]) {
    let texts = [seal(input.to_vec()), String::from_utf8_lossy(input).into_owned()];
    for cursor in texts.iter().filter_map(|text| read_cursor(text).ok()) {
        let again = read_cursor(&cursor.write()).ok();
        assert_eq!(again, Some(cursor));
    }
}

pub fn cursor_seeds() -> Vec<Vec<u8>> {
    let body = |tie: SearchTie| {
        let after = SearchCursor { at: EventTime(7), tie };
        Cursor { from: EventTime(1), to: EventTime(-9), after }.body()
    };
    vec![body(SearchTie::Tick { partition: 3, offset: 12 }), body(SearchTie::Bar { symbol: "KRW-BTC".to_owned() })]
}

pub fn token(input: &[u8]) {
    let texts = [seal(input.to_vec()), String::from_utf8_lossy(input).into_owned()];
    for token in texts.iter().filter_map(|text| Token::decode(text).ok()) {
        assert_eq!(Token::decode(&token.encode()).as_ref(), Ok(&token));
    }
}

fn sample() -> Token {
    let streams = [("trades".to_owned(), vec![Offset(7), Offset(u64::MAX)]), ("trades.alerts".to_owned(), vec![])];
    Token { epoch: "e-1".to_owned(), streams: streams.into_iter().collect() }
}

pub fn token_seeds() -> Vec<Vec<u8>> {
    let text = sample().encode();
    vec![mulgil_serve::wire::token::unseal(&text).expect("our own token is whole"), text.into_bytes()]
}

/// A message is understood within its limits, or refused with a code and words that fit into a frame.
pub fn message(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let limits = Limits { ws_symbols_max: 10, ..Limits::default() };
    let info = || StreamInfo { schema: SCHEMA.clone(), partitions: 2 };
    let stream = |name: &str| (name == "trades").then(info);
    let context = Context { limits: &limits, stream: &stream, trades: &|| Some(info()) };
    match read(text, &context) {
        Err(refusal) => {
            assert!(!refusal.code.is_empty() && !refusal.message.is_empty(), "a refusal without words");
            assert!(refusal.message.len() <= REASON_BYTES_MAX, "{} bytes of refusal", refusal.message.len());
            assert!(refusal.id.is_none_or(|id| id.len() <= NAME_BYTES_MAX));
        }
        Ok(Request::Subscribe(spec) | Request::Watch(spec)) => {
            assert_eq!(spec.streams.len(), 1, "only one stream is known");
            assert!(spec.id.len() <= NAME_BYTES_MAX);
            let symbols = spec.symbols.unwrap_or_default();
            assert!(symbols.len() <= limits.ws_symbols_max && symbols.iter().all(|s| s.len() <= NAME_BYTES_MAX));
        }
        Ok(Request::Unsubscribe { id } | Request::Ping { id: Some(id) }) => assert!(id.len() <= NAME_BYTES_MAX),
        Ok(Request::Ping { id: None }) => {}
    }
}

pub fn message_seeds() -> Vec<Vec<u8>> {
    let resume = format!(r#"{{"op":"subscribe","id":7,"streams":["trades"],"symbols":"all","resume":"{}"}}"#, sample().encode());
    let texts = [
        r#"{"ticker":"005930","tick":5}"#,
        r#"{"op":"subscribe","id":"a","symbols":["005930","KRW-BTC"],"mode":"candles","tick":"60","from":"2026-11-20T00:00:00Z"}"#,
        r#"{"op":"subscribe","mode":"cache"}"#,
        r#"{"op":"unsubscribe","id":"a"}"#,
        r#"{"op":"ping","id":-3}"#,
        &resume,
    ];
    texts.map(|t| t.as_bytes().to_vec()).to_vec()
}
