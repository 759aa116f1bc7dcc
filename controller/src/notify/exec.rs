//! A program of the operator's: the message as JSON on its standard input, for ten seconds, as a user without rights.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};

use super::Message;
use crate::clock;

/// How long it may run. One runs at a time for each target.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// As whom, unless told otherwise.
const USER: &str = "nobody";

pub(super) fn run(path: &Path, user: Option<&str>, message: &Message) -> Result<()> {
    let shown = path.display();
    if !path.is_absolute() {
        bail!("{shown} is no absolute path: write exec:/usr/local/bin/…");
    }
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // In a group of its own, so that what it starts ends with it.
    command.process_group(0);
    if Uid::effective().is_root() {
        let name = user.unwrap_or(USER);
        let user = User::from_name(name).with_context(|| format!("cannot look up the user {name}"))?;
        let user =
            user.with_context(|| format!("there is no user {name}: set exec-user in the configuration"))?;
        if user.uid.is_root() {
            bail!("programs do not run as root: set exec-user in the configuration to another user");
        }
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let body = serde_json::to_vec(message)?;
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    // A pipe holds more than a message; whoever does not read it loses it and no more.
    if let Some(mut input) = child.stdin.take()
        && let Err(error) = input.write_all(&body)
    {
        tracing::debug!(%error, program = %shown, "It did not read the message");
    }
    let started = clock::instant();
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("lost {shown}"))? {
            return if status.success() { Ok(()) } else { bail!("{shown} ended with {status}") };
        }
        if started.elapsed() >= PATIENCE {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            if let Err(error) = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL) {
                tracing::debug!(%error, program = %shown, "It was gone already");
            }
            child.wait().with_context(|| format!("lost {shown}"))?;
            bail!("{shown} took longer than {} s and was ended", PATIENCE.as_secs());
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::message;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn script(folder: &Path, text: &str) -> std::path::PathBuf {
        let path = folder.join("program");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        path
    }

    #[test]
    fn a_program_gets_json_without_rights_and_without_our_environment() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let text = format!(
            "#!/bin/sh\ncat > {0}\nid -u >> {0}\nenv | grep -c CARGO >> {0}\nexit 0\n",
            out.display()
        );
        run(&script(folder.path(), &text), None, &message()).unwrap();
        let said = fs::read_to_string(out).unwrap();
        let (json, rest) = said.split_at(said.rfind('}').unwrap() + 1);
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((json["event"].as_str(), json["subject"].as_str()), (Some("ban"), Some("203.0.113.7")));
        let mut lines = rest.lines();
        assert_ne!(lines.next(), Some("0"), "it ran as root");
        assert_eq!(lines.next(), Some("0"));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let started = clock::instant();
        let error = run(&script(folder.path(), "#!/bin/sh\nsleep 60\n"), None, &message()).unwrap_err();
        assert!(error.to_string().contains("was ended"), "{error:#}");
        assert!(started.elapsed() < PATIENCE * 2);
    }

    #[test]
    fn programs_by_name_and_as_root_are_refused() {
        assert!(run(Path::new("program"), None, &message()).unwrap_err().to_string().contains("absolute"));
        if Uid::effective().is_root() {
            assert!(
                run(Path::new("/bin/true"), Some("root"), &message())
                    .unwrap_err()
                    .to_string()
                    .contains("root")
            );
        }
    }
}
