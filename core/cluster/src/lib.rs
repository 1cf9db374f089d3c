//! Coordination as pure code: slot allocation and placement.
