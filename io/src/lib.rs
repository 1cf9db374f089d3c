//! Buffers and what moves through them: page pools, frames, rings, flow control, connectors.
#![deny(missing_docs)]

pub mod channel;
pub mod checkpoint;
pub mod connect;
pub mod control;
pub mod cursor;
pub mod edge;
pub mod edge_config;
pub mod frame;
pub mod frame_buffer;
pub mod gate;
pub mod in_flight;
mod open_page;
pub mod pool;
pub mod ring;
pub mod spare_cores;
mod sync;
pub mod typed_cursor;

pub use channel::{ChannelConfig, ChannelReceiver, ChannelSender, Overtaking, channel};
pub use control::Control;
pub use cursor::{Frame, FrameCursor};
pub use edge::EdgeWriter;
pub use edge_config::{EdgeConfig, EdgeCounters, EdgeError};
pub use frame::FrameLayout;
pub use frame_buffer::FrameBuffer;
pub use gate::{Gate, GateConfig};
pub use in_flight::{BadInFlight, InFlight, InFlightRecord};
pub use pool::{Page, PagePool, PoolConfig, PoolError};
pub use typed_cursor::TypedCursor;
