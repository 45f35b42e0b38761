//! Returns memory to the system after many connections have closed, and after a load.
//!
//! The C core makes many small allocations for each connection, in several arenas. By itself, glibc only returns the
//! end of an arena to the system: after 3,000 connections were closed, the process still held 270 MiB, and after a
//! load of records 30 to 60 MiB, for as long as it was idle.

#[cfg(target_env = "gnu")]
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The pause between two checks.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// The same while the process rests.
const CHECK_RESTING: Duration = Duration::from_secs(2);
/// Memory is returned if the allocator has this many more free bytes than [`FreeMemory::least`].
const GROWN_BYTES: usize = 32 << 20;
/// The same while the process rests. A busy one would soon need the memory again.
const GROWN_RESTING_BYTES: usize = 2 << 20;

/// The free memory that the allocator keeps.
#[derive(Debug)]
pub(super) struct FreeMemory {
    checked: Instant,
    /// The minimum of free bytes that was seen since memory was last returned.
    least: usize,
}

impl Default for FreeMemory {
    fn default() -> FreeMemory {
        FreeMemory { checked: Instant::now(), least: free_bytes() }
    }
}

impl FreeMemory {
    /// Returns free memory to the system, if there is much of it. Must be called regularly. `rests` is true if the
    /// process has done nearly nothing since the last call.
    pub fn trim(&mut self, rests: bool) {
        let (pause, grown) = if rests { (CHECK_RESTING, GROWN_RESTING_BYTES) } else { (CHECK_EVERY, GROWN_BYTES) };
        if self.checked.elapsed() < pause {
            return;
        }
        self.checked = Instant::now();
        let free = free_bytes();
        self.least = self.least.min(free);
        if free > self.least + grown {
            return_free();
            self.least = free_bytes();
            log::debug!("returned free memory to the system: the allocator had {} MiB", free >> 20);
        }
    }
}

/// Returns the allocator's free bytes. glibc before 2.33 (Debian 11) has no `mallinfo2`, with which the program could not even
/// be linked there: then they are counted modulo 4 GiB, so that memory may be returned too late or too often.
#[cfg(target_env = "gnu")]
fn free_bytes() -> usize {
    type Mallinfo2 = unsafe extern "C" fn() -> libc::mallinfo2;
    static FOUND: LazyLock<Option<Mallinfo2>> = LazyLock::new(|| {
        // SAFETY: it only looks up a name.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
        // SAFETY: the function of this name in glibc has this type.
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut libc::c_void, Mallinfo2>(found) })
    });
    match *FOUND {
        // SAFETY: it only reads the allocator's counters.
        Some(mallinfo2) => unsafe { mallinfo2() }.fordblks,
        // SAFETY: the same.
        None => unsafe { libc::mallinfo() }.fordblks.cast_unsigned() as usize,
    }
}

/// Returns true if any memory was returned to the system.
#[cfg(target_env = "gnu")]
fn return_free() -> bool {
    // SAFETY: it takes the allocator's locks, and releases only pages that hold no allocation.
    unsafe { libc::malloc_trim(0) == 1 }
}

/// Other C libraries return free memory by themselves.
#[cfg(not(target_env = "gnu"))]
fn free_bytes() -> usize {
    0
}

#[cfg(not(target_env = "gnu"))]
fn return_free() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_env = "gnu")]
    #[test]
    fn returns_free_memory_between_allocations() {
        let mut pieces: Vec<Option<Vec<u8>>> = (0..20_000).map(|_| Some(vec![1; 4000])).collect();
        let before = free_bytes();
        let kept: Vec<_> = pieces.iter_mut().step_by(100).map(Option::take).collect();
        drop(pieces);
        assert!(free_bytes() > before + GROWN_BYTES, "{before} and {}", free_bytes());
        let mut memory = FreeMemory { checked: Instant::now(), least: before };
        memory.trim(false);
        assert_eq!(memory.least, before, "not yet");
        assert!(return_free());
        memory.checked -= CHECK_EVERY;
        memory.trim(false);
        assert!(memory.least > before);
        drop(kept);
    }
}
