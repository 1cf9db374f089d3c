//! Keyed state: heap tables, slabs, timers.
