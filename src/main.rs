//! The binary: the memory allocator. All other code is in the library.
//!
//! jemalloc serves the whole process, the C core of gRPC included, because calls then take a sixth less processor time
//! than with glibc's allocator (docs/DECISIONS.md). It is not in the library, whose users choose their own.

#[cfg(feature = "jemalloc")]
mod allocator {
    use std::ptr;

    #[global_allocator]
    static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    /// Returns what jemalloc keeps of freed memory to the system. "4096" is its `MALLCTL_ARENAS_ALL`.
    pub fn return_free_memory() {
        let purge = c"arena.4096.purge".as_ptr();
        // SAFETY: the name ends with NUL, and this call takes and returns no value, for which null is documented.
        let failed = unsafe { tikv_jemalloc_sys::mallctl(purge, ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) };
        if failed != 0 {
            log::debug!("jemalloc returned no memory: error {failed}");
        }
    }
}

fn main() -> std::process::ExitCode {
    #[cfg(feature = "jemalloc")]
    seriatim::free_memory::returned_by(allocator::return_free_memory);
    seriatim::cli::command::main()
}
