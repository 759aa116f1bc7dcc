//! Lines of a log: from a file, a pipe or standard input, plain or compressed, in blocks of whole lines. Memory is bounded
//! whatever the input.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, poll};

use crate::{
    input::{self, Compression, Counted},
    output::shown,
};

/// Lines are handed on in blocks of about this size: two of them and what is told of their lines stay in a core's cache.
pub(super) const BLOCK_BYTES: usize = 1 << 17;
/// Longer lines are passed over and counted: no server writes such.
pub(super) const LINE_BYTES_MAX: usize = 1 << 16;

/// How long a pipe is waited for before somebody's interrupt is looked for, in milliseconds.
const PATIENCE: u16 = 200;

/// Whole lines, in a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Block {
    buffer: Vec<u8>,
    length: usize,
    /// Lines passed over as too long before it.
    pub(super) overlong: u64,
}

impl Block {
    /// Each line ends with a line feed, but for the last one of a file that does not.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

fn open(path: &Path, stop: &Arc<AtomicBool>) -> Result<Box<dyn Read + Send>> {
    let file = if path == Path::new("-") {
        File::from(io::stdin().as_fd().try_clone_to_owned()?)
    } else {
        let (input, is_regular) = input::open(path)?;
        if is_regular {
            return Ok(input);
        }
        File::open(path)?
    };
    Ok(Box::new(Pipe { file, stop: Arc::clone(stop) }))
}

/// What may have nothing to say for long: it ends when somebody interrupts.
struct Pipe {
    file: File,
    stop: Arc<AtomicBool>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.stop.load(Ordering::Relaxed) {
            let mut waited = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waited, PATIENCE) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

/// What messages call it.
pub(super) fn named(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { shown(path) }
}

/// A log that is being read.
pub(super) struct Lines {
    input: Box<dyn Read + Send>,
    shown: String,
    block_bytes: usize,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
    is_in_overlong: bool,
    /// Why the input ended, told once what came before is handed on.
    failure: Option<io::Error>,
}

impl Lines {
    /// Opens a file; `-` is standard input. `consumed` counts its bytes, packed as they are.
    ///
    /// # Errors
    /// When it cannot be read or is empty.
    pub(super) fn open(path: &Path, consumed: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) -> Result<Self> {
        let input = Self::open_input(path, consumed, stop)?;
        Ok(Self::new(input, named(path), BLOCK_BYTES))
    }

    /// Opens a file and unpacks it.
    ///
    /// # Errors
    /// When it cannot be read or is empty.
    pub(super) fn open_input(
        path: &Path,
        consumed: &Arc<AtomicU64>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Box<dyn Read + Send>> {
        let shown = named(path);
        let why = || format!("cannot read {shown}");
        let input = open(path, stop).with_context(why)?;
        let mut input = Counted::new(input, Arc::clone(consumed));
        let mut magic = [0; Compression::MAGIC_BYTES];
        let (got, failure) = input::read_full(&mut input, &mut magic);
        if let Some(failure) = failure {
            return Err(failure).with_context(why);
        }
        let magic = magic.get(..got).unwrap_or_default();
        if magic.is_empty() {
            bail!("{shown} is empty: not a log");
        }
        let beginning = io::Cursor::new(magic.to_vec());
        Compression::of(magic).unpacked(beginning.chain(input)).with_context(why)
    }

    /// Reads from anywhere, in blocks of about this size.
    pub(super) fn new(input: Box<dyn Read + Send>, shown: String, block_bytes: usize) -> Self {
        Self { input, shown, block_bytes, rest: Vec::new(), is_in_overlong: false, failure: None }
    }

    /// Reads the next lines into a block; `false` at the end.
    ///
    /// # Errors
    /// When the rest cannot be read, or a compressed file is cut off.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool> {
        let why = || format!("{}: the rest cannot be read", self.shown);
        if let Some(failure) = self.failure.take() {
            return Err(failure).with_context(why);
        }
        block.overlong = 0;
        let start = self.rest.len();
        block.buffer.resize(start + self.block_bytes, 0);
        let (room, to_fill) = block.buffer.split_at_mut(start);
        room.copy_from_slice(&self.rest);
        self.rest.clear();
        let (got, failure) = input::read_full(&mut self.input, to_fill);
        self.failure = failure;
        block.length = start + got;
        if block.length == 0 {
            return match self.failure.take() {
                Some(failure) => Err(failure).with_context(why),
                None => Ok(false),
            };
        }
        if self.is_in_overlong {
            let end = memchr::memchr(b'\n', block.bytes());
            let kept = end.map_or(block.length, |end| end + 1);
            block.buffer.copy_within(kept..block.length, 0);
            block.length -= kept;
            self.is_in_overlong = end.is_none();
        }
        if got == self.block_bytes {
            let end = memchr::memrchr(b'\n', block.bytes()).map_or(0, |at| at + 1);
            let rest = block.bytes().get(end..).unwrap_or_default();
            if rest.len() > LINE_BYTES_MAX {
                self.is_in_overlong = true;
                block.overlong += 1;
            } else {
                self.rest.extend_from_slice(rest);
            }
            block.length = end;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 17;

    fn read(input: &[u8]) -> (Vec<u8>, u64) {
        let mut lines = Lines::new(Box::new(io::Cursor::new(input.to_vec())), "test".into(), BYTES);
        let (mut all, mut overlong) = (Vec::new(), 0);
        let mut block = Block::default();
        while lines.next(&mut block).unwrap() {
            assert!(block.bytes().len() <= BYTES + LINE_BYTES_MAX);
            all.extend(block.bytes());
            overlong += block.overlong;
        }
        (all, overlong)
    }

    #[test]
    fn blocks_put_together_are_the_input() {
        let input: Vec<u8> =
            (0..400_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        assert_eq!(read(&input), (input.clone(), 0));
        assert_eq!(read(b"no end"), (b"no end".to_vec(), 0));
    }

    #[test]
    fn a_line_without_end_is_passed_over_and_the_next_is_read() {
        let mut input = b"first\n".to_vec();
        input.extend(vec![b'x'; 5 * BYTES + 17]);
        input.extend(b"\nlast\n");
        assert_eq!(read(&input), (b"first\nlast\n".to_vec(), 1));
    }
}
