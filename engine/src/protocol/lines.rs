//! Lines out of a byte stream: bounded, honest about what it could not keep.

use memchr::{memchr, memchr2};

/// Collects one side's bytes into lines that end in LF, or in CR too.
///
/// No `Debug`: the unfinished line may hold a password.
pub struct Lines {
    partial: Vec<u8>,
    limit: usize,
    state: State,
    ends_at_cr: bool,
    /// Makes a line that exceeds the limit shorter without changing what it says, if it can.
    shorten: Option<fn(&mut Vec<u8>)>,
    /// It was made shorter before its end was there: the end must be treated alike, however the line was cut.
    is_shortened: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Collecting into `partial`.
    Collecting,
    /// `partial` holds a line that was handed out; it goes at the next call.
    HandedOut,
    /// Discarding up to the next LF.
    Skipping,
}

/// The next thing in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Line<'a> {
    /// A line without its LF and one CR before it.
    Complete(&'a [u8]),
    /// The beginning of a line that is longer than the limit; the rest will be skipped.
    TooLong(&'a [u8]),
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self {
            partial: Vec::new(),
            limit,
            state: State::Collecting,
            ends_at_cr: false,
            shorten: None,
            is_shortened: false,
        }
    }

    /// Lines that may be longer as long as `shorten` brings their beginning below `limit` again and again.
    pub const fn shortened(limit: usize, shorten: fn(&mut Vec<u8>)) -> Self {
        let mut lines = Self::new(limit);
        lines.shorten = Some(shorten);
        lines
    }

    /// Lines that every CR ends, not only that before LF; the LF after it ends an empty one.
    pub const fn ending_at_cr(limit: usize) -> Self {
        let mut lines = Self::new(limit);
        lines.ends_at_cr = true;
        lines
    }

    fn end_of_line(&self, input: &[u8]) -> Option<usize> {
        if self.ends_at_cr { memchr2(b'\r', b'\n', input) } else { memchr(b'\n', input) }
    }

    /// The next line, taking from the front of `input`. `None` when `input` is used up.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Line<'s>> {
        if self.state != State::Collecting {
            self.partial.clear();
        }
        if self.state == State::HandedOut {
            self.state = State::Collecting;
            self.is_shortened = false;
        }
        if self.state == State::Skipping {
            let end = self.end_of_line(input);
            *input = end.and_then(|end| input.get(end + 1..)).unwrap_or_default();
            end?;
            self.state = State::Collecting;
        }
        if input.is_empty() {
            return None;
        }
        match self.end_of_line(input) {
            Some(end) => {
                let (line, rest) = input.split_at(end);
                *input = rest.get(1..).unwrap_or_default();
                Some(self.finish(line))
            }
            None => {
                let rest = std::mem::take(input);
                self.extend(rest)
            }
        }
    }

    fn finish<'a>(&'a mut self, line: &'a [u8]) -> Line<'a> {
        let is_longer = self.is_shortened || self.partial.len().saturating_add(line.len()) > self.limit;
        let whole = if let Some(shorten) = self.shorten.filter(|_| is_longer) {
            self.partial.extend_from_slice(line);
            shorten(&mut self.partial);
            self.state = State::HandedOut;
            &self.partial
        } else if self.partial.is_empty() {
            line
        } else {
            let room = self.limit.saturating_add(1).saturating_sub(self.partial.len());
            self.partial.extend_from_slice(line.get(..room).unwrap_or(line));
            self.state = State::HandedOut;
            &self.partial
        };
        match whole.get(..self.limit) {
            Some(beginning) if whole.len() > self.limit => Line::TooLong(beginning),
            _ => Line::Complete(whole.strip_suffix(b"\r").unwrap_or(whole)),
        }
    }

    fn extend(&mut self, bytes: &[u8]) -> Option<Line<'_>> {
        let is_longer = self.partial.len().saturating_add(bytes.len()) > self.limit;
        let mut bytes = bytes;
        if let Some(shorten) = self.shorten.filter(|_| is_longer) {
            self.partial.extend_from_slice(bytes);
            shorten(&mut self.partial);
            self.is_shortened = true;
            bytes = &[];
        }
        let room = self.limit.saturating_sub(self.partial.len());
        if self.partial.len() > self.limit {
            self.partial.truncate(self.limit);
            self.state = State::Skipping;
            self.is_shortened = false;
            return Some(Line::TooLong(&self.partial));
        }
        match bytes.get(..room) {
            Some(fitting) if bytes.len() > room => {
                self.partial.extend_from_slice(fitting);
                self.state = State::Skipping;
                Some(Line::TooLong(&self.partial))
            }
            _ => {
                self.partial.extend_from_slice(bytes);
                None
            }
        }
    }

    /// Forgets the unfinished line; the next whole one is the next handed out.
    pub fn skip_to_next(&mut self) {
        self.partial = Vec::new();
        self.is_shortened = false;
        self.state = State::Skipping;
    }

    /// The unfinished line.
    pub fn partial(&self) -> &[u8] {
        if self.state == State::Collecting { &self.partial } else { &[] }
    }

    /// Bytes of heap held.
    pub fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(lines: &mut Lines, chunks: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(line) = lines.next(&mut input) {
                found.push(match line {
                    Line::Complete(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong(line) => format!("too long: {}", String::from_utf8_lossy(line)),
                });
            }
        }
        found
    }

    #[test]
    fn any_split_gives_the_same_lines() {
        let stream = b"one\r\ntwo\n\r\nthree is longer\nend\n";
        let whole = collect(&mut Lines::new(10), &[stream]);
        assert_eq!(whole, ["one", "two", "", "too long: three is l", "end"]);
        for at in 0..stream.len() {
            let (one, other) = stream.split_at(at);
            assert_eq!(collect(&mut Lines::new(10), &[one, other]), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(collect(&mut Lines::new(10), &bytes), whole);
    }

    #[test]
    fn a_line_made_shorter_is_the_same_however_it_was_cut() {
        fn without_filler(line: &mut Vec<u8>) {
            line.retain(|byte| *byte != b'.');
        }
        let stream =
            b"a..........b....\nshort\n................................c\r\n0123456789.0123456789\nend\n";
        let whole = collect(&mut Lines::shortened(10, without_filler), &[stream]);
        assert_eq!(whole, ["ab", "short", "c", "too long: 0123456789", "end"]);
        for size in 1..stream.len() {
            let chunks: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(collect(&mut Lines::shortened(10, without_filler), &chunks), whole, "by {size}");
        }
    }

    #[test]
    fn a_gap_drops_one_line_and_no_more() {
        let mut lines = Lines::new(100);
        assert_eq!(collect(&mut lines, &[b"one\ntw"]), ["one"]);
        lines.skip_to_next();
        assert_eq!(collect(&mut lines, &[b"ree\nfour\n"]), ["four"]);
    }

    #[test]
    fn an_endless_line_holds_no_more_than_the_limit() {
        let mut lines = Lines::new(64);
        let chunk = [b'x'; 1000];
        let mut too_long = 0;
        for _ in 0..1000 {
            too_long += collect(&mut lines, &[&chunk]).len();
        }
        assert_eq!(too_long, 1);
        assert!(lines.held_bytes() <= 128, "{}", lines.held_bytes());
    }
}
