//! Fragments on their way to the engine: the gate has judged each, the engine sees what they make together.

use floodwall_engine::{
    Packet,
    fragment::{Outcome, Passage},
};
use floodwall_wire::{frame, window::SliceWindow};

use super::Wall;
use crate::capture::Frame;

impl Wall {
    /// Takes a fragment, or a frame that may be one, with what the gate made of it.
    pub(super) fn handle_fragment(&mut self, frame: &Frame<'_>, passage: Option<Passage>) {
        let Outcome::Complete(whole) = self.reassembler.handle_frame(frame.bytes, passage, frame.at) else {
            return;
        };
        let (Some(passage), Ok(headers)) = (whole.passage, frame::walk(&SliceWindow::new(&whole.frame)))
        else {
            return;
        };
        let packet = match passage {
            Passage::Arriving(judgement) => Packet::arriving(frame.at, &whole.frame, &headers, &judgement),
            Passage::Departing(seen) => {
                Packet::departing(frame.at, &whole.frame, &headers, seen.service, seen.class)
            }
        };
        if whole.has_conflict {
            self.engine.handle_fragment_conflict(&packet);
        }
        self.engine.handle_packet(&packet);
    }
}
