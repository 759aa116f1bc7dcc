//! What the kernel object is made of, as one hash, so that a change without a rebuild is noticed anywhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Compiler that built the committed object; the date is that of the nightly.
pub const RUSTC: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)";
/// Linker that built the committed object.
pub const LINKER: &str = "bpf-linker 0.13.0";

/// Part of `wire` that no kernel program contains.
const USER_SPACE_ONLY: &str = "wire/src/memory.rs";
/// Folders of which every Rust file counts.
const FOLDERS: [&str; 2] = ["wire/src", "xdp-prog/src"];
/// Single files that count.
const FILES: [&str; 2] = ["wire/Cargo.toml", "xdp-prog/Cargo.toml"];

/// Where the hash stands that the committed object was built from.
pub fn recorded(root: &Path) -> PathBuf {
    root.join("xdp-prog/prebuilt/sources.sha256")
}

/// Where the object stands.
pub fn object(root: &Path) -> PathBuf {
    root.join("xdp-prog/prebuilt/floodwall.bpf.o")
}

/// Hash of everything the object is made of.
///
/// # Errors
/// When a source cannot be read.
pub fn digest(root: &Path) -> Result<String> {
    let mut names: Vec<String> = FILES.map(String::from).to_vec();
    for folder in FOLDERS {
        list(root, folder, &mut names)?;
    }
    names.retain(|name| name != USER_SPACE_ONLY);
    names.sort();
    let mut hash = Sha256::new();
    for pinned in [RUSTC, LINKER] {
        feed(&mut hash, pinned.as_bytes());
    }
    for name in &names {
        feed(&mut hash, name.as_bytes());
        feed(&mut hash, &fs::read(root.join(name)).with_context(|| format!("failed to read {name}"))?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A part with its length in front, so that parts cannot run into each other.
fn feed(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

fn list(root: &Path, folder: &str, names: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(root.join(folder)).with_context(|| format!("failed to list {folder}"))?;
    for entry in entries {
        let entry = entry?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(root, &name, names)?;
        } else if name.ends_with(".rs") {
            names.push(name);
        }
    }
    Ok(())
}
