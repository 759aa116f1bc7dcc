//! Mistakes in a file: where, what, and the nearest thing that would have been right.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path, self.line, self.column, self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Collects the mistakes of one file.
#[derive(Debug)]
pub struct Diagnostics<'a> {
    path: &'a str,
    source: &'a str,
    found: Vec<(usize, Diagnostic)>,
}

impl<'a> Diagnostics<'a> {
    /// No mistakes yet.
    pub const fn new(path: &'a str, source: &'a str) -> Self {
        Self { path, source, found: Vec::new() }
    }

    /// File, line and column of a byte, as mistakes begin with them.
    pub fn place(&self, offset: usize) -> String {
        let (line, column) = self.position(offset);
        format!("{}:{line}:{column}", self.path)
    }

    /// Line and column of a byte of the file, from 1.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        position(self.source, offset)
    }

    /// Notes a mistake at a byte offset.
    pub fn report(&mut self, offset: usize, message: impl Into<String>, remedy: Option<String>) {
        let (line, column) = self.position(offset);
        let diagnostic =
            Diagnostic { path: self.path.to_owned(), line, column, message: message.into(), remedy };
        self.found.push((offset, diagnostic));
    }

    /// How many were noted.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether none was noted.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them, in file order.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }
}

fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count().saturating_add(1);
    let start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
    let column = before.get(start..).unwrap_or_default().chars().count().saturating_add(1);
    (line, column)
}

/// The remedy "did you mean …", if one of the valid words is near enough; otherwise the list of them.
pub fn suggest<'w>(word: &str, valid: impl IntoIterator<Item = &'w str>) -> Option<String> {
    let valid: Vec<&str> = valid.into_iter().collect();
    let nearest = valid.iter().min_by_key(|candidate| distance(word, candidate))?;
    let near = distance(word, nearest).saturating_mul(2) <= nearest.len().max(word.len());
    if near {
        Some(format!("did you mean \"{nearest}\"?"))
    } else {
        Some(format!("valid: {}", valid.join(", ")))
    }
}

/// Edit distance with transpositions counted once (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    let mut previous = None;
    for (row, a) in one.chars().enumerate() {
        let mut current = vec![row.saturating_add(1)];
        for (column, b) in other.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX / 2);
            let substitute = at(&last, column).saturating_add(usize::from(a != *b));
            let insert = at(&current, column).saturating_add(1);
            let delete = at(&last, column.saturating_add(1)).saturating_add(1);
            let mut best = substitute.min(insert).min(delete);
            let transposed =
                column > 0 && previous == Some(*b) && other.get(column.wrapping_sub(1)) == Some(&a);
            if transposed {
                best = best.min(at(&before_last, column.wrapping_sub(1)).saturating_add(1));
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(a);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = "ab\ncdé = 1\n";
        assert_eq!(position(source, 0), (1, 1));
        assert_eq!(position(source, 3), (2, 1));
        assert_eq!(position(source, source.find('=').unwrap()), (2, 5));
        assert_eq!(position(source, 9_999), (3, 1));
    }

    #[test]
    fn suggestions_are_the_nearest_word_or_the_list() {
        assert_eq!(distance("limit", "limti"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(suggest("limt", ["limit", "level"]).unwrap(), "did you mean \"limit\"?");
        assert_eq!(suggest("zzz", ["limit", "level"]).unwrap(), "valid: limit, level");
    }
}
