//! Buffers and what moves through them: page pools, frames, rings, flow control, connectors.
