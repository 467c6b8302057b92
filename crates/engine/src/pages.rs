//! A list in pages of a fixed size. One vector would be copied as a whole whenever it is full, and then stand half empty.

use std::ops::{Index, IndexMut};

#[derive(Debug)]
pub struct Pages<T>(Vec<Vec<T>>);

const PAGE_LEN: usize = 512;

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Pages<T> {
    /// Says where it is.
    pub fn push(&mut self, item: T) -> u32 {
        if self.0.last().is_none_or(|page| page.len() == PAGE_LEN) {
            self.0.push(Vec::with_capacity(PAGE_LEN));
        }
        let n_before = (self.0.len() - 1) * PAGE_LEN;
        let page = self.0.last_mut().expect("invariant: there is a page by now");
        page.push(item);
        u32::try_from(n_before + page.len() - 1).expect("invariant: fewer than 2^32 items fit into memory")
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

impl<T> Index<u32> for Pages<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        &self.0[at as usize / PAGE_LEN][at as usize % PAGE_LEN]
    }
}

impl<T> IndexMut<u32> for Pages<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        &mut self.0[at as usize / PAGE_LEN][at as usize % PAGE_LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_where_they_were_put() {
        let mut pages = Pages::default();
        let n = 3 * PAGE_LEN as u32 + 1;
        for item in 0..n {
            assert_eq!(pages.push(item), item);
        }
        pages[PAGE_LEN as u32] = 7;
        assert_eq!((pages[PAGE_LEN as u32 - 1], pages[PAGE_LEN as u32], pages[n - 1]), (PAGE_LEN as u32 - 1, 7, n - 1));
        assert_eq!(pages.iter().count(), n as usize);
    }
}
