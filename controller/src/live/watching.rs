//! What `floodwall watch` shows: decisions, and a sample of what is dropped.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Lines kept for a watcher that is slow; beyond that it is told how many it missed.
const LINES_MAX: usize = 1_024;

/// One line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Watched {
    /// RFC 3339, UTC; empty for what has no instant.
    pub(crate) at: String,
    /// `ban`, `unban`, `limit`, `reset`, `note`, `level`, `drop` or `missed`.
    pub(crate) kind: String,
    pub(crate) text: String,
}

impl Watched {
    pub(crate) fn missed(count: u64) -> Self {
        Self {
            at: String::new(),
            kind: "missed".into(),
            text: format!("{count} lines came too fast to be shown"),
        }
    }
}

/// Everybody who watches.
#[derive(Debug)]
pub(crate) struct Watchers {
    lines: broadcast::Sender<Watched>,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self { lines: broadcast::channel(LINES_MAX).0 }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Watched> {
        self.lines.subscribe()
    }

    /// Whether anybody looks; what nobody sees need not be put into words.
    pub(crate) fn any(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    pub(crate) fn tell(&self, watched: Watched) {
        // An error says that the last watcher has just gone.
        drop(self.lines.send(watched));
    }
}
