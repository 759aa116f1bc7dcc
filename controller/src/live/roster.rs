//! Who is there: learnt from signals, kept while their connections last.
//!
//! Bound: [`PRESENT_MAX`] connections; beyond that newcomers are not listed, which is counted.

use std::collections::HashMap;

use floodwall_engine::{
    Timestamp,
    signal::{FlowId, Signal, SignalKind},
    text::Text,
};
use floodwall_wire::Address;

const PRESENT_MAX: usize = 16_384;

/// Somebody logged in on one connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Present {
    pub(crate) service: u8,
    pub(crate) address: Address,
    pub(crate) since: Timestamp,
    pub(crate) account: Option<Text>,
    pub(crate) nickname: Option<Text>,
    pub(crate) channel: Option<Text>,
}

/// Everybody who is there.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    present: HashMap<FlowId, Present>,
    unlisted: u64,
}

impl Roster {
    /// Learns from a signal.
    pub(crate) fn handle_signal(&mut self, signal: &Signal) {
        let Some(flow) = signal.flow else { return };
        if matches!(signal.kind, SignalKind::ConnectionClosed | SignalKind::LoginEnded) {
            self.present.remove(&flow);
            return;
        }
        if signal.kind == SignalKind::LoginSucceeded && !self.present.contains_key(&flow) {
            if self.present.len() >= PRESENT_MAX {
                self.unlisted += 1;
                return;
            }
            self.present.insert(
                flow,
                Present {
                    service: signal.service,
                    address: signal.address,
                    since: signal.at,
                    account: None,
                    nickname: None,
                    channel: None,
                },
            );
        }
        let Some(present) = self.present.get_mut(&flow) else { return };
        let detail = &signal.detail;
        if let Some(account) = &detail.account
            && signal.kind == SignalKind::LoginSucceeded
        {
            present.account = Some(account.clone());
        }
        if let Some(nickname) = &detail.nickname {
            present.nickname = Some(nickname.clone());
        }
        if signal.kind == SignalKind::ChannelJoined {
            present.channel.clone_from(&detail.channel);
        } else if signal.kind == SignalKind::ChannelLeft {
            present.channel = None;
        }
    }

    /// Who is logged in on a connection.
    pub(crate) fn present(&self, flow: FlowId) -> Option<&Present> {
        self.present.get(&flow)
    }

    /// Everybody, by service, then nickname, then address.
    pub(crate) fn everybody(&self) -> Vec<(FlowId, &Present)> {
        let mut everybody: Vec<_> = self.present.iter().map(|(flow, present)| (*flow, present)).collect();
        everybody.sort_by(|(_, one), (_, other)| {
            (one.service, &one.nickname, one.address).cmp(&(other.service, &other.nickname, other.address))
        });
        everybody
    }

    /// Those with a nickname or account, letter case aside.
    pub(crate) fn named(&self, name: &str) -> Vec<(FlowId, &Present)> {
        let name = name.to_lowercase();
        let is = |text: &Option<Text>| text.as_ref().is_some_and(|text| text.as_str().to_lowercase() == name);
        self.everybody()
            .into_iter()
            .filter(|(_, present)| is(&present.nickname) || is(&present.account))
            .collect()
    }

    /// Those at an address.
    pub(crate) fn at(&self, address: Address) -> Vec<&Present> {
        self.present.values().filter(|present| present.address == address).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.present.len()
    }

    /// How many were not listed for lack of room.
    pub(crate) const fn unlisted(&self) -> u64 {
        self.unlisted
    }
}
