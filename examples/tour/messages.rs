//! What the clients send.
//!
//! All messages are parts of one table of random bytes. So no memory is needed for a message or a client,
//! and an answer is checked by comparing it with the same part of the table. Where the part begins and how
//! long it is follows from the number of the client and the number of the message. So an answer that
//! belongs to another message, or is shifted by a byte, does not match. Every run sends the same messages.

/// The longest message, in bytes.
const LONGEST: u64 = 64 * 1024;
/// A message begins at one of the first this many bytes of the table.
const BEGINNINGS: u64 = 64 * 1024;

pub struct Messages {
    table: Vec<u8>,
}

impl Messages {
    pub fn new() -> Messages {
        let words = (BEGINNINGS + LONGEST) / 8;
        Messages { table: (0..words).flat_map(|word| mixed(word).to_ne_bytes()).collect() }
    }

    /// The bytes of a message of a client.
    pub fn bytes(&self, client: u64, message: u64) -> &[u8] {
        let random = mixed(mixed(client) ^ message);
        let begin = (random % BEGINNINGS) as usize;
        &self.table[begin..begin + size(random / BEGINNINGS)]
    }
}

/// A size from 1 B to 64 KiB. Half of the sizes are powers of two, since buffers often end there, and each of
/// those is equally likely. The other half lies anywhere below such a power.
fn size(random: u64) -> usize {
    let (up_to, random) = (1 << (random % 17), random / 17);
    let size = if random % 2 == 0 { up_to } else { 1 + random / 2 % up_to };
    size as usize
}

/// A number that looks random but always is the same for a `seed`. The algorithm is SplitMix64.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
