//! Lines and columns of a text, counted only as far as someone needs them.

/// Walks forward through a text and knows the line it stands on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    /// 1-based line of `at`.
    pub line: u64,
    at: usize,
    /// Where that line begins.
    start: usize,
    /// Characters of that line before the text, which may begin in its middle.
    before: u64,
}

impl Lines {
    /// At the first byte of a text whose first line has the number `line`.
    pub fn from(line: u64) -> Self {
        Self { line, at: 0, start: 0, before: 0 }
    }

    /// At the first byte of a text that begins behind `before` characters of its first line.
    pub fn within(line: u64, before: u64) -> Self {
        Self { before, ..Self::from(line) }
    }

    /// Characters of the line before the present place.
    pub fn before(&self, text: &[u8]) -> u64 {
        self.before + column(&text[self.start..self.at]) - 1
    }

    /// Goes on to byte `to`, which must not lie behind.
    pub fn advance(&mut self, text: &[u8], to: usize) {
        let passed = &text[self.at..to];
        let n = memchr::memchr_iter(b'\n', passed).count();
        if n > 0 {
            self.line += n as u64;
            self.start = self.at + memchr::memrchr(b'\n', passed).expect("a line break was counted") + 1;
            self.before = 0;
        }
        self.at = to;
    }

    /// The 1-based line and column of a byte at or behind the present place.
    pub fn place(mut self, text: &[u8], at: usize) -> (u64, u64) {
        let at = at.min(text.len());
        self.advance(text, at.max(self.at));
        (self.line, self.before + column(&text[self.start..at.max(self.start)]))
    }
}

/// The 1-based column behind `passed`, in characters; a byte that is no valid UTF-8 counts as one.
pub(crate) fn column(passed: &[u8]) -> u64 {
    1 + passed.iter().filter(|b| (**b & 0xc0) != 0x80).count() as u64
}
