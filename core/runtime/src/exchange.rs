//! What the runtime uses of the exchange, named in one place.

pub(crate) use thalweg_io::{
    ChannelConfig, ChannelReceiver, ChannelSender, Control, EdgeConfig, EdgeWriter, Gate, GateConfig, PagePool,
    PoolConfig, channel,
};
pub use thalweg_io::{Frame, FrameCursor, FrameLayout};
