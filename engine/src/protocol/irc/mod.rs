//! Stub until the branch is merged.
use super::{Context, Dissector, Progress, Side};
#[derive(Debug, Default)]
pub struct Server;
#[derive(Debug, Default)]
pub struct Session;
impl Dissector for Session {
    type Server = Server;
    fn on_bytes(&mut self, _: Side, _: &[u8], _: &mut Server, _: &mut Context<'_>) -> Progress {
        Progress::Following
    }
    fn on_gap(&mut self, _: Side, _: u64, _: &mut Server, _: &mut Context<'_>) {}
    fn on_close(&mut self, _: &mut Server, _: &mut Context<'_>) {}
    fn is_logged_in(&self) -> bool {
        false
    }
    fn held_bytes(&self) -> usize {
        0
    }
}
