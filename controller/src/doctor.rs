//! `floodwall doctor`
use crate::{cli::DoctorArguments, output::Exit};
pub(crate) fn run(_arguments: &DoctorArguments) -> Exit {
    Exit::Failed
}
