//! Packets out of a stream of bytes, however it was cut on its way, and the other way round.
//!
//! A packet comes in frames: three bytes of length, one that counts them, the payload. A frame of the greatest length is
//! followed by another of the same packet.

use bytes::{Buf, BytesMut};
use std::ops::Range;

const HEADER: usize = 4;
/// The greatest length of a frame.
const FULL: usize = 0xFF_FFFF;
/// The greatest packet that the protocol allows.
pub(super) const LARGEST: usize = 1 << 30;
/// Room for what comes next: several of the server's writes, and little enough to be in the processor's cache still when it
/// is decoded.
const ROOM: usize = 128 << 10;

/// Why what came makes no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Torn {
    /// A frame was lost, or is not of this statement.
    OutOfOrder,
    TooLarge,
}

/// What has come, and has not been taken yet.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: BytesMut,
    /// Where what nobody has looked at begins.
    at: usize,
    /// The packet that is not whole yet: its payload, joined so far.
    begun: Option<Range<usize>>,
    /// The number of the next frame.
    number: u8,
    full: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), at: 0, begun: None, number: 0, full: FULL }
    }
}

impl Frames {
    /// Room to read more into. Places of packets end with this call.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let from = self.begun.as_ref().map_or(self.at, |begun| begun.start);
        self.buffer.advance(from);
        self.at -= from;
        if let Some(begun) = &mut self.begun {
            *begun = begun.start - from..begun.end - from;
        }
        // One large row must not keep its room for ever.
        if self.buffer.is_empty() && self.buffer.capacity() > 8 * ROOM {
            self.buffer = BytesMut::new();
        }
        let rest = self.header().map_or(0, |(length, _)| (self.at + HEADER + length).saturating_sub(self.buffer.len()));
        self.buffer.reserve(rest.max(ROOM));
        &mut self.buffer
    }

    /// What the places of packets are in.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether everything that came was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.buffer.len() && self.begun.is_none()
    }

    /// Length and number of the next frame, once its header is there.
    fn header(&self) -> Option<(usize, u8)> {
        match self.buffer.get(self.at..self.at + HEADER) {
            Some([a, b, c, number]) => Some((u32::from_le_bytes([*a, *b, *c, 0]) as usize, *number)),
            _ => None,
        }
    }

    /// Where the next packet's payload lies, once it is whole.
    ///
    /// # Errors
    /// Frames out of their order, a packet beyond what the protocol allows.
    pub(super) fn next(&mut self) -> Result<Option<Range<usize>>, Torn> {
        loop {
            let Some((length, number)) = self.header() else { return Ok(None) };
            if number != self.number {
                return Err(Torn::OutOfOrder);
            }
            let from = self.at + HEADER;
            let end = from + length;
            if self.begun.as_ref().map_or(0, Range::len) + length > LARGEST {
                return Err(Torn::TooLarge);
            }
            if self.buffer.len() < end {
                return Ok(None);
            }
            let payload = match self.begun.take() {
                None => from..end,
                Some(begun) => {
                    self.buffer.copy_within(from..end, begun.end);
                    begun.start..begun.end + length
                }
            };
            self.at = end;
            self.number = self.number.wrapping_add(1);
            if length < self.full {
                return Ok(Some(payload));
            }
            self.begun = Some(payload);
        }
    }

    /// A new statement begins: frames are counted anew.
    pub(super) fn restart(&mut self) {
        self.number = 0;
    }

    /// A payload as it goes to the server.
    pub(super) fn framed(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + HEADER);
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(self.full));
            // No frame is longer than three bytes say.
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(0).to_le_bytes()[..3]);
            out.push(self.number);
            out.extend_from_slice(part);
            self.number = self.number.wrapping_add(1);
            rest = after;
            if part.len() < self.full {
                return out;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn short() -> Frames {
        Frames { full: 7, ..Frames::default() }
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in_however_the_stream_is_cut(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            cuts in prop::collection::vec(1usize..60, 1..20),
        ) {
            let mut sender = short();
            let stream: Vec<u8> = packets.iter().flat_map(|packet| sender.framed(packet)).collect();
            let mut receiver = short();
            let (mut rest, mut found) = (stream.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                while let Some(place) = receiver.next().unwrap() {
                    found.push(receiver.bytes()[place].to_vec());
                }
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                receiver.room().extend_from_slice(part);
                rest = after;
            }
            prop_assert_eq!(found, packets);
            prop_assert!(receiver.is_empty());
        }

        #[test]
        fn any_bytes_are_packets_or_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
            let mut frames = short();
            for part in bytes.chunks(step) {
                frames.room().extend_from_slice(part);
                while let Ok(Some(place)) = frames.next() {
                    prop_assert!(frames.bytes().get(place).is_some());
                }
            }
        }
    }

    #[test]
    fn a_frame_that_is_lost_is_noticed() {
        let mut frames = Frames::default();
        frames.room().extend_from_slice(&[1, 0, 0, 0, 7, 1, 0, 0, 2, 8]);
        assert_eq!(frames.next(), Ok(Some(4..5)));
        assert_eq!(frames.next(), Err(Torn::OutOfOrder));
    }
}
