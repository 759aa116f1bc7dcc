//! Questions a client asked and the server has not answered yet, in order and bounded.
//!
//! Equal questions in a row take one place, so a guesser who repeats one name takes one. When all places are
//! taken, further questions are only counted: their answers come out as unnamed, in their turn, and the order
//! of all others stays right.

use std::collections::VecDeque;

use crate::text::TEXT_BYTES_MAX;

/// Unanswered questions.
pub struct Pending<T> {
    runs: VecDeque<(T, u32)>,
    /// Questions after the last run that had no place.
    unnamed: u32,
    places: usize,
}

impl<T: Clone + PartialEq> Pending<T> {
    /// None yet; at most `places` different ones in a row.
    pub const fn new(places: usize) -> Self {
        Self { runs: VecDeque::new(), unnamed: 0, places }
    }

    /// One more was asked.
    pub fn push(&mut self, question: T) {
        if self.unnamed > 0 {
            self.unnamed = self.unnamed.saturating_add(1);
            return;
        }
        let has_place = self.runs.len() < self.places;
        match self.runs.back_mut() {
            Some((last, count)) if *last == question => *count = count.saturating_add(1),
            _ if has_place => self.runs.push_back((question, 1)),
            _ => self.unnamed = 1,
        }
    }

    /// The oldest one was answered. `None` if it is not known what was asked.
    pub fn pop(&mut self) -> Option<T> {
        match self.runs.front_mut() {
            Some((question, count)) if *count > 1 => {
                *count = count.saturating_sub(1);
                Some(question.clone())
            }
            Some(_) => self.runs.pop_front().map(|(question, _)| question),
            None => {
                self.unnamed = self.unnamed.saturating_sub(1);
                None
            }
        }
    }

    /// The oldest one.
    pub fn front(&self) -> Option<&T> {
        self.runs.front().map(|(question, _)| question)
    }

    /// Whether nothing is unanswered.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.unnamed == 0
    }

    /// Forgets all: after a gap nobody knows what belongs to what.
    pub fn clear(&mut self) {
        self.runs = VecDeque::new();
        self.unnamed = 0;
    }

    /// Bytes of heap held, at most.
    pub fn held_bytes(&self) -> usize {
        let each = size_of::<(T, u32)>().saturating_add(TEXT_BYTES_MAX.saturating_mul(3));
        self.runs.capacity().saturating_mul(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_questions() {
        let mut pending = Pending::new(4);
        for name in ["a", "a", "b", "a"] {
            pending.push(name);
        }
        let answers: Vec<_> = (0..5).map(|_| pending.pop()).collect();
        assert_eq!(answers, [Some("a"), Some("a"), Some("b"), Some("a"), None]);
        assert!(pending.is_empty());
    }

    #[test]
    fn questions_without_a_place_come_out_unnamed_in_their_turn() {
        let mut pending = Pending::new(2);
        for name in ["a", "b", "c", "c"] {
            pending.push(name);
        }
        assert_eq!(pending.pop(), Some("a"));
        // A place is free, yet "d" must not overtake the two that had none.
        pending.push("d");
        assert_eq!(pending.pop(), Some("b"));
        assert_eq!([pending.pop(), pending.pop(), pending.pop()], [None, None, None]);
        assert!(pending.is_empty());
        pending.push("e");
        assert_eq!(pending.pop(), Some("e"));
    }
}
