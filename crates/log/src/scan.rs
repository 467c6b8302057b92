//! Reads a segment's frames one after another, in large steps, and looks for a good frame behind a bad one.

use std::sync::Arc;

use mulgil_disk::{DiskFile, DiskResult};

use crate::format::{self, FRAME_HEAD_BYTES, FRAME_MAGIC, Frame, HEADER_BYTES, Place, Reason};

/// What is read at once; frames larger than that are read whole.
const WINDOW_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Scanner {
    file: Arc<dyn DiskFile>,
    segment: u64,
    /// Where to stop: the size of the file, or of its committed part.
    end: u64,
    position: u64,
    window: Vec<u8>,
    window_at: u64,
}

#[derive(Debug)]
pub(crate) enum Scanned<'a> {
    Frame { position: u64, frame: Frame<'a> },
    Bad { position: u64, reason: Reason },
    End,
}

impl Scanner {
    /// Frames of the segment, from behind its header.
    pub fn new(file: Arc<dyn DiskFile>, segment: u64, end: u64) -> Self {
        Self { file, segment, end, position: HEADER_BYTES as u64, window: Vec::new(), window_at: 0 }
    }

    /// Where the next frame begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next frame. After a bad one the answer stays the same.
    pub fn next_frame(&mut self) -> DiskResult<Scanned<'_>> {
        let position = self.position;
        if position >= self.end {
            return Ok(Scanned::End);
        }
        match self.frame_end(position)? {
            None => Ok(Scanned::Bad { position, reason: "the file ends inside a frame" }),
            Some(end) => {
                let place = Place { segment: self.segment, position };
                match format::decode_frame(window_part(&self.window, self.window_at, position, end), place) {
                    Ok(frame) => {
                        self.position = end;
                        Ok(Scanned::Frame { position, frame })
                    }
                    Err(reason) => Ok(Scanned::Bad { position, reason }),
                }
            }
        }
    }

    /// Whether a good frame behind `bad` proves that the byte at `bad` was durable before that frame was written.
    pub fn proves_durable(&mut self, bad: u64) -> DiskResult<bool> {
        let is_proof = |position: u64, frame: &Frame<'_>| position.saturating_sub(u64::from(frame.unsynced_bytes)) > bad;
        Ok(self.find(bad, is_proof)?.is_some())
    }

    /// Goes on with the next good frame behind a bad one, and gives its place; or with the end, if there is none.
    pub fn pass_over(&mut self) -> DiskResult<Option<u64>> {
        let found = self.find(self.position, |_, _| true)?;
        self.position = found.unwrap_or(self.end);
        Ok(found)
    }

    /// Where behind `bad` a good frame begins that is wanted.
    fn find(&mut self, bad: u64, is_wanted: impl Fn(u64, &Frame<'_>) -> bool) -> DiskResult<Option<u64>> {
        let mut position = bad + 1;
        while position + FRAME_HEAD_BYTES as u64 <= self.end {
            self.load(position, FRAME_HEAD_BYTES)?;
            let seen = window_part(&self.window, self.window_at, position, self.window_at + self.window.len() as u64);
            match seen.windows(2).position(|pair| pair == FRAME_MAGIC) {
                None => position += (seen.len() - 1) as u64,
                Some(skip) => {
                    position += skip as u64;
                    if self.frame_at(position)?.is_some_and(|frame| is_wanted(position, &frame)) {
                        return Ok(Some(position));
                    }
                    position += 1;
                }
            }
        }
        Ok(None)
    }

    fn frame_at(&mut self, position: u64) -> DiskResult<Option<Frame<'_>>> {
        let Some(end) = self.frame_end(position)? else { return Ok(None) };
        let bytes = window_part(&self.window, self.window_at, position, end);
        Ok(format::decode_frame(bytes, Place { segment: self.segment, position }).ok())
    }

    /// The end of the frame at `position`, which is then in the window; `None` if the file ends before it.
    fn frame_end(&mut self, position: u64) -> DiskResult<Option<u64>> {
        if position + FRAME_HEAD_BYTES as u64 > self.end {
            return Ok(None);
        }
        self.load(position, FRAME_HEAD_BYTES)?;
        let head = window_part(&self.window, self.window_at, position, position + FRAME_HEAD_BYTES as u64);
        let len = format::frame_len(head);
        if position + len as u64 > self.end {
            return Ok(None);
        }
        self.load(position, len)?;
        Ok(Some(position + len as u64))
    }

    /// Makes the window hold `len` bytes from `position` on, which the file has.
    fn load(&mut self, position: u64, len: usize) -> DiskResult<()> {
        let window_end = self.window_at + self.window.len() as u64;
        if position < self.window_at || position + len as u64 > window_end {
            let n = (self.end - position).min(len.max(WINDOW_BYTES) as u64);
            self.window.resize(n as usize, 0);
            self.window_at = position;
            self.file.read_at(position, &mut self.window)?;
        }
        Ok(())
    }
}

fn window_part(window: &[u8], window_at: u64, from: u64, to: u64) -> &[u8] {
    &window[(from - window_at) as usize..(to - window_at) as usize]
}
