//! A map whose clones share their contents. A change copies one bucket, so a published catalog with ten thousand logs
//! costs microseconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{GroupId, LogId, LogName};

/// The number of buckets. A clone copies as many pointers, and a change one bucket.
const BUCKETS: u64 = 128;

/// A key of a [`BucketMap`].
pub trait BucketKey: Ord + Clone {
    /// A number that is the same for equal keys.
    fn bucket(&self) -> u64;
}

impl BucketKey for GroupId {
    fn bucket(&self) -> u64 {
        self.0
    }
}

impl BucketKey for LogId {
    fn bucket(&self) -> u64 {
        self.0
    }
}

impl BucketKey for LogName {
    fn bucket(&self) -> u64 {
        crc32c::crc32c(self.as_str().as_bytes()).into()
    }
}

/// A map from `K` to `V`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketMap<K, V> {
    buckets: Vec<Arc<BTreeMap<K, V>>>,
    len: usize,
}

impl<K, V> Default for BucketMap<K, V> {
    fn default() -> BucketMap<K, V> {
        BucketMap { buckets: Vec::new(), len: 0 }
    }
}

impl<K: BucketKey, V: Clone> BucketMap<K, V> {
    fn at(key: &K) -> usize {
        // Always less than `BUCKETS`.
        (key.bucket() % BUCKETS) as usize
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.buckets.get(BucketMap::<K, V>::at(key))?.get(key)
    }

    /// Returns the value of a key for a change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get(key)?;
        Arc::make_mut(self.buckets.get_mut(BucketMap::<K, V>::at(key))?).get_mut(key)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: K, value: V) {
        if self.buckets.is_empty() {
            self.buckets = (0..BUCKETS).map(|_| Arc::default()).collect();
        }
        let bucket = &mut self.buckets[BucketMap::<K, V>::at(&key)];
        if Arc::make_mut(bucket).insert(key, value).is_none() {
            self.len += 1;
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &K) {
        let at = BucketMap::<K, V>::at(key);
        if self.get(key).is_some() && Arc::make_mut(&mut self.buckets[at]).remove(key).is_some() {
            self.len -= 1;
        }
        if self.len == 0 {
            // Equal to a new map.
            self.buckets = Vec::new();
        }
    }

    /// Iterates over the entries, in no useful order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl BucketKey for u64 {
        fn bucket(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn behaves_like_a_map_and_clones_do_not_change() {
        let (mut map, mut model) = (BucketMap::default(), BTreeMap::new());
        for i in 0..2000_u64 {
            let (before, expected) = (map.clone(), model.clone());
            let key = i * 37 % 500;
            if i % 3 == 0 {
                map.remove(&key);
                model.remove(&key);
            } else {
                map.insert(key, i);
                model.insert(key, i);
            }
            let sorted = |map: &BucketMap<u64, u64>| map.iter().map(|(k, v)| (*k, *v)).collect::<BTreeMap<_, _>>();
            assert_eq!((sorted(&map), map.len(), map.get(&key)), (model.clone(), model.len(), model.get(&key)));
            assert_eq!(sorted(&before), expected);
            assert_eq!(map.get_mut(&key).map(|value| *value += 1), model.get_mut(&key).map(|value| *value += 1));
            assert_eq!((sorted(&map), sorted(&before)), (model.clone(), expected));
        }
        model.keys().for_each(|key| map.remove(key));
        assert_eq!(map, BucketMap::default(), "an empty map has one form");
    }
}
