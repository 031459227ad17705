//! Random bits, and the way from bits to values.
//!
//! Nothing here may ever change what it makes: files in the world, checksums and golden tests depend on it. The ways
//! from bits to numbers are written out rather than taken from `rand`, which keeps the right to change its own.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// Rows that share a random stream. Large enough that setting a stream up is lost among the values, small enough that
/// a batch may start anywhere at little cost.
pub(super) const BLOCK_ROWS: u64 = 1024;

/// What a stream is used for: NULLs are drawn apart from values, so that changing `nulls` leaves the values alone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Values = 0,
    Nulls = 1,
}

/// The random stream of one block of one column.
///
/// ChaCha8 with the key (seed, little-endian, 8 bytes; FNV-1a 64 of the column's name, 8 bytes; purpose, 1 byte; 7
/// zeros; `gristml1`) and the block's number as stream id.
pub(super) fn stream(seed: u64, column: &str, purpose: Purpose, block: u64) -> ChaCha8Rng {
    let mut key = [0_u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&fnv1a(column.as_bytes()).to_le_bytes());
    key[16] = purpose as u8;
    key[24..].copy_from_slice(b"gristml1");
    let mut stream = ChaCha8Rng::from_seed(key);
    stream.set_stream(block);
    stream
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A whole number below `count`, one draw; `count` 0 stands for 2^64. (Multiply and shift: off the even distribution
/// by less than `count` in 2^64.)
#[inline]
pub(super) fn below(random: &mut ChaCha8Rng, count: u64) -> u64 {
    let bits = random.next_u64();
    if count == 0 { bits } else { ((u128::from(bits) * u128::from(count)) >> 64) as u64 }
}

/// A whole number up to and including `last`; one draw where it fits 64 bits, by rejection beyond.
#[inline]
pub(super) fn up_to_wide(random: &mut ChaCha8Rng, last: u128) -> u128 {
    if let Ok(last) = u64::try_from(last) {
        return u128::from(below(random, last.wrapping_add(1)));
    }
    let mask = u128::MAX >> last.leading_zeros();
    loop {
        let high = u128::from(random.next_u64()) << 64;
        let value = (high | u128::from(random.next_u64())) & mask;
        if value <= last {
            return value;
        }
    }
}

/// A number from 0 up to, but not including, 1: 53 random bits.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
pub(super) fn unit(random: &mut ChaCha8Rng) -> f64 {
    const ULP: f64 = 1.0 / (1_u64 << 53) as f64;
    (random.next_u64() >> 11) as f64 * ULP
}
