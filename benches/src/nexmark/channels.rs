//! The channels that bids come from, and the address that belongs to each.

use std::fmt::Write;

use super::{
    rng::{Rng, Streams},
    scratch::{EventScratch, Separator},
};

/// Channels that nobody knows: `channel-0` to `channel-9999`.
pub const COLD_CHANNELS: u32 = 10_000;
/// The channels that half of the bids come from.
pub const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// The random numbers of addresses.
const PURPOSE: u64 = 1;

/// Names and addresses of all channels, a function of the seed. About 900 KB: share it between generators.
#[derive(Debug)]
pub struct Channels {
    text: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    name_end: u32,
    end: u32,
}

impl Channels {
    /// The channels of a seed.
    pub fn new(seed: u64) -> Self {
        let streams = Streams::new(seed, PURPOSE);
        let mut channels = Self { text: String::with_capacity(1 << 20), entries: Vec::new() };
        let mut scratch = EventScratch::new();
        for number in 0..COLD_CHANNELS {
            let mut rng = streams.stream(number.into());
            channels.push(format_args!("channel-{number}"), &mut rng, &mut scratch);
            if rng.below(10) > 0 {
                channels.extend_url(format_args!("&channel_id={}", channel_id(number)));
            }
        }
        for (number, name) in (COLD_CHANNELS..).zip(HOT_CHANNELS) {
            channels.push(format_args!("{name}"), &mut streams.stream(number.into()), &mut scratch);
        }
        channels
    }

    /// Name and address of a cold channel.
    #[inline]
    pub fn cold(&self, number: u32) -> (&str, &str) {
        let entry = self.entries[number as usize];
        (
            &self.text[entry.start as usize..entry.name_end as usize],
            &self.text[entry.name_end as usize..entry.end as usize],
        )
    }

    /// Name and address of a hot channel.
    #[inline]
    pub fn hot(&self, number: u32) -> (&str, &str) {
        self.cold(COLD_CHANNELS + number)
    }

    fn push(&mut self, name: std::fmt::Arguments<'_>, rng: &mut Rng, scratch: &mut EventScratch) {
        let start = self.text.len() as u32;
        let _ = self.text.write_fmt(name);
        let name_end = self.text.len() as u32;
        self.text.push_str("https://www.nexmark.com/");
        for _ in 0..3 {
            scratch.clear();
            let span = scratch.push_words(rng, 5, Separator::Underscore);
            self.text.push_str(scratch.text(span));
            self.text.push('/');
        }
        self.text.push_str("item.htm?query=1");
        self.entries.push(Entry { start, name_end, end: self.text.len() as u32 });
    }

    fn extend_url(&mut self, suffix: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(suffix);
        if let Some(last) = self.entries.last_mut() {
            last.end = self.text.len() as u32;
        }
    }
}

/// The number that the address of a cold channel carries: its bits reversed, as a signed number, without the sign.
const fn channel_id(number: u32) -> u32 {
    number.reverse_bits().cast_signed().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_channels_are_made_then_addresses_have_the_documented_shape() {
        let channels = Channels::new(7);
        let mut with_id = 0;
        for number in 0..COLD_CHANNELS {
            let (name, url) = channels.cold(number);
            assert_eq!(name, format!("channel-{number}"));
            let path = url.strip_prefix("https://www.nexmark.com/").expect(url);
            let parts: Vec<&str> = path.split('/').collect();
            assert_eq!(parts.len(), 4, "{url}");
            assert!(parts[..3].iter().all(|part| (3..5).contains(&part.len())), "{url}");
            if let Some(id) = parts[3].strip_prefix("item.htm?query=1&channel_id=") {
                assert_eq!(id, channel_id(number).to_string());
                with_id += 1;
            } else {
                assert_eq!(parts[3], "item.htm?query=1");
            }
        }
        assert!((8_800..9_200).contains(&with_id), "{with_id}");
        for (number, expected) in HOT_CHANNELS.into_iter().enumerate() {
            let (name, url) = channels.hot(number as u32);
            assert_eq!(name, expected);
            assert!(url.ends_with("/item.htm?query=1"), "{url}");
        }
    }

    #[test]
    fn when_bits_are_reversed_then_the_sign_is_dropped() {
        assert_eq!(channel_id(0), 0);
        assert_eq!(channel_id(1), 1 << 31);
        assert_eq!(channel_id(2), 1 << 30);
        assert_eq!(channel_id(3), 1 << 30);
    }
}
