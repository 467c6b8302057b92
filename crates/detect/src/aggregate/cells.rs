//! Counts and sums over a sliding window, exact: what a row added is taken away again as the same integer.
//!
//! State: one cell per row, ordered by the axis, while the window has at most `ROWS_EXACT_MAX` rows; one cell per bucket of the window
//! for what arrives while it has more. So there are never more than `ROWS_EXACT_MAX + BUCKETS + 1` cells, and those of a lifetime window
//! are none.

use super::{ROWS_EXACT_MAX, Window, room_for_one};
use arrow::datatypes::i256;
use mulgil_engine::layout::{Fields, put_i64, put_i256, put_u64};
use std::collections::VecDeque;

/// What is added up beside the number of rows.
pub trait Measure: Copy + Default + PartialEq + std::fmt::Debug {
    fn add(&mut self, other: &Self);
    fn subtract(&mut self, other: &Self);
    fn write(&self, out: &mut Vec<u8>);
    fn read(bytes: &mut Fields<'_>) -> Result<Self, String>;
}

impl Measure for () {
    fn add(&mut self, (): &Self) {}
    fn subtract(&mut self, (): &Self) {}
    fn write(&self, _out: &mut Vec<u8>) {}
    fn read(_bytes: &mut Fields<'_>) -> Result<Self, String> {
        Ok(())
    }
}

/// 256 bits, so that no number of 38-digit values overflows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum(pub i256);

impl Sum {
    pub fn of(value: i128) -> Self {
        Self(i256::from_i128(value))
    }
}

impl Measure for Sum {
    fn add(&mut self, other: &Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
    fn subtract(&mut self, other: &Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }
    fn write(&self, out: &mut Vec<u8>) {
        put_i256(out, self.0);
    }
    fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        bytes.i256().map(Self)
    }
}

/// A sum and a sum of squares. Values are at most [`Squares::VALUE_MAX`], so that the squares of 2^40 rows fit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Squares {
    pub sum: i256,
    pub squares: i256,
}

impl Squares {
    /// Larger values count as null.
    pub const VALUE_MAX: u128 = 10u128.pow(30);

    pub fn of(value: i128) -> Option<Self> {
        let x = i256::from_i128(value);
        (value.unsigned_abs() <= Self::VALUE_MAX).then(|| Self { sum: x, squares: x.wrapping_mul(x) })
    }

    /// Sample variance in squared units of the scaled integers: (n Σx² - (Σx)²) / (n (n - 1)), the numerator exact. None below two rows.
    pub fn variance(&self, n: u64) -> Option<f64> {
        let count = i256::from_i128(i128::from(n));
        let numerator = self.squares.checked_mul(count)?.checked_sub(self.sum.checked_mul(self.sum)?)?;
        let n = n as f64;
        (n >= 2.0).then(|| (to_f64(numerator) / (n * (n - 1.0))).max(0.0))
    }
}

/// The nearest float, up to the rounding of two halves.
pub fn to_f64(n: i256) -> f64 {
    let (low, high) = n.to_parts();
    if high == 0 || (high == -1 && low >> 127 == 1) {
        low.cast_signed() as f64 + if high == 0 && low >> 127 == 1 { 2f64.powi(128) } else { 0.0 }
    } else {
        high as f64 * 2f64.powi(128) + low as f64
    }
}

impl Measure for Squares {
    fn add(&mut self, other: &Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.squares = self.squares.wrapping_add(other.squares);
    }
    fn subtract(&mut self, other: &Self) {
        self.sum = self.sum.wrapping_sub(other.sum);
        self.squares = self.squares.wrapping_sub(other.squares);
    }
    fn write(&self, out: &mut Vec<u8>) {
        put_i256(out, self.sum);
        put_i256(out, self.squares);
    }
    fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        Ok(Self { sum: bytes.i256()?, squares: bytes.i256()? })
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Cell<M> {
    /// The axis of its newest row.
    at: i64,
    /// The lowest offset of its rows.
    first: u64,
    n: u64,
    measure: M,
}

/// Layout: n, total, coarse (0 or 1), first offset + 1 (0 for none), number of cells, then per cell: axis less that of the cell before,
/// first offset less that of the cell before, n, measure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cells<M> {
    cells: VecDeque<Cell<M>>,
    n: u64,
    total: M,
    coarse: bool,
    /// Lifetime windows only: the offset of the first row ever.
    first: Option<u64>,
}

impl<M: Measure> Cells<M> {
    pub fn n(&self) -> u64 {
        self.n
    }

    pub fn total(&self) -> &M {
        &self.total
    }

    /// The offset of the oldest row in the window.
    pub fn first_offset(&self) -> Option<u64> {
        self.cells.front().map(|c| c.first).or(self.first)
    }

    /// Takes out what has left the window that ends at `now`.
    pub fn advance(&mut self, now: i64, window: Window) {
        let Some(width) = window.width() else { return };
        while self.cells.front().is_some_and(|c| c.at <= now.saturating_sub(width)) {
            let gone = self.cells.pop_front().expect("invariant: a front that was just seen is there");
            self.n -= gone.n;
            self.total.subtract(&gone.measure);
        }
        if self.n <= ROWS_EXACT_MAX / 2 {
            self.coarse = false;
        }
    }

    /// Adds one row; `now` is the end of the window, `at` the row's own place on the axis.
    pub fn add(&mut self, at: i64, offset: u64, measure: M, now: i64, window: Window) {
        self.advance(now, window);
        if let Some(width) = window.width() {
            if at <= now.saturating_sub(width) {
                return;
            }
            self.place(Cell { at, first: offset, n: 1, measure }, window.bucket());
        } else {
            self.first.get_or_insert(offset);
        }
        self.n += 1;
        self.total.add(&measure);
        if !self.coarse && window.width().is_some() && self.n > ROWS_EXACT_MAX {
            self.coarse = true;
            self.merge_buckets(window.bucket());
        }
    }

    fn place(&mut self, cell: Cell<M>, bucket: i64) {
        let behind = self.cells.iter().rev().take_while(|c| c.at > cell.at).count();
        let index = self.cells.len() - behind;
        if self.coarse {
            let same = |c: &Cell<M>| c.at.div_euclid(bucket) == cell.at.div_euclid(bucket);
            let before = index.checked_sub(1).filter(|i| same(&self.cells[*i]));
            if let Some(i) = before.or_else(|| (index < self.cells.len() && same(&self.cells[index])).then_some(index)) {
                return join(&mut self.cells[i], &cell);
            }
        }
        room_for_one(&mut self.cells);
        self.cells.insert(index, cell);
    }

    fn merge_buckets(&mut self, bucket: i64) {
        let mut merged: VecDeque<Cell<M>> = VecDeque::new();
        for cell in self.cells.drain(..) {
            match merged.back_mut() {
                Some(last) if last.at.div_euclid(bucket) == cell.at.div_euclid(bucket) => join(last, &cell),
                _ => merged.push_back(cell),
            }
        }
        self.cells = merged;
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.n);
        self.total.write(out);
        out.push(u8::from(self.coarse));
        put_u64(out, self.first.map_or(0, |f| f + 1));
        put_u64(out, self.cells.len() as u64);
        let (mut at, mut first) = (0i64, 0i64);
        for cell in &self.cells {
            put_i64(out, cell.at.wrapping_sub(at));
            put_i64(out, (cell.first as i64).wrapping_sub(first));
            put_u64(out, cell.n);
            cell.measure.write(out);
            (at, first) = (cell.at, cell.first as i64);
        }
    }

    pub fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let n = bytes.u64()?;
        let total = M::read(bytes)?;
        let coarse = bytes.u8()? != 0;
        let first = bytes.u64()?.checked_sub(1);
        let n_cells = bytes.count()?;
        let mut cells = VecDeque::with_capacity(n_cells);
        let (mut at, mut first_offset) = (0i64, 0i64);
        for _ in 0..n_cells {
            at = at.wrapping_add(bytes.i64()?);
            first_offset = first_offset.wrapping_add(bytes.i64()?);
            cells.push_back(Cell { at, first: first_offset as u64, n: bytes.u64()?, measure: M::read(bytes)? });
        }
        let n_in_cells = cells.iter().try_fold(0u64, |n, cell| n.checked_add(cell.n));
        if n > i64::MAX as u64 || (!cells.is_empty() && n_in_cells != Some(n)) {
            return Err("the rows of its cells do not add up".to_owned());
        }
        Ok(Self { cells, n, total, coarse, first })
    }
}

fn join<M: Measure>(into: &mut Cell<M>, other: &Cell<M>) {
    into.at = into.at.max(other.at);
    into.first = into.first.min(other.first);
    into.n += other.n;
    into.measure.add(&other.measure);
}
