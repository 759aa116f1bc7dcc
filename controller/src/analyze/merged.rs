//! Several logs of one server as one, by the times of their lines: some servers write a file for each kind of line, and all of
//! them at once.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{Arc, Mutex, PoisonError},
};

use floodwall_engine::{Timestamp, protocol::log::Format};

use super::lines::LINE_BYTES_MAX;

/// Bytes of whole lines that are put together at once.
const CHUNK_BYTES: usize = 1 << 16;

/// What could not be read to its end, and why.
pub(super) type Failures = Arc<Mutex<Vec<String>>>;

/// Reads several logs; lines with the same time in the order of the logs, lines without one behind that before them.
pub(super) struct Merged {
    format: Format,
    inputs: Vec<Input>,
    /// The input whose line is not at its end yet, because it is too long for one piece.
    unfinished: Option<usize>,
    chunk: Vec<u8>,
    taken: usize,
    failures: Failures,
}

/// One log, and its next line.
struct Input {
    reader: BufReader<Box<dyn Read + Send>>,
    shown: String,
    line: Vec<u8>,
    at: Timestamp,
}

impl Merged {
    /// Reads logs of one format; failures of one end that one alone.
    pub(super) fn new(format: Format, logs: Vec<(Box<dyn Read + Send>, String)>, failures: Failures) -> Self {
        let input = |(reader, shown)| Input {
            reader: BufReader::with_capacity(CHUNK_BYTES, reader),
            shown,
            line: Vec::new(),
            at: Timestamp::EPOCH,
        };
        let inputs: Vec<Input> = logs.into_iter().map(input).collect();
        let mut merged = Self { format, inputs, unfinished: None, chunk: Vec::new(), taken: 0, failures };
        for index in 0..merged.inputs.len() {
            merged.advance(index);
        }
        merged
    }

    /// Reads the next line of one log; it stays empty at the end.
    fn advance(&mut self, index: usize) {
        let Some(input) = self.inputs.get_mut(index) else { return };
        input.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if let Err(error) = input.reader.by_ref().take(limit).read_until(b'\n', &mut input.line) {
            let failure = format!("{}: the rest cannot be read: {error}", input.shown);
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
        }
        if let Some(at) = self.format.time(&input.line) {
            input.at = at;
        }
    }

    fn fill(&mut self) {
        self.chunk.clear();
        self.taken = 0;
        while self.chunk.len() < CHUNK_BYTES {
            let earliest = || {
                let open = self.inputs.iter().enumerate().filter(|(_, input)| !input.line.is_empty());
                open.min_by_key(|(index, input)| (input.at, *index)).map(|(index, _)| index)
            };
            let Some(index) = self.unfinished.take().or_else(earliest) else { return };
            let Some(input) = self.inputs.get(index) else { return };
            self.chunk.extend_from_slice(&input.line);
            let is_whole = input.line.ends_with(b"\n");
            self.advance(index);
            if !is_whole {
                let has_more = self.inputs.get(index).is_some_and(|input| !input.line.is_empty());
                if has_more {
                    self.unfinished = Some(index);
                } else {
                    // The last line of a file has no end, and another file's line follows.
                    self.chunk.push(b'\n');
                }
            }
        }
    }
}

impl Read for Merged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken >= self.chunk.len() {
            self.fill();
        }
        let mut rest = self.chunk.get(self.taken..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(logs: &[&str]) -> String {
        let logs = logs.iter().zip(0..).map(|(log, number)| {
            let reader: Box<dyn Read + Send> = Box::new(io::Cursor::new(log.to_string().into_bytes()));
            (reader, format!("{number}.log"))
        });
        let mut merged = Merged::new(Format::Hybrid, logs.collect(), Failures::default());
        let mut text = String::new();
        merged.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn lines_come_by_their_times_whole_and_each_once() {
        let line = |minute: u32, text: &str| format!("[2026-11-21T05:{minute:02}:00+0000] {text}\n");
        let one = [line(1, "a"), "no time\n".to_owned(), line(5, "b")].concat();
        let two = [line(1, "c"), line(3, &"x".repeat(200_000)), line(4, "d")].concat();
        let three = line(4, "e").trim_end().to_owned();
        let expected = [
            line(1, "a"),
            "no time\n".to_owned(),
            line(1, "c"),
            line(3, &"x".repeat(200_000)),
            line(4, "d"),
            line(4, "e"),
            line(5, "b"),
        ]
        .concat();
        assert!(merge(&[&one, &two, &three]) == expected);
        assert_eq!(merge(&[&one]), one);
        assert_eq!(merge(&[]), "");
    }
}
