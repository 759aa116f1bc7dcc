//! The gate's kernel home as user space sees it. What a packet meets there is `xdp-prog`; here it is put in place and
//! talked to:
//!
//! - [`object`] loads the prebuilt object over new maps or over those an earlier controller left pinned;
//! - [`gate`] attaches it to interfaces, pins it, adopts it, takes it away;
//! - [`tables`] writes and reads the maps, `sources` and `lists` those that the program searches
//!   itself, in memory `shared` with it; [`ring`] reads the mirror; [`clock`] tells the gate's time;
//! - [`priority`] gives the one who decides a turn while an attack keeps the processors busy;
//! - [`mod@bpf`] holds the few `bpf(2)` commands behind all that, and with [`ring`], [`priority`] and `shared` all unsafe code.

pub mod bpf;
pub mod clock;
pub mod gate;
mod lists;
pub mod object;
pub mod priority;
pub mod ring;
mod shared;
mod sources;
pub mod tables;

pub use clock::Clock;
pub use gate::{Gate, Mode};
pub use object::{Object, Sizes};
pub use ring::Ring;
pub use tables::KernelTables;
