//! TeamSpeak 3.
