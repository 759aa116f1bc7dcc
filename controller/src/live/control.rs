//! The control socket: how operators talk to a running wall.
//!
//! One JSON object per line each way, over a Unix socket. Whoever can open the socket may read; changing and reading
//! who is there takes root. A request is bounded in size and time, connections in number; answering one never delays
//! a packet by more than the answer takes, and no request can make the wall wait.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    ledger::BanRow,
    watching::{Watched, Watchers},
};

/// Version of the conversation; both sides say it.
pub(crate) const VERSION: u32 = 1;
/// Where the socket is unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/floodwall/control.sock";
/// Longest request. An import goes in several.
pub(crate) const REQUEST_BYTES_MAX: u64 = 1 << 20;
const CONNECTIONS_MAX: usize = 64;
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One line to the wall.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    pub(crate) version: u32,
    pub(crate) request: Request,
    /// Address of the terminal the operator sits at, as `SSH_CONNECTION` has it: never banned.
    #[serde(default)]
    pub(crate) from: Option<String>,
}

/// What can be asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Status,
    Bans {
        history: bool,
        limit: usize,
    },
    Ban {
        subject: String,
        seconds: Option<u64>,
        why: Option<String>,
        kick: bool,
        force: bool,
    },
    Unban {
        subject: Option<String>,
    },
    Kick {
        subject: String,
    },
    Allow {
        prefix: Option<String>,
        remove: bool,
        force: bool,
    },
    Explain {
        subject: String,
        /// Whether to say who is there; only root is told.
        #[serde(default)]
        people: bool,
    },
    Who,
    Catalogue,
    /// What other limits would have cost.
    Suggest,
    Person {
        name: String,
    },
    Forget {
        name: String,
    },
    Links {
        /// Servers, users and channels of each link at most.
        rows: usize,
    },
    Watch,
    Reload,
    Confirm,
    Import {
        bans: Vec<BanRow>,
    },
    /// For the metrics page.
    Snapshot,
}

impl Request {
    /// Whether root alone may ask it: it changes something, or tells who is there.
    const fn is_privileged(&self) -> bool {
        !matches!(
            self,
            Self::Status | Self::Bans { .. } | Self::Explain { .. } | Self::Watch | Self::Snapshot
        )
    }
}

/// One line back.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Reply {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// An answer, or why there is none.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Answer(serde_json::Value),
    Refusal(Refusal),
}

/// Why something was not done.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) message: String,
}

/// What a refusal means for the exit code.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RefusalKind {
    Failed,
    BadInput,
    NotPermitted,
}

impl Refusal {
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::BadInput, message: message.into() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Failed, message: message.into() }
    }
}

/// A request on its way to the wall.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) from: Option<String>,
    pub(crate) answer: oneshot::Sender<Result<serde_json::Value, Refusal>>,
}

impl Asked {
    /// Does what was asked and answers. Whoever asked may be gone.
    pub(crate) fn answer(self, work: impl FnOnce(Request) -> Result<serde_json::Value, Refusal>) {
        drop(self.answer.send(work(self.request)));
    }
}

/// Asks the wall and waits for its answer.
pub(crate) async fn ask(
    wall: &mpsc::Sender<Asked>,
    request: Request,
    from: Option<String>,
) -> Result<serde_json::Value, Refusal> {
    let (answer, answered) = oneshot::channel();
    let gone = |_| Refusal::failed("the wall is stopping");
    wall.send(Asked { request, from, answer })
        .await
        .map_err(|_gone| Refusal::failed("the wall is stopping"))?;
    answered.await.map_err(gone)?
}

/// Opens the socket, readable for a group if there is one of that name.
///
/// # Errors
/// When the folder or socket cannot be made, or a running wall listens there.
pub(crate) fn listen(path: &Path, group: &str) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder of {shown}"))?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("another floodwall listens at {shown}; stop it first, or name another --socket");
        }
        std::fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {shown}"))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen at {shown}"))?;
    let group = nix::unistd::Group::from_name(group).ok().flatten();
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    if let Some(group) = group {
        nix::unistd::chown(path, None, Some(group.gid))
            .with_context(|| format!("cannot hand {shown} to a group"))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Answers whoever connects, until the wall is gone.
pub(crate) async fn serve(listener: UnixListener, wall: mpsc::Sender<Asked>, watchers: Arc<Watchers>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "A connection to the control socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (wall, watchers) = (wall.clone(), Arc::clone(&watchers));
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &wall, &watchers).await {
                tracing::debug!(
                    error = format!("{error:#}"),
                    "A conversation on the control socket ended early"
                );
            }
            drop(place);
        });
    }
}

async fn converse(stream: UnixStream, wall: &mpsc::Sender<Asked>, watchers: &Watchers) -> Result<()> {
    let is_root = stream.peer_cred()?.uid() == 0;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(REQUEST_BYTES_MAX);
        let read =
            timeout(READ_TIMEOUT, bounded.read_until(b'\n', &mut line)).await.context("too slow")??;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && read as u64 == REQUEST_BYTES_MAX {
            let refusal = Refusal::bad_input(format!("longer than {REQUEST_BYTES_MAX} bytes"));
            return send(&mut writer, &Reply { version: VERSION, outcome: Outcome::Refusal(refusal) }).await;
        }
        let outcome = match understand(&line, is_root) {
            Ok(Envelope { request: Request::Watch, .. }) => return watch(&mut writer, watchers).await,
            Ok(Envelope { request, from, .. }) => ask(wall, request, from.filter(|_| is_root)).await,
            Err(refusal) => Err(refusal),
        };
        let outcome = match outcome {
            Ok(answer) => Outcome::Answer(answer),
            Err(refusal) => Outcome::Refusal(refusal),
        };
        send(&mut writer, &Reply { version: VERSION, outcome }).await?;
    }
}

fn understand(line: &[u8], is_root: bool) -> Result<Envelope, Refusal> {
    let mut envelope: Envelope = serde_json::from_slice(line)
        .map_err(|error| Refusal::bad_input(format!("not understood: {error}")))?;
    if envelope.version != VERSION {
        let message = format!("this wall speaks version {VERSION}, not {}", envelope.version);
        return Err(Refusal::bad_input(message));
    }
    if envelope.request.is_privileged() && !is_root {
        let message = "this takes root: run it with sudo".to_owned();
        return Err(Refusal { kind: RefusalKind::NotPermitted, message });
    }
    if let Request::Explain { people, .. } = &mut envelope.request {
        *people = is_root;
    }
    Ok(envelope)
}

async fn watch(writer: &mut (impl AsyncWriteExt + Unpin), watchers: &Watchers) -> Result<()> {
    let mut watching = watchers.subscribe();
    loop {
        let watched = match watching.recv().await {
            Ok(watched) => watched,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => Watched::missed(missed),
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(()),
        };
        let outcome = Outcome::Answer(serde_json::to_value(&watched)?);
        send(writer, &Reply { version: VERSION, outcome }).await?;
    }
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    timeout(WRITE_TIMEOUT, writer.write_all(&line)).await.context("the other side does not read")??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked_before_they_reach_the_wall() {
        let line = |text: &str| understand(text.as_bytes(), false).unwrap_err();
        assert_eq!(line("garbage").kind, RefusalKind::BadInput);
        assert!(line(r#"{"version":2,"request":"status"}"#).message.contains("speaks version 1"));
        assert!(line(r#"{"version":1,"request":"stauts"}"#).message.contains("stauts"));
        assert_eq!(line(r#"{"version":1,"request":"reload"}"#).kind, RefusalKind::NotPermitted);
        assert_eq!(line(r#"{"version":1,"request":"who"}"#).kind, RefusalKind::NotPermitted);
        assert!(understand(br#"{"version":1,"request":"status"}"#, false).is_ok());
        assert!(understand(br#"{"version":1,"request":"reload"}"#, true).is_ok());
    }
}
