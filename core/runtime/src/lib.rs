//! One slot: the reactor on its core, tasks as step machines, gates, outputs, watermarks, timers.
