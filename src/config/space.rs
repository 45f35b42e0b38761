//! How much of the disk is left free, and when a thread counts as hanging.

use super::{Check, GIB, MIB, ServeArgs};

const WATERMARK_BYTES: (u64, u64) = (MIB, 1024 * GIB);
/// 0: none.
const RESERVE_BYTES: (u64, u64) = (0, GIB);
const HANG_SECONDS: (u64, u64) = (1, 3600);

/// Watermarks of free space, in bytes. None: a part of the file system (`storage/space.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Less is low: a warning.
    pub soft_bytes: Option<u64>,
    /// Less is full: appends are refused.
    pub hard_bytes: Option<u64>,
    /// The reserve file; 0: none.
    pub reserve_bytes: Option<u64>,
}

impl Check {
    pub(super) fn disk_space(&mut self, args: &ServeArgs) -> DiskSpace {
        let mut given = |option: &str, value: &Option<String>, bounds: (u64, u64)| {
            value.as_deref().map(|value| self.bytes(option, Some(value), bounds.0, bounds))
        };
        let space = DiskSpace {
            soft_bytes: given("disk-free-soft-bytes", &args.disk_free_soft_bytes, WATERMARK_BYTES),
            hard_bytes: given("disk-free-hard-bytes", &args.disk_free_hard_bytes, WATERMARK_BYTES),
            reserve_bytes: given("disk-reserve-bytes", &args.disk_reserve_bytes, RESERVE_BYTES),
        };
        if let (Some(soft), Some(hard)) = (space.soft_bytes, space.hard_bytes)
            && soft < hard
        {
            self.0.push(format!("disk-free-soft-bytes: {soft} is below disk-free-hard-bytes, {hard}"));
        }
        space
    }

    pub(super) fn hang_seconds(&mut self, args: &ServeArgs) -> u64 {
        self.bytes("hang-seconds-max", args.hang_seconds_max.as_deref(), 30, HANG_SECONDS)
    }
}
