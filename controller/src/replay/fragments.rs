//! Fragments on their way to the engine: the gate has judged each, the engine sees what they make together.

use floodwall_engine::{Packet, fragment::Outcome};
use floodwall_wire::{
    Class, Judgement, Reason, State, Verdict, frame, tables::Standing, window::SliceWindow,
};

use super::Wall;
use crate::capture::Frame;

impl Wall {
    /// Takes a fragment, or a frame that may be one.
    pub(super) fn handle_fragment(&mut self, frame: &Frame<'_>, verdict: Verdict) {
        let Outcome::Complete(whole) = self.reassembler.handle_frame(frame.bytes, verdict, frame.at) else {
            return;
        };
        let Ok(headers) = frame::walk(&SliceWindow::new(&whole.frame)) else {
            return;
        };
        let service_at = |port| State::port(&self.enforcer.store, 0, headers.transport, port).service();
        let class = Class::Fragment;
        let packet = if let Some(service) = service_at(headers.destination_port) {
            let (reason, standing) = (Reason::Admitted, Standing::Stranger);
            let bytes = u32::try_from(whole.frame.len()).unwrap_or(u32::MAX);
            let judgement = Judgement { reason, service, class, standing, bytes };
            Packet::arriving(frame.at, &whole.frame, &headers, &judgement)
        } else if let Some(service) = service_at(headers.source_port) {
            Packet::departing(frame.at, &whole.frame, &headers, service, class)
        } else {
            return;
        };
        if whole.has_conflict {
            self.engine.handle_fragment_conflict(&packet);
        }
        self.engine.handle_packet(&packet);
    }
}
