//! How much memory the process may use, and how much it does.

use gristmill_model::ByteSize;

/// The share of the machine (or cgroup) that is used when nothing else is said.
const DEFAULT_SHARE: f64 = 0.7;

/// The share of the limit that goes to DataFusion's pool. The rest is for what it does not account for: decoders,
/// encoders, multipart buffers, channels, the allocator's slack.
const POOL_SHARE: f64 = 0.65;

/// A limit on the process's resident memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The limit, in bytes.
    pub total: u64,
    /// The part of it that DataFusion's operators may use, in bytes.
    pub pool: u64,
}

impl MemoryLimit {
    /// The given limit, or a share of what the machine or cgroup has.
    #[must_use]
    pub fn decide(wanted: Option<ByteSize>) -> Self {
        let total = wanted.map_or_else(|| share(available(), DEFAULT_SHARE), |size| size.0);
        Self { total, pool: share(total, POOL_SHARE) }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of bytes"
)]
fn share(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

/// What the machine has, or the cgroup allows, whichever is less; 4 GiB where neither can be read.
fn available() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    });
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    match (machine, cgroup) {
        (Some(machine), Some(cgroup)) => machine.min(cgroup),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => 4 << 30,
    }
}

/// The resident set of this process, in bytes; `None` where the system does not tell.
#[must_use]
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The largest resident set this process has had, in bytes; `None` where the system does not tell.
#[must_use]
pub fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_limit_is_kept_and_the_default_is_a_share_of_the_machine() {
        assert_eq!(MemoryLimit::decide(Some(ByteSize(1 << 30))).total, 1 << 30);
        let default = MemoryLimit::decide(None);
        assert!(default.total > 0 && default.pool < default.total);
    }

    #[test]
    fn the_resident_set_is_known_and_never_above_its_peak() {
        assert!(resident().unwrap() <= peak_resident().unwrap());
    }
}
