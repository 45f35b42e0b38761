//! Random numbers. All of this program's come from here, so that a simulation can take them from its seed.

/// Returns 64 random bits from the system.
///
/// # Errors
/// If the system can't provide random bytes.
pub fn bits() -> Result<u64, openssl::error::ErrorStack> {
    #[cfg(test)]
    if let Some(bits) = seeded::next() {
        return Ok(bits);
    }
    let mut bytes = [0; 8];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Returns a random number below `limit`, or 0 if the system can't provide random bytes.
pub fn below(limit: usize) -> usize {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
    usize::try_from(bits().unwrap_or_default() % limit).unwrap_or_default()
}

/// The random numbers of a simulation.
#[cfg(test)]
pub mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From now on this thread's random numbers follow from the seed; `None`: they come from the system.
    pub fn set(seed: Option<u64>) {
        STATE.set(seed);
    }

    /// splitmix64.
    pub(super) fn next() -> Option<u64> {
        let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(Some(state));
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(z ^ (z >> 31))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_follow_from_the_seed_until_it_is_unset() {
        let take = |seed| {
            seeded::set(Some(seed));
            (0..8).map(|_| bits().expect("bits")).collect::<Vec<_>>()
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        assert!((0..100).all(|_| below(12) < 12));
        seeded::set(None);
        assert_ne!(bits().expect("bits"), bits().expect("bits"));
    }
}
