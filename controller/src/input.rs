//! What is read from: files, pipes and standard input, plain or compressed.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Result, bail};

/// The bytes of a file, and whether they can be read again; `-` is standard input.
pub(crate) fn open(path: &Path) -> Result<(Box<dyn Read + Send>, bool)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), false));
    }
    let file = File::open(path)?;
    let kind = file.metadata()?;
    if kind.is_dir() {
        bail!("it is a folder, not a file");
    }
    Ok((Box::new(file), kind.is_file()))
}

/// Fills a buffer as far as it goes, since a pipe hands out fewer bytes at a time; answers how far, and why no further
/// if that was a mistake.
pub(crate) fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut got = 0;
    while let Some(room) = buffer.get_mut(got..).filter(|room| !room.is_empty()) {
        match input.read(room) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (got, Some(error)),
        }
    }
    (got, None)
}

/// How a file is packed, told by its first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Xz,
    Zstandard,
}

/// Memory an .xz may ask for: what `xz -9` takes, and a little.
const XZ_KIBIBYTES_MAX: u32 = 80 << 10;

impl Compression {
    /// Bytes it takes to tell.
    pub(crate) const MAGIC_BYTES: usize = 6;

    pub(crate) const fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstandard,
            _ => Self::None,
        }
    }

    /// The bytes behind.
    pub(crate) fn unpacked(self, packed: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Self::Xz => {
                let packed = BufReader::new(packed);
                Box::new(Pieces(lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_KIBIBYTES_MAX)))
            }
            Self::Zstandard => Box::new(zstd::stream::Decoder::new(packed)?),
        })
    }
}

/// Reads a little at a time. The reader of .xz files unpacks until a buffer is full, and what is in there already is lost with the
/// mistake that it finds on the way: the end of a file that was cut off.
struct Pieces<R>(R);

impl<R> Pieces<R> {
    const BYTES: usize = 1 << 10;
}

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(Self::BYTES);
        self.0.read(buffer.get_mut(..length).unwrap_or_default())
    }
}

/// An input that counts what is read of it.
pub(crate) struct Counted {
    input: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Counted {
    pub(crate) const fn new(input: Box<dyn Read + Send>, consumed: Arc<AtomicU64>) -> Self {
        Self { input, consumed }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.consumed.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn of_an_xz_that_was_cut_off_what_comes_before_is_read() {
        let whole: Vec<u8> = (0_u32..300_000)
            .flat_map(|number| format!("{:x}\n", number.wrapping_mul(number)).into_bytes())
            .collect();
        let options = lzma_rust2::XzOptions::with_preset(0);
        let mut packed = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        packed.write_all(&whole).unwrap();
        let packed = packed.finish().unwrap();
        let read = |packed: &[u8], bytes: usize| {
            let mut input = Compression::Xz.unpacked(io::Cursor::new(packed.to_vec())).unwrap();
            let mut all = Vec::new();
            loop {
                let mut buffer = vec![0; bytes];
                let (got, failure) = read_full(&mut input, &mut buffer);
                all.extend_from_slice(&buffer[..got]);
                if failure.is_some() || got == 0 {
                    return (all, failure.is_some());
                }
            }
        };
        assert_eq!(read(&packed, 1 << 20), (whole.clone(), false));
        let cut = &packed[..packed.len() / 2];
        let (all, failed) = read(cut, 1 << 20);
        let (bytewise, _) = read(cut, 1);
        assert!(failed && whole.starts_with(&all) && all.len() > whole.len() / 4, "{}", all.len());
        assert!(all.len() + Pieces::<()>::BYTES > bytewise.len(), "{} of {}", all.len(), bytewise.len());
    }
}
