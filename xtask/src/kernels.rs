//! `cargo xtask kernels`: loads and runs the kernel object on other kernels, in virtual machines.
//!
//! A Debian kernel is downloaded and unpacked, not installed. It boots with an initial file system of busybox, the kernel
//! object, the prober linked statically, and the tests of promise 1 with the libraries and captures they need.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, root, say, sources};

/// Debian's packages that depend on the newest image of their series: 6.1, and 6.12 as Debian 12 has it since it is
/// maintained for both.
const PACKAGES: [&str; 4] = [
    "linux-image-cloud-amd64",
    "linux-image-amd64",
    "linux-image-6.12-cloud-amd64",
    "linux-image-6.12-amd64",
];
/// What the machine prints when the prober ended well.
const SUCCESS: &str = "floodwall-probe: ok";
/// The tests that run there: one row per thing the gate tells apart, and every packet of every committed capture, in both homes.
const TESTS: [&str; 2] = ["packet_table", "parity"];
const BUSYBOX: &str = "/usr/bin/busybox";
const QEMU: &str = "qemu-system-x86_64";

/// Boots every kernel that can be had.
///
/// # Errors
/// When the object fails on one of them; with `require` also when one cannot be had.
pub fn run(images: &[PathBuf], require: bool) -> Result<()> {
    let folder = root().join("target/kernels");
    fs::create_dir_all(&folder)?;
    let mut images = images.to_vec();
    for package in PACKAGES {
        match fetch(&folder, package) {
            Ok(image) => images.push(image),
            Err(error) if require => return Err(error.context(format!("package {package}"))),
            Err(error) => say(&format!("SKIPPED {package}: {error:#}")),
        }
    }
    if !process::is_there(QEMU, "--version") {
        if require {
            bail!("{QEMU} is not installed");
        }
        say(&format!("SKIPPED every kernel: {QEMU} is not installed"));
        return Ok(());
    }
    images.sort();
    images.dedup();
    let initrd = pack(&folder, &images)?;
    let failed = images.iter().filter(|image| !boots(image, &initrd, has_sibling(image, &images))).count();
    if failed != 0 {
        bail!("the object failed on {failed} of {} kernels", images.len());
    }
    say(&format!("The object loads and runs on {} other kernels.", images.len()));
    Ok(())
}

/// Whether a cloud image is of the same source as another one here, which the tests have run on: then the prober is enough.
fn has_sibling(image: &Path, images: &[PathBuf]) -> bool {
    let release = |image: &Path| image.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(own) = release(image).filter(|own| own.contains("-cloud-")) else { return false };
    let sibling = own.replace("-cloud-", "-");
    images.iter().any(|other| release(other).as_ref() == Some(&sibling))
}

/// Downloads the kernel that a package depends on; answers its image.
fn fetch(folder: &Path, package: &str) -> Result<PathBuf> {
    let depends = process::output(Command::new("apt-cache").args(["depends", "--important", package]))?;
    let name = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .context("no kernel of this name in the package lists")?
        .to_owned();
    let unpacked = folder.join(&name);
    if let Ok(image) = find_image(&unpacked) {
        return Ok(image);
    }
    process::run(
        Command::new("apt-get").current_dir(folder).args(["--quiet", "--quiet", "download", &name]),
    )?;
    let archive = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.to_string_lossy().contains(&format!("/{name}_")))
        .context("apt-get left no package")?;
    process::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    fs::remove_file(&archive)?;
    find_image(&unpacked)
}

fn find_image(unpacked: &Path) -> Result<PathBuf> {
    fs::read_dir(unpacked.join("boot"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .context("the package has no kernel image")
}

/// Builds the prober and packs it with what it needs.
fn pack(folder: &Path, images: &[PathBuf]) -> Result<PathBuf> {
    const INIT: &str = "#!/bin/busybox sh\n\
        /bin/busybox mkdir -p /proc /sys /dev\n\
        /bin/busybox mount -t proc proc /proc\n\
        /bin/busybox mount -t sysfs sys /sys\n\
        /bin/busybox mount -t bpf bpf /sys/fs/bpf\n\
        for module in /modules/$(/bin/busybox uname -r)/*.ko; do /bin/busybox insmod $module; done\n\
        /bin/kernel-probe /floodwall.bpf.o || exec /bin/busybox poweroff -f\n\
        /bin/busybox grep -q probe-alone /proc/cmdline && /bin/busybox rm -rf /tests/*\n\
        for test in $(/bin/busybox ls /tests); do\n\
            if /tests/$test --nocapture >/log 2>&1; then show='test result|compared'; else show=.; failed=1; fi\n\
            /bin/busybox grep -E \"$show\" /log | /bin/busybox sed \"s/^ */floodwall $test: /\"\n\
        done\n\
        [ -z \"$failed\" ] && echo 'floodwall-probe: ok'\n\
        /bin/busybox poweroff -f\n";
    let tree = folder.join("initrd");
    // What an earlier run left may be another state's.
    drop(fs::remove_dir_all(&tree));
    fs::create_dir_all(tree.join("bin"))?;
    fs::copy(BUSYBOX, tree.join("bin/busybox")).context("busybox-static is not installed")?;
    fs::copy(build_prober()?, tree.join("bin/kernel-probe"))?;
    fs::copy(sources::object(&root()), tree.join("floodwall.bpf.o"))?;
    for image in images {
        copy_modules(image, &tree)?;
    }
    copy_tests(&tree)?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    let initrd = folder.join("initrd.cpio");
    let script = format!("find . | cpio --quiet -o -H newc > {}", initrd.display());
    process::run(Command::new("sh").current_dir(&tree).args(["-c", &script]))?;
    Ok(initrd)
}

/// What a distribution's kernel has as modules and the egress program needs before kernel 6.6: the clsact qdisc and its
/// filter. A kernel that was not unpacked from a package has to have them built in.
fn copy_modules(image: &Path, tree: &Path) -> Result<()> {
    const MODULES: [&str; 2] = ["sch_ingress.ko", "cls_bpf.ko"];
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let release = name.trim_start_matches("vmlinuz-");
    let Some(unpacked) = image.ancestors().nth(2) else { return Ok(()) };
    let from = unpacked.join("lib/modules").join(release).join("kernel/net/sched");
    let into = tree.join("modules").join(release);
    for module in MODULES {
        if from.join(module).exists() {
            fs::create_dir_all(&into)?;
            fs::copy(from.join(module), into.join(module))?;
        }
    }
    Ok(())
}

/// Puts the tests where they look for what they need: under the same paths as here.
fn copy_tests(tree: &Path) -> Result<()> {
    let place = |path: &Path| -> Result<PathBuf> {
        let inside = tree.join(path.strip_prefix("/")?);
        fs::create_dir_all(inside.parent().context("a file in a folder")?)?;
        Ok(inside)
    };
    fs::create_dir_all(tree.join("tests"))?;
    let mut build = Command::new("cargo");
    build.current_dir(root()).args(["test", "--quiet", "--no-run", "--message-format", "json"]);
    build.args(["--package", "floodwall-tests"]).args(TESTS.iter().flat_map(|test| ["--test", test]));
    for message in process::output(&mut build)?.lines() {
        let message: serde_json::Value = serde_json::from_str(message)?;
        let (Some(program), Some(name)) =
            (message["executable"].as_str(), message["target"]["name"].as_str())
        else {
            continue;
        };
        if !TESTS.contains(&name) {
            continue;
        }
        fs::copy(program, tree.join("tests").join(name))?;
        // A line each: name, arrow, path, address; the loader and what the kernel brings have no arrow.
        for line in process::output(Command::new("ldd").arg(program))?.lines() {
            let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else { continue };
            fs::copy(library, place(Path::new(library))?)?;
        }
    }
    let packed = TESTS.iter().filter(|test| tree.join("tests").join(test).exists()).count();
    ensure!(packed == TESTS.len(), "cargo has built {packed} of {} tests", TESTS.len());
    let object = sources::object(&root());
    fs::copy(&object, place(&object)?)?;
    for folder in ["teamtalk", "irc"] {
        for entry in fs::read_dir(root().join("tests/corpus").join(folder))? {
            let capture = entry?.path();
            if capture.extension().is_some_and(|extension| extension == "pcap") {
                fs::copy(&capture, place(&capture)?)?;
            }
        }
    }
    Ok(())
}

fn build_prober() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    process::run(
        Command::new("cargo")
            .current_dir(root())
            .args(["build", "--quiet", "--release", "--package", "floodwall-tests", "--bin", "kernel-probe"])
            // With a target named, the flag does not reach build scripts and macros, which cannot be static.
            .args(["--target", TARGET, "--target-dir", "target/static"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )?;
    Ok(root().join("target/static").join(TARGET).join("release/kernel-probe"))
}

/// Boots one kernel and reports what the prober said.
fn boots(image: &Path, initrd: &Path, probe_alone: bool) -> bool {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_start_matches("vmlinuz-");
    let console = match boot(image, initrd, if probe_alone { " probe-alone" } else { "" }) {
        Ok(console) => console,
        Err(error) => {
            say(&format!("FAILED {name}: {error:#}"));
            return false;
        }
    };
    let succeeded = console.contains(SUCCESS);
    say(&format!("{} {name}", if succeeded { "PASSED" } else { "FAILED" }));
    let lines: Vec<&str> = console.lines().collect();
    let shown = if succeeded { lines.as_slice() } else { &lines[lines.len().saturating_sub(40)..] };
    for line in shown {
        // The firmware leaves the first line unfinished.
        let line = line.find("floodwall").and_then(|from| line.get(from..)).unwrap_or(line);
        if !succeeded || line.starts_with("floodwall") {
            say(&format!("    {line}"));
        }
    }
    succeeded
}

fn boot(image: &Path, initrd: &Path, parameter: &str) -> Result<String> {
    let output = Command::new("timeout")
        .args([
            "600",
            QEMU,
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "1024",
            "-smp",
            "2",
            "-nographic",
            "-no-reboot",
        ])
        .args(["-append", &format!("console=ttyS0 quiet panic=-1 mitigations=off{parameter}")])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .output()
        .context("failed to start the emulator")?;
    Ok(String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}
