//! IRC as clients speak it.
