//! Web hooks: JSON over HTTP, signed, tried again with growing pauses.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::Message;
use crate::clock;

/// How often a message is tried; pauses of 1, 2, 4, 8 s lie between.
const TRIES_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest text a chat takes.
const TEXT_CHARS_MAX: usize = 1_500;
/// Most of a file of certificates that is read.
const AUTHORITIES_BYTES_MAX: u64 = 1 << 20;
/// Longest secret read.
const SECRET_BYTES_MAX: usize = 4_096;

/// What the other side understands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Template {
    /// The message itself, `floodwall.notification/1`, signed.
    #[default]
    Json,
    /// A topic of ntfy; the secret is its access token.
    Ntfy,
    /// A room's URL of the client-server API: `https://HOST/_matrix/client/v3/rooms/ROOM`; the secret is the access token.
    Matrix,
    /// A Discord web hook.
    Discord,
}

impl Template {
    pub(crate) const ALL: [Self; 4] = [Self::Json, Self::Ntfy, Self::Matrix, Self::Discord];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ntfy => "ntfy",
            Self::Matrix => "matrix",
            Self::Discord => "discord",
        }
    }
}

/// One `[[webhook]]`. The secret is read from its file for each message, and kept nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) template: Template,
    pub(crate) secret_file: Option<PathBuf>,
    /// Whose certificates are believed, instead of those everybody believes.
    pub(crate) ca_file: Option<PathBuf>,
}

/// What is sent.
struct Prepared {
    url: String,
    is_put: bool,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Webhook {
    /// Until it is taken, or refused for good.
    pub(super) fn deliver(&self, message: &Message) -> Result<()> {
        self.deliver_with(message, FIRST_PAUSE)
    }

    fn deliver_with(&self, message: &Message, first_pause: Duration) -> Result<()> {
        let secret = self.read_secret()?;
        let now = Duration::from_nanos(clock::utc_now().as_nanos());
        let prepared = self.prepare(message, secret.as_deref(), now)?;
        let mut config = Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0);
        if let Some(path) = &self.ca_file {
            let roots = RootCerts::from(read_authorities(path)?);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let agent: Agent = config.http_status_as_error(false).build().into();
        let mut pause = first_pause;
        for attempt in 1..=TRIES_MAX {
            let outcome = send(&agent, &prepared);
            let status = match outcome {
                Ok(status) if (200..300).contains(&status) => return Ok(()),
                // What the other side does not want it will not want later.
                Ok(status) if status < 500 && status != 429 && status != 408 => {
                    bail!("the web hook {} answers {status}", self.name)
                }
                Ok(status) => format!("answers {status}"),
                // Without the URL: it may hold a token.
                Err(error) => format!("cannot be reached: {}", kind_of(&error)),
            };
            if attempt == TRIES_MAX {
                bail!("the web hook {} {status}, {TRIES_MAX} times", self.name);
            }
            thread::sleep(pause);
            pause = pause.saturating_mul(2);
        }
        Ok(())
    }

    fn read_secret(&self) -> Result<Option<String>> {
        let Some(path) = &self.secret_file else { return Ok(None) };
        let secret = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let secret = secret.trim();
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            bail!("{} holds no secret: write it there, on one line", path.display());
        }
        Ok(Some(secret.to_owned()))
    }

    fn prepare(&self, message: &Message, secret: Option<&str>, now: Duration) -> Result<Prepared> {
        let mut headers = Vec::new();
        let (mut url, mut is_put) = (self.url.clone(), false);
        let json = "application/json".to_owned();
        let body = match self.template {
            Template::Json => {
                headers.push(("Content-Type", json));
                let body = serde_json::to_string(message)?;
                if let Some(secret) = secret {
                    let timestamp = now.as_secs().to_string();
                    headers.push(("Floodwall-Signature", signature(secret, &timestamp, &body)?));
                    headers.push(("Floodwall-Timestamp", timestamp));
                }
                body
            }
            Template::Ntfy => {
                // Header values are Latin text; what is not is left to the body.
                let title: String = message.title().chars().filter(|c| (' '..='~').contains(c)).collect();
                headers.push(("Title", title));
                headers.push(("Priority", if message.event == "note" { "default" } else { "high" }.into()));
                headers.extend(secret.map(|token| ("Authorization", format!("Bearer {token}"))));
                cut(&message.text())
            }
            Template::Matrix => {
                headers.push(("Content-Type", json));
                headers.extend(secret.map(|token| ("Authorization", format!("Bearer {token}"))));
                url = format!("{url}/send/m.room.message/floodwall-{}", now.as_nanos());
                is_put = true;
                json!({"msgtype": "m.notice", "body": cut(&message.text())}).to_string()
            }
            Template::Discord => {
                headers.push(("Content-Type", json));
                // Nobody is mentioned whatever an attacker calls themselves.
                json!({"content": cut(&message.text()), "allowed_mentions": {"parse": []}}).to_string()
            }
        };
        Ok(Prepared { url, is_put, headers, body })
    }
}

/// Certificates in a PEM file.
fn read_authorities(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let shown = path.display();
    let file = fs::File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let mut pem = Vec::new();
    file.take(AUTHORITIES_BYTES_MAX).read_to_end(&mut pem).with_context(|| format!("cannot read {shown}"))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            Ok(_) | Err(_) => None,
        })
        .collect();
    if certificates.is_empty() {
        bail!("{shown} holds no certificate: write one there, in PEM");
    }
    Ok(certificates)
}

/// `sha256=` and the HMAC-SHA256 of timestamp, dot and body, in hexadecimal.
fn signature(secret: &str, timestamp: &str, body: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).context("a key of this length")?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let hexadecimal: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256={hexadecimal}"))
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn send(agent: &Agent, prepared: &Prepared) -> Result<u16, ureq::Error> {
    let mut request = if prepared.is_put { agent.put(&prepared.url) } else { agent.post(&prepared.url) };
    for (name, value) in &prepared.headers {
        request = request.header(*name, value);
    }
    Ok(request.send(prepared.body.as_str())?.status().as_u16())
}

/// What went wrong, without anything of the address.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list is open")]
fn kind_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::HostNotFound => "there is no such host".into(),
        ureq::Error::Tls(what) => format!("TLS: {what}"),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        _ => "the connection failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::message;
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    /// Answers each request with the next status; what was asked comes back.
    fn server(statuses: &'static [u16]) -> (String, thread::JoinHandle<Vec<(String, String)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let answer = |status: &u16| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    head.push_str(&line);
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let line = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(line.as_bytes()).unwrap();
                (head.to_ascii_lowercase(), String::from_utf8(body).unwrap())
            };
            statuses.iter().map(answer).collect()
        });
        (url, serving)
    }

    fn webhook(url: String, template: Template, secret: Option<&tempfile::NamedTempFile>) -> Webhook {
        let secret_file = secret.map(|file| file.path().to_owned());
        Webhook { name: "ops".into(), url, template, secret_file, ca_file: None }
    }

    fn secret() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"throw-away\n").unwrap();
        file
    }

    /// RFC 4231's second case would sign the bare text; ours signs "timestamp.body", checked with Python's hmac.
    #[test]
    fn the_signature_is_hmac_sha256_of_timestamp_and_body() {
        let signed = signature("throw-away", "1800000000", "{}").unwrap();
        assert_eq!(signed, "sha256=017babc0ed0d054e8c8c38a775eb0f7e63e05db8ea723449a4f40ecfa9a1df41");
    }

    #[test]
    fn a_message_is_signed_and_tried_again_until_it_is_taken() {
        let (url, serving) = server(&[500, 429, 200]);
        let secret = secret();
        let hook = webhook(url, Template::Json, Some(&secret));
        hook.deliver_with(&message(), Duration::from_millis(5)).unwrap();
        let asked = serving.join().unwrap();
        assert_eq!(asked.len(), 3);
        let (head, body) = asked.last().unwrap();
        let value = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        let expected = signature("throw-away", &value("floodwall-timestamp"), body).unwrap();
        assert_eq!(value("floodwall-signature"), expected);
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["schema"], "floodwall.notification/1");
    }

    #[test]
    fn what_is_refused_is_not_sent_again_and_the_url_is_not_told() {
        let (url, serving) = server(&[404]);
        let said = webhook(url, Template::Json, None).deliver(&message()).unwrap_err().to_string();
        assert_eq!((serving.join().unwrap().len(), said.as_str()), (1, "the web hook ops answers 404"));
        let nobody = webhook("http://127.0.0.1:1/token".into(), Template::Json, None);
        let said = nobody.deliver_with(&message(), Duration::from_millis(1)).unwrap_err().to_string();
        assert!(!said.contains("token") && said.ends_with("5 times"), "{said}");
    }

    #[test]
    fn chats_get_text_and_mention_nobody() {
        let secret = secret();
        for (template, expected) in [
            (Template::Ntfy, "title: 203.0.113.7 banned: guessing passwords"),
            (Template::Matrix, "put /hook/send/m.room.message/floodwall-"),
            (Template::Discord, "post /hook"),
        ] {
            let (url, serving) = server(&[200]);
            let hook = webhook(url, template, (template != Template::Discord).then_some(&secret));
            hook.deliver(&message()).unwrap();
            let (head, body) = serving.join().unwrap().pop().unwrap();
            assert!(head.contains(expected), "{head}");
            assert!(body.contains("203.0.113.7 banned: guessing passwords"), "{body}");
            assert_eq!(head.contains("authorization: bearer throw-away"), template != Template::Discord);
            assert_eq!(body.contains(r#""allowed_mentions":{"parse":[]}"#), template == Template::Discord);
        }
    }
}
