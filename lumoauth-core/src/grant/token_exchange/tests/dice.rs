//! Chance that is the same each time.

use crate::capability::Capability;

/// SplitMix64: the same numbers for the same history.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    pub(super) fn once_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    /// Each of `all` with three chances in five.
    pub(super) fn some_of(&mut self, all: &[&str]) -> Vec<Capability> {
        let items = all.iter().filter(|_| self.roll(5) < 3);
        items.map(|item| Capability::parse(item).unwrap()).collect()
    }
}
