//! What lists say, in place of what they said before, while packets are judged by it.
//!
//! `floodwall_wire::lists` says how it is searched. The array holds two images and, in front of them, the number of the
//! head of the one in force. The other is written and then put into force by one word:
//!
//! - Before an image is written over, every program that may still be searching it has ended, which the kernel tells by
//!   `membarrier(2)`.
//! - An image is whole before the word is published: that is a release. A program reads the word once, and where it reads
//!   nodes is reckoned from it; no processor that Linux runs BPF on reads what an address leads to before the address.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use floodwall_wire::{
    lists::{FRONT, Node, head, image::Image},
    tables::LIST_NODES_MIN,
};

use crate::shared::{Mapped, wait_for_programs};

/// Nodes of an array with room for two images of so many.
pub(crate) const fn nodes_for(image: u32) -> u32 {
    let room = if image < LIST_NODES_MIN { LIST_NODES_MIN } else { image };
    1 + 2 * room
}

/// Nodes of one image in an array of so many.
pub(crate) const fn room_in(nodes: u32) -> u32 {
    nodes.saturating_sub(1) / 2
}

/// The array, for its one writer.
#[derive(Debug)]
pub(crate) struct Lists {
    nodes: Mapped<Node>,
    refused: AtomicU64,
    writing: Mutex<()>,
}

impl Lists {
    /// Maps the array.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub(crate) fn map(map: BorrowedFd<'_>, nodes: u32) -> io::Result<Self> {
        let nodes = Mapped::new(map, nodes as usize)?;
        Ok(Self { nodes, refused: AtomicU64::new(0), writing: Mutex::new(()) })
    }

    /// Nodes there may be in an image.
    pub(crate) fn capacity(&self) -> u32 {
        room_in(u32::try_from(self.nodes.all().len()).unwrap_or(u32::MAX))
    }

    /// Puts an image in the place of the one before.
    ///
    /// # Errors
    /// `E2BIG` when it has more nodes than there is room for.
    pub(crate) fn set(&self, image: &Image) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.capacity() as usize;
        if image.nodes().len() > room {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let [front, ..] = &self.nodes.all()[FRONT as usize].0;
        let first = FRONT as usize + 1;
        let start = if front.load() as usize == first { first + room } else { first };
        wait_for_programs()?;
        for (Node(place), Node(words)) in self.nodes.all()[start..start + room].iter().zip(image.nodes()) {
            for (word, value) in place.iter().zip(words) {
                word.store(value.load());
            }
        }
        fence(Ordering::Release);
        front.store(start as u64);
        Ok(())
    }

    /// Nodes of the image in force, and how often another was refused.
    pub(crate) fn held_and_refused(&self) -> (u64, u64) {
        let nodes = self.nodes.all();
        let [front, ..] = &nodes[FRONT as usize].0;
        let held = match front.load() as usize {
            0 => 0,
            start => nodes.get(start).map_or(0, |Node(words)| words[head::NODES].load()),
        };
        (held, self.refused.load(Ordering::Relaxed))
    }
}
