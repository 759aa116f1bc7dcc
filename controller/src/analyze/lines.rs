//! Lines of a log: from a file, a pipe or standard input, plain or compressed, in pieces of whole lines. Read on a thread
//! of its own; memory is bounded whatever the input.

use std::{
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{
    input::{self, Compression, Counted, read_full},
    output::shown,
};

/// Lines are handed on in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;
/// Longer lines are passed over and counted: no server writes such.
pub(super) const LINE_BYTES_MAX: usize = 1 << 16;
/// Pieces read ahead.
const AHEAD: usize = 4;

/// Whole lines.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Each ends with a line feed, but for the last one of a file that does not.
    pub(super) bytes: Vec<u8>,
    /// Lines passed over as too long.
    pub(super) overlong: u64,
}

/// A log that is being read.
pub(super) struct Lines {
    pieces: Receiver<io::Result<Piece>>,
    consumed: Arc<AtomicU64>,
    shown: String,
}

impl Lines {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read or is empty.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = if path == Path::new("-") { "standard input".to_owned() } else { shown(path) };
        let why = || format!("cannot read {shown}");
        let (input, _) = input::open(path).with_context(why)?;
        let consumed = Arc::new(AtomicU64::new(0));
        let mut input = Counted::new(input, Arc::clone(&consumed));
        let mut magic = [0; 4];
        let (got, failure) = read_full(&mut input, &mut magic);
        if let Some(failure) = failure {
            return Err(failure).with_context(why);
        }
        let magic = magic.get(..got).unwrap_or_default();
        if magic.is_empty() {
            bail!("{shown} is empty: not a log");
        }
        let beginning = io::Cursor::new(magic.to_vec());
        let input = Compression::of(magic).unpacked(beginning.chain(input)).with_context(why)?;
        let (sender, pieces) = sync_channel(AHEAD);
        thread::Builder::new().name("log".into()).spawn(move || {
            let mut cutter = Cutter { input, rest: Vec::new(), is_in_overlong: false, failure: None };
            loop {
                let piece = cutter.next_piece();
                let is_last = !matches!(&piece, Ok(Some(_)));
                // Nobody listens any more once somebody has interrupted.
                if piece.transpose().is_some_and(|piece| sender.send(piece).is_err()) || is_last {
                    return;
                }
            }
        })?;
        Ok(Self { pieces, consumed, shown })
    }

    /// The next lines; `None` at the end.
    ///
    /// # Errors
    /// When the rest cannot be read, or a compressed file is cut off.
    pub(super) fn next_piece(&self) -> Result<Option<Piece>> {
        match self.pieces.recv() {
            Ok(piece) => {
                let why = || format!("{}: the rest cannot be read", self.shown);
                piece.map(Some).with_context(why)
            }
            Err(_ended) => Ok(None),
        }
    }

    /// Bytes of the file consumed so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}

/// Cuts a stream at line feeds.
struct Cutter {
    input: Box<dyn Read + Send>,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
    is_in_overlong: bool,
    /// Why the stream ended, told once what came before is handed on.
    failure: Option<io::Error>,
}

impl Cutter {
    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut piece = Piece { bytes: std::mem::take(&mut self.rest), overlong: 0 };
        let start = piece.bytes.len();
        piece.bytes.resize(start + PIECE_BYTES, 0);
        let (got, failure) = read_full(&mut self.input, piece.bytes.get_mut(start..).unwrap_or_default());
        self.failure = failure;
        piece.bytes.truncate(start + got);
        if got == 0
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        if piece.bytes.is_empty() {
            return Ok(None);
        }
        if self.is_in_overlong {
            match memchr::memchr(b'\n', &piece.bytes) {
                Some(end) => {
                    piece.bytes.drain(..=end);
                    self.is_in_overlong = false;
                }
                None => piece.bytes.clear(),
            }
        }
        if got == PIECE_BYTES {
            let end = memchr::memrchr(b'\n', &piece.bytes).map_or(0, |at| at + 1);
            self.rest = piece.bytes.split_off(end);
            if self.rest.len() > LINE_BYTES_MAX {
                self.rest.clear();
                self.is_in_overlong = true;
                piece.overlong += 1;
            }
        }
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> (Vec<u8>, u64) {
        let mut cutter = Cutter {
            input: Box::new(io::Cursor::new(input.to_vec())),
            rest: Vec::new(),
            is_in_overlong: false,
            failure: None,
        };
        let (mut all, mut overlong) = (Vec::new(), 0);
        while let Some(piece) = cutter.next_piece().unwrap() {
            assert!(piece.bytes.len() <= PIECE_BYTES + LINE_BYTES_MAX);
            all.extend(piece.bytes);
            overlong += piece.overlong;
        }
        (all, overlong)
    }

    #[test]
    fn pieces_put_together_are_the_input() {
        let input: Vec<u8> =
            (0..400_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        assert_eq!(read(&input), (input.clone(), 0));
        assert_eq!(read(b"no end"), (b"no end".to_vec(), 0));
    }

    #[test]
    fn a_line_without_end_is_passed_over_and_the_next_is_read() {
        let mut input = b"first\n".to_vec();
        input.extend(vec![b'x'; 5 * PIECE_BYTES + 17]);
        input.extend(b"\nlast\n");
        assert_eq!(read(&input), (b"first\nlast\n".to_vec(), 1));
    }
}
