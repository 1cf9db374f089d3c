//! The derive macro behind Record.
