//! What the demo found out: sentences first, then tables, or JSON (`floodwall.demo/1`).

use std::fmt::{self, Write};

use serde::Serialize;

use crate::live::answers::Ban;

/// Everything the demo says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    /// What the regulars were connected to.
    pub(super) server: &'static str,
    /// What others chatted on meanwhile; absent where it is not installed.
    pub(super) irc_server: Option<&'static str>,
    /// How the gate was attached.
    pub(super) mode: String,
    pub(super) regulars: usize,
    /// Nobody attacks; the wall is in force.
    pub(super) quiet: Phase,
    /// Attacked while the wall only observes.
    pub(super) observing: Attacked,
    /// Attacked while the wall is in force.
    pub(super) enforcing: Attacked,
}

/// What regulars and server went through in one part.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Phase {
    pub(super) seconds: f64,
    pub(super) voice_sent: u64,
    /// Passed on by the server to regulars.
    pub(super) voice_relayed: u64,
    /// Of both.
    pub(super) voice_lost: u64,
    pub(super) logins: Logins,
    /// Lines that regulars wrote on IRC, and how often one did not reach another regular.
    pub(super) chat_sent: u64,
    pub(super) chat_lost: u64,
    /// Sessions that ended although nobody wanted to leave.
    pub(super) sessions_cut: u64,
    pub(super) server_cpu_percent: f64,
    /// Lines a real server would have written into its log.
    pub(super) server_log_lines: u64,
}

/// How long regulars stood at the door, from the first SYN to sitting in the channel.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Logins {
    pub(super) tried: usize,
    /// Given up after five seconds.
    pub(super) failed: usize,
    /// Of all tries; absent where so many failed that it is one of those.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

/// A part with attackers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Attacked {
    #[serde(flatten)]
    pub(super) phase: Phase,
    /// Regulars' voice that the server sent to attackers.
    pub(super) voice_overheard: u64,
    pub(super) attackers: Vec<Outcome>,
    pub(super) drops: Vec<Drops>,
    pub(super) bans: Vec<Ban>,
}

/// What became of one attacker: connections, lines and datagrams.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) addresses: usize,
    pub(super) tried: u64,
    pub(super) reached: u64,
    /// In the last five seconds: what was still getting through.
    pub(super) reached_last: u64,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Drops {
    pub(super) service: String,
    pub(super) reason: String,
    pub(super) packets: u64,
}

impl Logins {
    pub(super) fn of(times: &[Option<std::time::Duration>]) -> Self {
        let mut sorted: Vec<f64> =
            times.iter().map(|time| time.map_or(f64::INFINITY, |time| time.as_secs_f64() * 1e3)).collect();
        sorted.sort_by(f64::total_cmp);
        // The smallest value that so many of a hundred do not exceed.
        let percentile = |of_hundred: usize| {
            let rank = (sorted.len() * of_hundred).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().filter(|time| time.is_finite())
        };
        Self {
            tried: times.len(),
            failed: times.iter().filter(|time| time.is_none()).count(),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
        }
    }
}

/// An attacker of whom less than this part still gets through, compared with the wall observing, is stopped.
const STOPPED: f64 = 0.05;

impl Report {
    /// Names of those who still got through at the end.
    fn unstopped(&self) -> Vec<&'static str> {
        let pairs = self.observing.attackers.iter().zip(&self.enforcing.attackers);
        let through = pairs.filter(|(before, now)| {
            now.reached_last as f64 > (before.reached_last as f64 * STOPPED).max(1.0)
        });
        through.map(|(_, now)| now.name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (watched, held) = (&self.observing, &self.enforcing);
        writeln!(
            f,
            "{} regulars talked and chatted on {} while {} attackers attacked it: {:.0} seconds with the wall only \
             observing, {:.0} seconds with the wall in force (XDP {}).",
            self.regulars,
            self.server,
            held.attackers.len(),
            watched.phase.seconds,
            held.phase.seconds,
            self.mode
        )?;
        if self.irc_server.is_none() {
            writeln!(f, "Nobody chatted on IRC: Debian's ngircd is not installed.")?;
        }
        writeln!(f, "With the wall only observing, {}.", suffered(&watched.phase))?;
        writeln!(f, "With the wall in force, {}.", suffered(&held.phase))?;
        match (held.phase.logins.p99_ms, self.quiet.logins.p99_ms) {
            (Some(attacked), Some(quiet)) => writeln!(
                f,
                "Under attack 99 of 100 logins took at most {attacked:.1} ms, {:.1} times as long as when nobody \
                 attacks ({quiet:.1} ms).",
                attacked / quiet
            )?,
            (None, _) => writeln!(f, "Under attack more than one login in a hundred failed.")?,
            (Some(_), None) => writeln!(f, "Nobody logged in while nobody attacked.")?,
        }
        let unstopped = self.unstopped();
        if unstopped.is_empty() {
            writeln!(f, "All {} attackers were stopped.", held.attackers.len())?;
        } else {
            writeln!(f, "Not stopped: {}.", unstopped.join(", "))?;
        }
        writeln!(f, "\n{:<34}{:>14}{:>14}{:>14}", "", "quiet", "observing", "in force")?;
        let phases = [&self.quiet, &watched.phase, &held.phase];
        for (name, cell) in ROWS {
            row(f, name, phases.map(cell))?;
        }
        row(
            f,
            "Voice the attackers overheard",
            [String::new(), watched.voice_overheard.to_string(), held.voice_overheard.to_string()],
        )?;
        writeln!(f, "\nWhat of each attacker reached the server in the last 5 seconds:")?;
        for (before, now) in watched.attackers.iter().zip(&held.attackers) {
            row(
                f,
                before.name,
                [String::new(), before.reached_last.to_string(), now.reached_last.to_string()],
            )?;
            writeln!(f, "    {}", before.does)?;
        }
        writeln!(f, "\nDropped with the wall in force, by reason:")?;
        for drops in &held.drops {
            writeln!(f, "{:>10} packets: {} {}", drops.packets, drops.service, drops.reason)?;
        }
        writeln!(f, "\nBanned with the wall in force:")?;
        for ban in &held.bans {
            writeln!(
                f,
                "{}: {} ({}; {} within {}, {} are too many), until {}",
                ban.subject, ban.why, ban.rule, ban.count, ban.within, ban.limit, ban.until
            )?;
        }
        if held.bans.is_empty() {
            writeln!(f, "nobody")?;
        }
        Ok(())
    }
}

type Row = (&'static str, fn(&Phase) -> String);

/// Rows of the table, and what stands in them.
const ROWS: [Row; 12] = [
    ("Voice packets sent by regulars", |phase| phase.voice_sent.to_string()),
    ("Voice packets passed on to them", |phase| phase.voice_relayed.to_string()),
    ("Voice packets lost", |phase| phase.voice_lost.to_string()),
    ("Logins tried", |phase| phase.logins.tried.to_string()),
    ("Logins given up after 5 s", |phase| phase.logins.failed.to_string()),
    ("Login time p50, ms", |phase| milliseconds(phase.logins.p50_ms)),
    ("Login time p99, ms", |phase| milliseconds(phase.logins.p99_ms)),
    ("Lines written on IRC", |phase| phase.chat_sent.to_string()),
    ("Lines on IRC that were not heard", |phase| phase.chat_lost.to_string()),
    ("Sessions cut", |phase| phase.sessions_cut.to_string()),
    ("Server CPU, percent of one core", |phase| format!("{:.0}", phase.server_cpu_percent)),
    ("Log lines of a real server", |phase| phase.server_log_lines.to_string()),
];

fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(|| "over 5000".to_owned(), |time| format!("{time:.1}"))
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, cells: [String; 3]) -> fmt::Result {
    write!(f, "{name:<34}")?;
    for cell in cells {
        write!(f, "{cell:>14}")?;
    }
    f.write_char('\n')
}

fn suffered(phase: &Phase) -> String {
    let mut text = format!(
        "{} of {} voice packets between regulars and server were lost, and {} of {} logins were given up",
        phase.voice_lost,
        phase.voice_sent + phase.voice_relayed,
        phase.logins.failed,
        phase.logins.tried
    );
    if phase.sessions_cut > 0 {
        // Writing to a string does not fail.
        write!(text, "; {} sessions were cut", phase.sessions_cut).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_login_that_was_given_up_is_the_slowest_of_all() {
        let quick = Some(Duration::from_millis(2));
        let logins = Logins::of(&[quick, None, quick, quick]);
        assert_eq!((logins.tried, logins.failed), (4, 1));
        assert_eq!((logins.p50_ms, logins.p99_ms), (Some(2.0), None));
        assert_eq!(Logins::of(&[]).p50_ms, None);
    }
}
