//! Fuzzing of the decoders that read bytes from a disk or the network: the mutator, the loop, and the measurement of
//! memory.
//!
//! Every decoder has a separate loop, named after it, in a file next to it (`storage/fuzz.rs`, `api/fuzz.rs`, ...).
//! A loop starts with valid inputs, built in code, and with the inputs that failed once, in `fuzz/corpus/<name>/`. It
//! mutates inputs that were accepted, and checks each result with an oracle. An input that fails is stored in that
//! directory, and the seed is printed.
//!
//! As a test, each loop runs for about a second with a fixed seed. `make fuzz MINUTES=n [ONLY=name]` runs each loop
//! for n minutes with a new seed, or with that of SERIATIM_FUZZ_SEED.
//!
//! Where possible, an oracle checks more than "no panic". All loops check that a decoder does not allocate more
//! memory than a multiple of its input, which the allocator of the test binary measures.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::varint;

pub use crate::storage::disk::sim::Rng;

/// How long a loop runs in the tests.
const SHORT: Duration = Duration::from_millis(700);
/// The largest input.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// The number of accepted inputs that are kept for further mutations.
const POOL_MAX: usize = 400;
/// The memory that a decoder may use in addition to the multiple of its input, by default. It is for error texts and
/// the first allocations of collections.
const FIXED_BYTES: usize = 64 << 10;
/// The additional memory for messages that gRPC passes to rust-protobuf, which reserves up to ten million bytes for
/// the length that a field claims. [`crate::pb::parse`] does not.
pub const PROTOBUF_FIXED_BYTES: usize = 11_000_000;

/// The system's allocator, with a count of the bytes that each thread has allocated.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // The counters of a thread that ends are already dropped.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call is passed to the system's allocator; the counters are plain cells and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: guaranteed by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Returns the result of `act`, and the peak of the bytes that it allocated.
pub fn counted<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let (before, peak) = (LIVE.get(), PEAK.get());
    PEAK.set(before);
    let result = act();
    let bytes = PEAK.get() - before;
    // Calls can be nested.
    PEAK.set(PEAK.get().max(peak));
    (result, usize::try_from(bytes).unwrap_or(0))
}

/// Repairs a mutated input, for example its checksums.
type Mend = dyn Fn(&mut Vec<u8>, &mut Rng);

/// The fuzz loop of one decoder.
pub struct Loop {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    memory_factor: usize,
    memory_fixed: usize,
    mend: Box<Mend>,
}

impl Loop {
    /// A loop that starts with valid inputs.
    pub fn new(name: &'static str, seeds: Vec<Vec<u8>>) -> Loop {
        Loop { name, seeds, memory_factor: 64, memory_fixed: FIXED_BYTES, mend: Box::new(|_, _| {}) }
    }

    /// Corrects checksums, in three of four inputs, so that mutations reach the code after the check.
    pub fn mend(mut self, mend: impl Fn(&mut Vec<u8>, &mut Rng) + 'static) -> Loop {
        self.mend = Box::new(mend);
        self
    }

    /// Sets the multiple of the input's size that the oracle may allocate (64 by default).
    pub fn memory(mut self, factor: usize) -> Loop {
        self.memory_factor = factor;
        self
    }

    /// Sets the bytes that the oracle may allocate in addition, for example a buffer for reads.
    pub fn memory_fixed(mut self, bytes: usize) -> Loop {
        self.memory_fixed = bytes;
        self
    }

    /// Runs the loop. The oracle returns whether the decoder accepted the input, and panics if a check fails.
    ///
    /// # Panics
    /// If an input fails, with the seed and the file of the input.
    pub fn run(self, oracle: impl Fn(&[u8]) -> bool) {
        let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<f64>().ok());
        let minutes = number("SERIATIM_FUZZ_MINUTES");
        let by_clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u32);
        let seed =
            number("SERIATIM_FUZZ_SEED").map_or_else(|| minutes.map_or(1, |_| u64::from(by_clock())), |n| n as u64);
        let until = Instant::now() + minutes.map_or(SHORT, |m| Duration::from_secs_f64(m * 60.0));

        let mut pool = self.seeds.clone();
        for seed in &self.seeds {
            assert!(self.ask(&oracle, seed, "a valid input"), "{}: a valid input is rejected: {seed:x?}", self.name);
        }
        pool.extend(kept(&self.folder()));
        for input in &pool {
            self.ask(&oracle, input, "a kept input");
        }
        let mut rng = Rng(seed);
        let (mut inputs, mut accepted) = (0u64, 0u64);
        while Instant::now() < until {
            for _ in 0..64 {
                let mut input = pool[rng.below(pool.len() as u64) as usize].clone();
                for _ in 0..1 + rng.below(4) {
                    let other = &pool[rng.below(pool.len() as u64) as usize];
                    mutate(&mut input, other, &mut rng);
                }
                if !rng.once_in(4) {
                    (self.mend)(&mut input, &mut rng);
                }
                inputs += 1;
                if self.ask(&oracle, &input, &format!("seed {seed}, input {inputs}")) {
                    accepted += 1;
                    if pool.len() < POOL_MAX {
                        pool.push(input);
                    } else {
                        let at = self.seeds.len() as u64;
                        let at = at + rng.below(pool.len() as u64 - at);
                        pool[at as usize] = input;
                    }
                }
            }
        }
        println!("fuzz {}: {inputs} inputs, {accepted} accepted, seed {seed}", self.name);
    }

    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(self.name)
    }

    fn ask(&self, oracle: &impl Fn(&[u8]) -> bool, input: &[u8], which: &str) -> bool {
        let bytes_max = self.memory_fixed + self.memory_factor * input.len();
        let asked = catch_unwind(AssertUnwindSafe(|| {
            let (taken, bytes) = counted(|| oracle(input));
            assert!(bytes <= bytes_max, "{bytes} bytes of memory for an input of {}", input.len());
            taken
        }));
        asked.unwrap_or_else(|_| {
            let file = self.folder().join(format!("{:08x}.bin", crc32c::crc32c(input)));
            let kept = std::fs::create_dir_all(self.folder()).and_then(|()| std::fs::write(&file, input));
            panic!("fuzz {}: {which} failed; the input is in {} ({kept:?})", self.name, file.display())
        })
    }
}

/// The inputs that failed once, in the order of their names.
fn kept(folder: &Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("an input")).collect()
}

/// Numbers near limits.
fn interesting(rng: &mut Rng) -> u64 {
    let near = rng.below(3).wrapping_sub(1);
    let number = match rng.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::from(u32::MAX),
        3 => 8 << 20,
        4 => 1 << 63,
        5 => rng.below(300),
        _ => 1 << rng.below(64),
    };
    number.wrapping_add(near)
}

/// Returns a random range within `length` bytes, usually a short one.
fn part(length: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let begin = rng.below(length as u64 + 1) as usize;
    let most = if rng.once_in(3) { length - begin } else { 16.min(length - begin) };
    begin..begin + rng.below(most as u64 + 1) as usize
}

/// Applies one mutation to an input.
fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let any = rng.below(input.len() as u64) as usize;
    match rng.below(12) {
        0 | 1 if !input.is_empty() => input[any] ^= 1 << rng.below(8),
        2 if !input.is_empty() => input[any] = [0, 1, 0x7f, 0x80, 0xff, 0x0a, 0x1a][rng.below(7) as usize],
        3 if !input.is_empty() => input[any] = input[any].wrapping_add(rng.below(5) as u8).wrapping_sub(2),
        4 => input.truncate(part(input.len(), rng).start),
        5 => drop(input.drain(part(input.len(), rng))),
        6 => {
            let copy = input[part(input.len(), rng)].to_vec();
            let at = part(input.len(), rng).start;
            input.splice(at..at, copy);
        }
        7 => {
            let from = other[part(other.len(), rng)].to_vec();
            let to = part(input.len(), rng);
            input.splice(to, from);
        }
        8 => {
            let number = interesting(rng).to_le_bytes();
            let bytes = if rng.once_in(2) { 4 } else { 8 };
            // Most numbers in our formats are aligned to four bytes.
            let at = if rng.once_in(3) { any } else { any & !3 };
            if let Some(place) = input.get_mut(at..at + bytes) {
                place.copy_from_slice(&number[..bytes]);
            }
        }
        9 | 10 => {
            let mut number = Vec::new();
            varint::put(&mut number, interesting(rng));
            if rng.once_in(4) {
                // A padded encoding.
                if let Some(last) = number.last_mut() {
                    *last |= 0x80;
                }
                number.push(0);
            }
            // Either replaces the varint that ends here, or inserts a new one.
            let end = if rng.once_in(3) { any } else { (any + 1).min(input.len()) };
            input.splice(any.min(input.len())..end, number);
        }
        _ => {
            let at = part(input.len(), rng).start;
            let bytes: Vec<u8> = (0..rng.below(9)).map(|_| rng.next() as u8).collect();
            input.splice(at..at, bytes);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

#[test]
fn mutates_and_measures_memory() {
    let (vector, bytes) = counted(|| vec![0u8; 100_000]);
    assert!((100_000..110_000).contains(&bytes), "{bytes} for {}", vector.len());
    let mut rng = Rng(1);
    let mut lengths = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        let mut input = b"hello world".to_vec();
        mutate(&mut input, b"", &mut rng);
        mutate(&mut Vec::new(), b"other", &mut rng);
        lengths.insert(input.len());
    }
    assert!(lengths.contains(&0) && lengths.contains(&11) && lengths.iter().any(|l| *l > 11));
    let failed = catch_unwind(|| Loop::new("none", vec![b"a".to_vec()]).run(|input| input.is_empty()));
    assert!(failed.is_err(), "a valid input that is refused fails");
}
