//! Pick: which instance of those that may take this request. A pool by weight, then the less loaded of two drawn.

/// The members of one release, and the share of new requests they take together.
#[derive(Debug, Clone)]
pub struct Share<T> {
    pub weight: u32,
    pub members: Vec<T>,
}

/// Power of two choices. `load` answers what a member has in flight, or none when it must not be chosen (tried before).
///
/// Shares without weight, or without a member that may be chosen, take no part; the others keep their proportion.
/// Equal seeds choose equally.
pub fn choose<T>(shares: &[Share<T>], load: impl Fn(&T) -> Option<u64>, seed: u64) -> Option<&T> {
    let open = |share: &&Share<T>| share.weight > 0 && share.members.iter().any(|member| load(member).is_some());
    let total: u64 = shares.iter().filter(open).map(|share| u64::from(share.weight)).sum();
    let mut seeds = Seeds(seed);
    let mut point = seeds.below(total)?;
    let share = shares.iter().filter(open).find(|share| {
        let weight = u64::from(share.weight);
        let here = point < weight;
        point = point.saturating_sub(weight);
        here
    })?;
    let able = || share.members.iter().filter_map(|member| Some((member, load(member)?)));
    let count = able().count() as u64;
    let first = seeds.below(count)?;
    // The second is drawn among the others, so that both are never the same.
    let second = seeds.below(count - 1).map_or(first, |other| if other >= first { other + 1 } else { other });
    // A load is read again here: `nth` may miss one whose load went away meanwhile, and then the other one is it.
    let drawn = |at: u64| able().nth(usize::try_from(at).unwrap_or(usize::MAX));
    match (drawn(first), drawn(second)) {
        (Some((a, load_a)), Some((b, load_b))) => Some(if load_b < load_a { b } else { a }),
        (Some((one, _)), None) | (None, Some((one, _))) => Some(one),
        (None, None) => None,
    }
}

/// Numbers from a seed (splitmix64): even enough for choices, no secret.
#[derive(Debug, Clone)]
pub struct Seeds(pub u64);

impl Seeds {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; none when there is no such number.
    pub fn below(&mut self, limit: u64) -> Option<u64> {
        let drawn = self.draw();
        (limit > 0).then(|| drawn % limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(weight: u32, members: &[(usize, Option<u64>)]) -> Share<(usize, Option<u64>)> {
        Share { weight, members: members.to_vec() }
    }

    fn counts(shares: &[Share<(usize, Option<u64>)>]) -> Vec<usize> {
        let mut counts = vec![0; 8];
        for seed in 0..10_000 {
            if let Some((id, _)) = choose(shares, |member| member.1, seed) {
                counts[*id] += 1;
            }
        }
        counts
    }

    #[test]
    fn weights_are_kept_and_zero_takes_none() {
        let counts =
            counts(&[share(90, &[(0, Some(0))]), share(10, &[(1, Some(0)), (2, Some(0))]), share(0, &[(3, Some(0))])]);
        assert!((8_800..9_200).contains(&counts[0]), "{counts:?}");
        assert!((800..1_200).contains(&(counts[1] + counts[2])), "{counts:?}");
        assert_eq!(counts[3], 0);
    }

    #[test]
    fn the_most_loaded_one_is_avoided_and_ties_are_even() {
        let counts_loaded = counts(&[share(1, &[(0, Some(9)), (1, Some(0)), (2, Some(0))])]);
        assert_eq!(counts_loaded[0], 0, "of two different ones it is never the less loaded");
        let even = counts(&[share(1, &[(0, Some(0)), (1, Some(0))])]);
        assert!((4_700..5_300).contains(&even[0]), "{even:?}");
    }

    #[test]
    fn a_pool_without_a_usable_member_gives_its_share_to_the_others() {
        let counts = counts(&[share(99, &[(0, None)]), share(1, &[(1, Some(5))])]);
        assert_eq!((counts[0], counts[1]), (0, 10_000));
        assert_eq!(choose(&[share(1, &[(0, None)])], |member| member.1, 1), None);
        assert_eq!(choose(&[share(0, &[(0, Some(0))])], |member| member.1, 1), None);
        assert_eq!(choose::<()>(&[], |()| Some(0), 1), None);
    }

    proptest::proptest! {
        #[test]
        fn never_one_that_must_not_be_chosen(
            loads in proptest::collection::vec((0u32..3, proptest::collection::vec(proptest::option::of(0u64..5), 0..5)), 0..4),
            seed: u64,
        ) {
            let shares: Vec<_> = loads.into_iter().map(|(weight, members)| Share { weight, members }).collect();
            let possible = shares.iter().any(|share| share.weight > 0 && share.members.iter().any(Option::is_some));
            let chosen = choose(&shares, |load| *load, seed);
            proptest::prop_assert_eq!(chosen.is_some(), possible);
            proptest::prop_assert!(chosen.is_none_or(Option::is_some));
        }
    }
}
