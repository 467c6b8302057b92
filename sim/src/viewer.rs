//! A live client: subscribes, takes frames when it has time for them, loses the connection with frames on their way, vanishes, and comes back
//! with the last cursor it was given.

use crate::mirror::Mirror;
use crate::program::Program;
use crate::random::Random;
use anyhow::{Context, Result, bail, ensure};
use mulgil::pipeline::plan::Plan;
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_serve::live::chunk::write_row;
use mulgil_serve::live::selection::{Form, PullError, Pulled, Selection, Spec, Start};
use mulgil_serve::live::token::Token;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// Text of one pull.
const PULL_BYTES: usize = 4_000;
/// Frames that the network holds before the server stops writing.
const IN_FLIGHT_MAX: usize = 6;

pub struct Viewer {
    streams: Vec<Topic>,
    connection: Option<Connection>,
    /// The last cursor that arrived.
    cursor: Option<String>,
    /// Where it began to listen.
    began: Option<Token>,
    /// By stream and key: rows of one key are in one partition, so their order is the log's.
    received: BTreeMap<(Topic, String), Vec<Value>>,
    pub n_received: u64,
    pub n_resumed: u64,
}

struct Connection {
    selection: Selection,
    in_flight: VecDeque<String>,
    /// For others who are further behind.
    waits: bool,
}

/// Why a pull ended without frames.
pub enum Lost {
    /// The server refused: `message`.
    Refused(String),
}

impl Viewer {
    pub fn new(r: &mut Random) -> Self {
        let all = ["trades", "orders", "trades.bars.1s", "trades.alerts", "trades.bars.1s.alerts", "orders.bars.1m", "trades.late"];
        let n = r.between(1, 3);
        let mut streams: Vec<Topic> = Vec::new();
        while (streams.len() as u64) < n {
            let name = Topic::new(r.pick(&all)).expect("the name is valid");
            if !streams.contains(&name) {
                streams.push(name);
            }
        }
        Self { streams, connection: None, cursor: None, began: None, received: BTreeMap::new(), n_received: 0, n_resumed: 0 }
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// What was on its way is lost.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Subscribes, behind the last cursor if there is one. `retained`: the log may have dropped rows.
    pub fn connect(&mut self, program: &Program, retained: bool) -> Result<Option<Lost>> {
        let start = match &self.cursor {
            Some(cursor) => Start::Resume(Token::decode(cursor)?),
            None => Start::Live,
        };
        let streams = self.streams.iter().filter_map(|s| program.hub.stream(s.as_str())).collect::<Vec<_>>();
        ensure!(streams.len() == self.streams.len(), "the server does not know all of {:?}", self.streams);
        let spec = Spec { id: "v".to_owned(), streams, symbols: None, ops: None, form: Form::Stream, start, from: None };
        let (selection, recovered) = match Selection::open(&program.hub, spec) {
            Ok(opened) => opened,
            Err(mulgil_serve::live::selection::OpenError::Port(error)) => return Ok(Some(Lost::Refused(error.to_string()))),
            Err(error) => return Err(error).context("a cursor that the server gave was refused"),
        };
        let token = selection.token(&program.hub);
        if !recovered {
            ensure!(retained, "the server says that rows behind the cursor are gone, but nothing was removed");
            self.begin_anew();
        }
        if self.began.is_none() {
            self.began = Some(token.clone());
            self.cursor = Some(token.encode());
        } else {
            self.n_resumed += 1;
        }
        self.connection = Some(Connection { selection, in_flight: VecDeque::new(), waits: false });
        Ok(None)
    }

    fn begin_anew(&mut self) {
        self.received.clear();
        (self.cursor, self.began) = (None, None);
    }

    /// The server writes what it has, unless the connection is full.
    pub fn pull(&mut self, program: &mut Program, retained: bool) -> Result<Option<Lost>> {
        let turn = program.turn();
        let Some(connection) = &mut self.connection else { return Ok(None) };
        if connection.in_flight.len() >= IN_FLIGHT_MAX {
            return Ok(None);
        }
        let mut out = Vec::new();
        let pulled = connection.selection.pull(&program.hub, &turn, PULL_BYTES, &mut out);
        connection.in_flight.extend(out.iter().map(|frame| frame.as_str().to_owned()));
        connection.waits = matches!(pulled, Ok(Pulled::Waits));
        match pulled {
            Ok(Pulled::CaughtUp | Pulled::More | Pulled::Waits) => Ok(None),
            Err(PullError::Gone(stream)) => {
                ensure!(retained, "the server says that rows of {stream} are gone, but nothing was removed");
                self.disconnect();
                self.begin_anew();
                Ok(None)
            }
            Err(PullError::Port(error)) => {
                self.disconnect();
                Ok(Some(Lost::Refused(error.to_string())))
            }
        }
    }

    /// Takes up to `n` frames.
    pub fn take(&mut self, n: u64, plan: &Plan) -> Result<u64> {
        let mut n_taken = 0;
        while n_taken < n {
            let Some(frame) = self.connection.as_mut().and_then(|c| c.in_flight.pop_front()) else { break };
            self.read(&frame, plan)?;
            n_taken += 1;
        }
        Ok(n_taken)
    }

    /// Takes everything there is, as a patient client at the end does.
    pub fn catch_up(&mut self, program: &mut Program, retained: bool) -> Result<()> {
        for _ in 0..100_000 {
            if !self.is_connected()
                && let Some(Lost::Refused(message)) = self.connect(program, retained)?
            {
                bail!("at the end a client is refused: {message}");
            }
            if let Some(Lost::Refused(message)) = self.pull(program, retained)? {
                bail!("at the end a client is told: {message}");
            }
            let n_taken = self.take(u64::MAX, &program.plan)?;
            if n_taken == 0 && self.connection.as_ref().is_some_and(|c| !c.waits) {
                return Ok(());
            }
        }
        bail!("a client never catches up")
    }

    fn read(&mut self, frame: &str, plan: &Plan) -> Result<()> {
        let frame: Value = serde_json::from_str(frame).context("a frame is not JSON")?;
        let Some(rows) = frame["rows"].as_array() else { return Ok(()) };
        let stream = Topic::new(frame["stream"].as_str().context("a frame names no stream")?)?;
        let schema = plan.streams.iter().find(|s| s.schema.stream == stream).context("a frame of an unknown stream")?;
        let key = &schema.schema.columns[schema.schema.key].name;
        for row in rows {
            let key = row[key.as_str()].as_str().context("a row without its key")?.to_owned();
            self.received.entry((stream.clone(), key)).or_default().push(row.clone());
            self.n_received += 1;
        }
        self.cursor = Some(frame["cursor"].as_str().context("rows without a cursor")?.to_owned());
        Ok(())
    }

    /// What arrived is what stands in the log from where it began up to its cursor, each row once and in order; with `whole` up to the end.
    pub fn compare(&self, plan: &Plan, mirror: &Mirror, whole: bool) -> Result<()> {
        let (Some(began), Some(cursor)) = (&self.began, &self.cursor) else { return Ok(()) };
        let cursor = Token::decode(cursor)?;
        let mut want: BTreeMap<(Topic, String), Vec<Value>> = BTreeMap::new();
        for name in &self.streams {
            let stream = plan.streams.iter().find(|s| s.schema.stream == *name).context("a stream is gone")?;
            for p in 0..stream.partitions {
                let at = TopicPartition::new(name.clone(), Partition(p));
                let place = |token: &Token| token.streams[name.as_str()].get(p as usize).copied().unwrap_or(Offset::ZERO);
                let (from, to) = (place(began), place(&cursor));
                let n_logged = mirror.of(&at).len() as u64;
                ensure!(to.0 <= n_logged, "a client was shown {at} up to {to}, but the log ends at {n_logged}");
                ensure!(!whole || to.0 == n_logged, "a client that took everything is at {to} of {at}, the log ends at {n_logged}");
                let rows = mirror.rows(&stream.schema, &at, from, (to.0 - from.0) as usize)?;
                for i in 0..rows.len() {
                    let mut text = String::new();
                    write_row(&mut text, &stream.schema, &rows.batch, i);
                    want.entry((name.clone(), rows.keys().value(i).to_owned())).or_default().push(serde_json::from_str(&text)?);
                }
            }
        }
        for (key, rows) in &want {
            let got = self.received.get(key).map_or(&[][..], Vec::as_slice);
            ensure!(rows == got, "of {key:?} a client should have got {} rows, and got {}:\n{rows:?}\n{got:?}", rows.len(), got.len());
        }
        let extra = self.received.keys().find(|key| !want.contains_key(*key));
        ensure!(extra.is_none(), "a client got rows of {extra:?} that are not between its cursors");
        Ok(())
    }
}
