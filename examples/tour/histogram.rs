//! A histogram with log-linear buckets, which stays small however long the run is.
//!
//! Each power of two is divided into 32 buckets of equal width. So a value is known to about 3 %, be it a
//! microsecond or a minute, and the buckets for all values of 64 bits take 15 KiB.

/// Each power of two has 2^`BITS` buckets.
const BITS: u32 = 5;
const BUCKETS: usize = ((64 - BITS as usize) + 1) << BITS;

pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }

    pub fn record(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// The value that this many values of a thousand do not exceed, to about 3 %; 0 if no value was recorded.
    pub fn permille(&self, permille: u64) -> u64 {
        let mut left = (u128::from(self.count) * u128::from(permille)).div_ceil(1000);
        for (bucket, &count) in self.buckets.iter().enumerate() {
            left = left.saturating_sub(count.into());
            if left == 0 && count > 0 {
                return last_of(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The largest value, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }
}

/// The index of the bucket of a value. It follows from the value's highest bit that is set and the `BITS`
/// bits after it. Values that have no more bits than that have a bucket of their own.
fn bucket(value: u64) -> usize {
    let shift = (64 - BITS).saturating_sub(value.leading_zeros() + 1);
    ((shift as usize) << BITS) + (value >> shift) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let shift = (bucket >> BITS).saturating_sub(1);
    let leading = (bucket - (shift << BITS)) as u64;
    (leading << shift) | ((1 << shift) - 1)
}
