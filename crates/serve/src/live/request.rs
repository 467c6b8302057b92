//! What a client may say on the socket, in both protocols.

use super::candles::TICK_SECONDS;
use super::selection::{Form, Spec, Start};
use super::token::Token;
use crate::config::Limits;
use crate::ports::StreamInfo;
use mulgil_model::schema::StreamKind;
use mulgil_model::time::{EpochUnit, EventTime, parse_micros};
use serde::Deserialize;

/// Streams one subscription may span.
pub const STREAMS_MAX: usize = 16;
/// Longest id, symbol or stream name taken from a client, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// What a change does, in Debezium's letters: create, update, delete, read (of a snapshot), truncate, logical message.
pub const OPS: [&str; 6] = ["c", "u", "d", "r", "t", "m"];

/// A client's message that was understood.
pub enum Request {
    Subscribe(Box<Spec>),
    /// The simple protocol's `{ticker, tick}`.
    Watch(Box<Spec>),
    Unsubscribe {
        id: String,
    },
    Ping {
        id: Option<String>,
    },
}

/// A client's message that was not, in the words of an error frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
    pub id: Option<String>,
}

impl Refusal {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), id: None }
    }
}

/// The selection of the simple protocol has this id.
pub const SIMPLE_ID: &str = "";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    op: Option<String>,
    id: Option<Id>,
    streams: Option<Vec<String>>,
    symbols: Option<Symbols>,
    ops: Option<Vec<String>>,
    mode: Option<String>,
    tick: Option<serde_json::Value>,
    from: Option<String>,
    resume: Option<String>,
    ticker: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Symbols {
    Word(String),
    List(Vec<String>),
}

/// What reading a message needs to know.
pub struct Context<'a> {
    pub limits: &'a Limits,
    /// Streams by name.
    pub stream: &'a dyn Fn(&str) -> Option<StreamInfo>,
    /// The stream of the simple protocol, and of a subscription that names none.
    pub trades: &'a dyn Fn() -> Option<StreamInfo>,
}

pub fn read(text: &str, context: &Context) -> Result<Request, Refusal> {
    let message: Message = serde_json::from_str(text).map_err(|e| {
        Refusal::new(
            "bad_message",
            format!("the message cannot be read: {e}. Send {{\"ticker\":\"005930\",\"tick\":5}} or {{\"op\":\"subscribe\",…}}"),
        )
    })?;
    let id = match &message.id {
        Some(Id::Text(text)) => Some(text.clone()),
        Some(Id::Number(n)) => Some(n.to_string()),
        None => None,
    };
    if id.as_ref().is_some_and(|id| id.is_empty() || id.len() > NAME_BYTES_MAX) {
        return Err(Refusal::new("bad_id", format!("an id has 1 to {NAME_BYTES_MAX} bytes")));
    }
    let read = match message.op.as_deref() {
        None if message.ticker.is_some() => watch(message, context),
        None => Err(Refusal::new("bad_message", "the message has neither 'op' nor 'ticker'")),
        Some("subscribe") => subscribe(message, id.clone(), context),
        Some("unsubscribe") => match id.clone() {
            Some(id) => Ok(Request::Unsubscribe { id }),
            None => Err(Refusal::new("bad_id", "unsubscribe needs the id of the subscription")),
        },
        Some("ping") => Ok(Request::Ping { id: id.clone() }),
        Some(_) => Err(Refusal::new("bad_op", "op is one of subscribe, unsubscribe, ping")),
    };
    read.map_err(|refusal| Refusal { id, ..refusal })
}

fn watch(message: Message, context: &Context) -> Result<Request, Refusal> {
    let symbol = message.ticker.unwrap_or_default();
    check_name("ticker", &symbol)?;
    let tick_seconds = tick(message.tick.as_ref())?;
    let stream = (context.trades)().ok_or_else(|| Refusal::new("unknown_stream", "there is no stream of trades"))?;
    let form = Form::Candles { tick_seconds, simple: true };
    Ok(Request::Watch(Box::new(Spec {
        id: SIMPLE_ID.to_owned(),
        streams: vec![stream],
        symbols: Some(vec![symbol]),
        ops: None,
        form,
        start: Start::Live,
        from: None,
    })))
}

fn subscribe(message: Message, id: Option<String>, context: &Context) -> Result<Request, Refusal> {
    let streams = streams(message.streams, context)?;
    let symbols = symbols(message.symbols, context.limits)?;
    let form = match message.mode.as_deref() {
        None | Some("stream" | "trades") => Form::Stream,
        Some("cache") => Form::Cache,
        Some("candles") => Form::Candles { tick_seconds: tick(message.tick.as_ref())?, simple: false },
        Some(_) => return Err(Refusal::new("bad_mode", "mode is one of stream (also written trades), cache, candles")),
    };
    let changes = streams.iter().filter(|s| s.schema.kind == StreamKind::Change).count();
    let ops = ops(message.ops, changes == streams.len())?;
    if changes > 0 && form != Form::Stream {
        return Err(Refusal::new("bad_mode", "changes come in mode stream only: each of them, in order"));
    }
    if matches!(form, Form::Candles { .. }) && streams.len() > 1 {
        return Err(Refusal::new("bad_mode", "candles are made of one stream: subscribe once per stream"));
    }
    let from = message.from.map(|text| parse_micros(&text, EpochUnit::Millis).map(EventTime)).transpose();
    let from = from.map_err(|e| Refusal::new("bad_time", format!("from: {e}")))?;
    let start = match (message.resume, from) {
        (Some(_), _) if form != Form::Stream => {
            return Err(Refusal::new("bad_mode", "only mode stream resumes: the others begin with their present state"));
        }
        (Some(token), _) => Start::Resume(Token::decode(&token).map_err(|e| Refusal::new("bad_token", e.to_string()))?),
        (None, Some(_)) if form == Form::Cache => return Err(Refusal::new("bad_mode", "mode cache has no past: leave 'from' out")),
        (None, Some(time)) => Start::From(time),
        (None, None) => Start::Live,
    };
    Ok(Request::Subscribe(Box::new(Spec { id: id.unwrap_or_default(), streams, symbols, ops, form, start, from })))
}

fn streams(names: Option<Vec<String>>, context: &Context) -> Result<Vec<StreamInfo>, Refusal> {
    let Some(names) = names else {
        return (context.trades)()
            .map(|s| vec![s])
            .ok_or_else(|| Refusal::new("unknown_stream", "name the streams: there is no stream of trades"));
    };
    if names.is_empty() || names.len() > STREAMS_MAX {
        return Err(Refusal::new("bad_streams", format!("a subscription names 1 to {STREAMS_MAX} streams")));
    }
    let mut found: Vec<StreamInfo> = Vec::new();
    for name in names {
        check_name("stream", &name)?;
        if found.iter().any(|s| s.schema.stream.as_str() == name) {
            return Err(Refusal::new("bad_streams", format!("stream '{name}' is named twice")));
        }
        found.push(
            (context.stream)(&name)
                .ok_or_else(|| Refusal::new("unknown_stream", format!("there is no stream '{name}': see /api/v1/streams")))?,
        );
    }
    Ok(found)
}

/// None: all.
fn symbols(symbols: Option<Symbols>, limits: &Limits) -> Result<Option<Vec<String>>, Refusal> {
    match symbols {
        None => Ok(None),
        Some(Symbols::Word(word)) if word == "all" => Ok(None),
        Some(Symbols::Word(_)) => Err(Refusal::new("bad_symbols", "symbols is a list, or \"all\"")),
        Some(Symbols::List(list)) if list.is_empty() || list.len() > limits.ws_symbols_max => {
            Err(Refusal::new("too_many_symbols", format!("a subscription names 1 to {} symbols, or \"all\"", limits.ws_symbols_max)))
        }
        Some(Symbols::List(list)) => {
            list.iter().try_for_each(|s| check_name("symbol", s))?;
            Ok(Some(list))
        }
    }
}

/// None: all.
fn ops(ops: Option<Vec<String>>, are_changes: bool) -> Result<Option<Vec<String>>, Refusal> {
    let Some(ops) = ops else { return Ok(None) };
    if !are_changes {
        return Err(Refusal::new("bad_ops", "ops chooses among changes of a captured table: subscribe to other streams without it"));
    }
    if ops.is_empty() || ops.len() > OPS.len() || ops.iter().any(|op| !OPS.contains(&op.as_str())) {
        return Err(Refusal::new("bad_ops", format!("ops is a list of {}", OPS.join(", "))));
    }
    Ok(Some(ops))
}

fn tick(value: Option<&serde_json::Value>) -> Result<u32, Refusal> {
    let seconds = match value {
        Some(serde_json::Value::Number(n)) => n.as_u64(),
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let seconds = seconds.and_then(|n| u32::try_from(n).ok()).filter(|n| TICK_SECONDS.contains(n));
    seconds.ok_or_else(|| {
        Refusal::new("bad_tick", format!("tick is a whole number of seconds from {} to {}", TICK_SECONDS.start(), TICK_SECONDS.end()))
    })
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let is_good = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
    if is_good {
        Ok(())
    } else {
        Err(Refusal::new("bad_name", format!("a {what} has 1 to {NAME_BYTES_MAX} bytes and no control characters")))
    }
}
