//! `cargo xtask ebpf`: builds the kernel object, or checks that the committed one is that of the sources.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    process, root, say,
    sources::{self, LINKER, RUSTC},
};

const LLVM: &str = "/usr/lib/llvm-22/bin";
/// Sections that hold what runs. All else is symbols and debug information.
const SECTIONS: [&str; 7] = [".text", "xdp", "xdp.frags", "classifier", "maps", ".rodata", "license"];

/// Builds the object and records what it was built from.
///
/// # Errors
/// When the toolchain is not the pinned one, or fails.
pub fn build() -> Result<()> {
    let root = root();
    let built = compile(&root)?;
    let object = sources::object(&root);
    fs::create_dir_all(root.join("xdp-prog/prebuilt"))?;
    fs::copy(&built, &object).context("failed to copy the object")?;
    fs::write(sources::recorded(&root), format!("{}\n", sources::digest(&root)?))?;
    say(&format!("Wrote {} ({} bytes)", object.display(), fs::metadata(&object)?.len()));
    Ok(())
}

/// Fails when the committed object is not that of the sources.
///
/// # Errors
/// When the hashes differ or, where the toolchain is there, a fresh build differs in what runs.
pub fn check() -> Result<()> {
    let root = root();
    check_digest(&root)?;
    if let Err(missing) = require_toolchain() {
        say(&format!("SKIPPED comparison with a fresh build: {missing:#}"));
        return Ok(());
    }
    let built = compile(&root)?;
    for section in SECTIONS {
        if dump(&root, &built, section)? != dump(&root, &sources::object(&root), section)? {
            bail!(
                "section {section} of the committed object differs from a fresh build: run `cargo xtask ebpf`"
            );
        }
    }
    say("The committed object equals a fresh build.");
    Ok(())
}

/// Fails when the sources changed and the object did not.
///
/// # Errors
/// When the hash beside the object is not that of the sources.
pub fn check_digest(root: &Path) -> Result<()> {
    let recorded =
        fs::read_to_string(sources::recorded(root)).context("no record of the object's sources")?;
    if recorded.trim() != sources::digest(root)? {
        bail!("the sources of the kernel object changed and the object did not: run `cargo xtask ebpf`");
    }
    Ok(())
}

fn require_toolchain() -> Result<()> {
    let rustc = process::output(clean(&mut Command::new("rustc")).args(["+nightly", "--version"]))?;
    let linker = process::output(Command::new("bpf-linker").arg("--version"))?;
    for (pinned, found) in [(RUSTC, rustc.trim()), (LINKER, linker.trim())] {
        if pinned != found {
            bail!("the object is built with `{pinned}`, here is `{found}`");
        }
    }
    Ok(())
}

/// Compiles and strips; answers where the result stands.
fn compile(root: &Path) -> Result<PathBuf> {
    require_toolchain()?;
    let target = root.join("target/ebpf");
    let path = env::join_paths(
        [PathBuf::from(LLVM)].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    process::run(
        clean(&mut Command::new("cargo"))
            .current_dir(root)
            .args(["+nightly", "build", "--quiet", "--release", "--package", "floodwall-xdp"])
            .args(["-Z", "build-std=core", "--target", "bpfel-unknown-none", "--target-dir"])
            .arg(&target)
            .env("PATH", path)
            // Types of every function: the kernel takes global functions and callbacks only with them.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            // What makes user space fast is not what the verifier was shown.
            .env("CARGO_PROFILE_RELEASE_LTO", "false")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4")
            .env("CARGO_ENCODED_RUSTFLAGS", flags(root)),
    )?;
    let stripped = target.join("floodwall.bpf.o");
    process::run(
        Command::new(format!("{LLVM}/llvm-objcopy"))
            .arg("--strip-debug")
            .arg(target.join("bpfel-unknown-none/release/floodwall-xdp"))
            .arg(&stripped),
    )?;
    Ok(stripped)
}

/// Flags of the compiler; paths of this machine are mapped away so that anybody builds the same bytes.
fn flags(root: &Path) -> String {
    let home =
        env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", env::var("HOME").unwrap_or_default()));
    let rustup = env::var("RUSTUP_HOME")
        .unwrap_or_else(|_| format!("{}/.rustup", env::var("HOME").unwrap_or_default()));
    [
        "-Ctarget-cpu=v3".into(),
        "-Clink-arg=--btf".into(),
        format!("--remap-path-prefix={}=floodwall", root.display()),
        format!("--remap-path-prefix={home}=cargo"),
        format!("--remap-path-prefix={rustup}=rustup"),
    ]
    .join("\u{1f}")
}

/// Contents of one section.
fn dump(root: &Path, object: &Path, section: &str) -> Result<Vec<u8>> {
    let file = root.join("target/ebpf/section");
    process::run(
        Command::new(format!("{LLVM}/llvm-objcopy"))
            .arg(format!("--dump-section={section}={}", file.display()))
            .arg(object)
            .arg("/dev/null"),
    )?;
    fs::read(&file).with_context(|| format!("failed to read section {section}"))
}

/// Without what the cargo that runs this set for its own toolchain.
fn clean(command: &mut Command) -> &mut Command {
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_TARGET_DIR"] {
        command.env_remove(variable);
    }
    command
}
