//! What the clients send.
//!
//! All messages are windows of one table of random bytes: nothing is made for a message, nothing is
//! kept for a client, and an answer is checked by comparing it with the same window. Where the
//! window begins and how long it is follows from the numbers of client and message, so an answer
//! that belongs to another message, or is a byte off, does not match. Every run sends the same.

/// The longest message, in bytes.
const LONGEST: u64 = 64 * 1024;
/// Windows begin at so many places.
const PLACES: u64 = 64 * 1024;

pub struct Messages {
    table: Vec<u8>,
}

impl Messages {
    pub fn new() -> Messages {
        let words = (PLACES + LONGEST) / 8;
        Messages { table: (0..words).flat_map(|word| mixed(word).to_ne_bytes()).collect() }
    }

    pub fn bytes(&self, client: u64, message: u64) -> &[u8] {
        let random = mixed(mixed(client) ^ message);
        let place = (random % PLACES) as usize;
        &self.table[place..place + size(random / PLACES)]
    }
}

/// From 1 B to 64 KiB, each power of two as likely as the next. Half of the sizes are powers of two,
/// where buffers end, and half lie anywhere in between.
fn size(random: u64) -> usize {
    let (up_to, random) = (1 << (random % 17), random / 17);
    let size = if random % 2 == 0 { up_to } else { 1 + random / 2 % up_to };
    size as usize
}

/// A number that looks random but follows from `seed`: SplitMix64.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
