//! Where one member is reached: several URLs, tried in turn.

use std::cell::{Cell, RefCell};

use crate::config::Url;

/// The peer URLs of one member, shared by all that talk to it.
#[derive(Debug)]
pub struct Urls {
    list: RefCell<Vec<Url>>,
    current: Cell<usize>,
}

impl Urls {
    /// Starts with the first of `list`.
    pub fn new(list: Vec<Url>) -> Self {
        Self { list: RefCell::new(list), current: Cell::new(0) }
    }

    /// Reads the URLs of a member as they are in the log; what is none cannot be reached and is left out.
    pub fn parse(texts: &[String]) -> Vec<Url> {
        texts.iter().filter_map(|text| Url::parse(text).ok()).collect()
    }

    /// Replaces them, if they are others.
    pub fn replace(&self, list: Vec<Url>) {
        if *self.list.borrow() != list {
            self.list.replace(list);
            self.current.set(0);
        }
    }

    /// Counts them; a member without any cannot be reached.
    pub fn len(&self) -> usize {
        self.list.borrow().len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Returns the URL to try.
    pub fn current(&self) -> Option<Url> {
        self.list.borrow().get(self.current.get()).cloned()
    }

    /// Goes on to the next URL if `failed` is the present one: others may have gone on already.
    pub fn advance(&self, failed: &Url) {
        let list = self.list.borrow();
        if list.get(self.current.get()) == Some(failed) {
            self.current.set((self.current.get() + 1) % list.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_tried_in_turn_and_a_failure_counts_once() {
        let texts = ["http://10.0.0.1:1", "no url", "http://10.0.0.1:2"].map(str::to_owned);
        let urls = Urls::new(Urls::parse(&texts));
        let first = urls.current().expect("two");
        urls.advance(&first);
        urls.advance(&first);
        let second = urls.current().expect("two");
        assert_eq!(second.port(), 2);
        urls.advance(&second);
        assert_eq!(urls.current(), Some(first));
        urls.replace(vec![]);
        assert_eq!(urls.current(), None);
        urls.advance(&second);
    }
}
