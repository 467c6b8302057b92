//! The latest row of each key since the client was last told: older ones are passed over, and counted.

use super::chunk::Chunk;
use std::collections::HashMap;
use std::sync::Arc;

/// Lives from one pull to the next, so it is bounded by the rows of a pull.
#[derive(Default)]
pub struct Latest {
    rows: HashMap<(usize, String), (Arc<Chunk>, usize)>,
    n_conflated: u64,
    /// The next frames are the state as found, not changes to it.
    pub is_snapshot: bool,
}

impl Latest {
    pub fn add(&mut self, leg: usize, chunk: &Arc<Chunk>, row: usize) {
        let place = (Arc::clone(chunk), row);
        if self.rows.insert((leg, chunk.key(row).to_owned()), place).is_some() {
            self.n_conflated += 1;
        }
    }

    /// Frames of about `frame_bytes`, rows in the order of the log; empties it.
    pub fn show(&mut self, frame_bytes: usize, out: &mut Vec<String>, head: impl Fn(usize) -> String) {
        let mut rows: Vec<_> = self
            .rows
            .drain()
            .map(|((leg, _), (chunk, row))| (leg, chunk.rows.partition, chunk.base().plus(row as u64), chunk, row))
            .collect();
        rows.sort_unstable_by_key(|(leg, partition, offset, ..)| (*leg, *partition, *offset));
        let is_snapshot = std::mem::take(&mut self.is_snapshot);
        let mut n_conflated = std::mem::take(&mut self.n_conflated);
        // The count stands in the first frame only, so that a client can add counts up.
        let mut close =
            |frame: String| frame + &format!(r#"],"snapshot":{is_snapshot},"conflated":{}}}"#, std::mem::take(&mut n_conflated));
        let mut open: Option<(usize, String)> = None;
        for (leg, _, _, chunk, row) in rows {
            if let Some((_, frame)) = open.take_if(|(of, frame)| *of != leg || frame.len() >= frame_bytes) {
                out.push(close(frame));
            }
            match &mut open {
                Some((_, frame)) => {
                    frame.push(',');
                    frame.push_str(chunk.json(row));
                }
                None => open = Some((leg, head(leg) + r#","rows":["# + chunk.json(row))),
            }
        }
        out.extend(open.map(|(_, frame)| close(frame)));
    }
}
