//! Pick: which instance of those that may take this request. First a release by weight, then one of its instances as the
//! process's policy says.
//!
//! - peak-ewma: of two that are drawn the one with the lower load ([`Standing::load`]).
//! - round-robin: in turn.
//! - hash: the member that ranks highest for the key (rendezvous hashing), as long as it has no more than 1.25 times its
//!   share of what is in flight; else the next one. A member that comes or goes moves its own keys alone.
//!
//! A member that starts slowly, or fails, stands back in some of the draws; one that asked to be left alone does in all. In
//! its place comes one drawn among those that do not. When more than half ask to be left alone, they are asked all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use appbase_core::v1::{BalancePolicy, HashKey};

/// The members of one release, and the share of new requests they take together.
#[derive(Debug, Default)]
pub struct Share<T> {
    pub weight: u32,
    pub policy: BalancePolicy,
    pub members: Vec<T>,
    /// Whose turn it is.
    turn: Arc<AtomicU64>,
}

impl<T> Share<T> {
    pub fn new(weight: u32, policy: BalancePolicy, turn: Arc<AtomicU64>) -> Self {
        Self { weight, policy, members: Vec::new(), turn }
    }
}

/// What is known of a request and of members at this moment. Asked of those alone that a choice comes to.
pub trait Judge<T> {
    /// Where in the shares a client stands, of all 65,536 places; none: anywhere.
    fn place(&self) -> Option<u16>;
    /// None: the request lacks what the policy goes by, and is balanced by load.
    fn key(&self, key: &HashKey) -> Option<u64>;
    /// False: it must not be chosen (tried before).
    fn is_able(&self, member: &T) -> bool;
    /// Without long-lived streams.
    fn in_flight(&self, member: &T) -> u64;
    /// Of its name, the same everywhere.
    fn hash(&self, member: &T) -> u64;
    fn standing(&self, member: &T) -> Standing;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How long answers take it; none: nobody knows yet.
    pub latency: Option<Duration>,
    pub in_flight: u64,
    /// Long-lived ones: of two that are equal otherwise, the one with fewer.
    pub streams: u64,
    /// Of 1,000 draws it takes so many.
    pub ramp: u16,
    /// It asked to be left alone for a while.
    pub backs_off: bool,
}

/// Below this all are equally fast: it is what machines and networks vary by.
const LATENCY_FLOOR: Duration = Duration::from_millis(1);
pub const RAMP_FULL: u16 = 1_000;
/// Of the latencies of two.
const LATENCY_RATIO_MAX: u32 = 8;
/// An instance that is asked for by a hash may always have so many in flight.
const ROOM_MIN: u64 = 8;
/// Those that clients have in the shares.
const PLACES: u64 = 1 << 16;

impl Standing {
    /// Whether it is the better one of two. Whoever has the lower load: what is in flight and one more, each for as long
    /// as answers take. Where one of the two is not known yet, what is in flight alone. However slow one is, it is taken
    /// for no more than [`LATENCY_RATIO_MAX`] times as slow: one slow request is not a slow instance.
    fn is_better(&self, other: &Self) -> bool {
        let latencies = self.latency.zip(other.latency).map(|(own, others)| {
            let (own, others) = (own.max(LATENCY_FLOOR), others.max(LATENCY_FLOOR));
            (own.min(others * LATENCY_RATIO_MAX).as_nanos(), others.min(own * LATENCY_RATIO_MAX).as_nanos())
        });
        let (own, others) = latencies.unwrap_or((1, 1));
        let load = |one: &Self, latency: u128| (latency.saturating_mul(u128::from(one.in_flight) + 1), one.streams);
        load(self, own) < load(other, others)
    }

    /// `heeds`: whoever asks to be left alone is.
    fn stands_back(&self, heeds: bool, seeds: &mut Seeds) -> bool {
        let mut draw = || seeds.below(RAMP_FULL.into()) >= Some(self.ramp.into());
        (heeds && self.backs_off) || (self.ramp < RAMP_FULL && draw())
    }
}

/// Shares without weight, or without a member that may be chosen, take no part; the others keep their proportion.
/// Equal seeds choose equally. A client with a place keeps its share while weights grow from the first one on.
pub fn share<'a, T>(shares: &'a [Share<T>], judge: &impl Judge<T>, seeds: &mut Seeds) -> Option<&'a Share<T>> {
    let open = |share: &&Share<T>| share.weight > 0 && share.members.iter().any(|member| judge.is_able(member));
    let total: u64 = shares.iter().filter(open).map(|share| u64::from(share.weight)).sum();
    let mut point = match judge.place() {
        Some(place) if total > 0 => u64::from(place) * total / PLACES,
        _ => seeds.below(total)?,
    };
    shares.iter().filter(open).find(|share| {
        let weight = u64::from(share.weight);
        let here = point < weight;
        point = point.saturating_sub(weight);
        here
    })
}

/// One of a share, whatever its weight.
pub fn within<'a, T>(share: &'a Share<T>, judge: &impl Judge<T>, seeds: &mut Seeds) -> Option<&'a T> {
    match &share.policy {
        BalancePolicy::PeakEwma => less_loaded(share, judge, seeds),
        BalancePolicy::RoundRobin => in_turn(share, judge, seeds),
        BalancePolicy::Hash(key) => match judge.key(key) {
            Some(key) => highest(share, judge, key),
            None => less_loaded(share, judge, seeds),
        },
    }
}

fn able<'a, T>(share: &'a Share<T>, judge: &impl Judge<T>) -> impl Iterator<Item = &'a T> + Clone {
    share.members.iter().filter(|member| judge.is_able(member))
}

fn less_loaded<'a, T>(share: &'a Share<T>, judge: &impl Judge<T>, seeds: &mut Seeds) -> Option<&'a T> {
    let count = able(share, judge).count() as u64;
    let drawn = |at: u64| able(share, judge).nth(usize::try_from(at).unwrap_or(usize::MAX));
    let first = seeds.below(count)?;
    let one = drawn(first)?;
    // The second is drawn among the others, so that both are never the same.
    let Some(second) = seeds.below(count - 1) else { return Some(one) };
    let other = drawn(if second >= first { second + 1 } else { second })?;
    let (own, others) = (judge.standing(one), judge.standing(other));
    Some(match (own.stands_back(true, seeds), others.stands_back(true, seeds)) {
        (true, false) => other,
        (false, true) => one,
        (true, true) if let Some(free) = free(share, judge, seeds, [one, other]) => free,
        _ if others.is_better(&own) => other,
        _ => one,
    })
}

/// Whether those who ask to be left alone are: at most half of all.
fn heeds<T>(share: &Share<T>, judge: &impl Judge<T>) -> bool {
    let (all, away) = able(share, judge)
        .fold((0, 0), |(all, away), member| (all + 1, away + usize::from(judge.standing(member).backs_off)));
    away * 2 <= all
}

/// One drawn among those that do not stand back, unless they are too many who ask to be left alone. These two did.
fn free<'a, T>(share: &'a Share<T>, judge: &impl Judge<T>, seeds: &mut Seeds, but: [&T; 2]) -> Option<&'a T> {
    if !heeds(share, judge) {
        return None;
    }
    let (mut drawn, mut count) = (None, 0);
    for member in able(share, judge).filter(|&member| !but.iter().any(|other| std::ptr::eq(*other, member))) {
        if !judge.standing(member).stands_back(true, seeds) {
            count += 1;
            // The last of so many takes the place of the one before with this chance: all have the same.
            drawn = if seeds.below(count) == Some(0) { Some(member) } else { drawn };
        }
    }
    drawn
}

fn in_turn<'a, T>(share: &'a Share<T>, judge: &impl Judge<T>, seeds: &mut Seeds) -> Option<&'a T> {
    let turn = share.turn.fetch_add(1, Ordering::Relaxed);
    let count = able(share, judge).count();
    let first = usize::try_from(turn % u64::try_from(count).ok().filter(|count| *count > 0)?).ok()?;
    let next = able(share, judge).nth(first)?;
    let stands_back = count > 1 && judge.standing(next).stands_back(true, seeds);
    Some(if stands_back { free(share, judge, seeds, [next, next]).unwrap_or(next) } else { next })
}

fn highest<'a, T>(share: &'a Share<T>, judge: &impl Judge<T>, key: u64) -> Option<&'a T> {
    let in_flight: u64 = able(share, judge).map(|member| judge.in_flight(member)).sum();
    let count = able(share, judge).count() as u64;
    // 1.25 times the share of each, once this request is there.
    let room = ((in_flight + 1) * 5).div_ceil((count * 4).max(1)).max(ROOM_MIN);
    let rank = |member: &&T| Seeds(key ^ judge.hash(member)).draw();
    let heeds = heeds(share, judge);
    let takes = |member: &&T| {
        // While it starts slowly, the same keys pass it by each time.
        let mut seeds = Seeds(rank(member));
        judge.in_flight(member) < room && !judge.standing(member).stands_back(heeds, &mut seeds)
    };
    able(share, judge).filter(takes).max_by_key(rank).or_else(|| able(share, judge).max_by_key(rank))
}

/// What a member takes of its draws this long after it joined others, of 1,000: a tenth at first, then more and more
/// evenly until the window is over.
pub fn ramp(since: Duration, window: Duration) -> u16 {
    let full = u128::from(RAMP_FULL);
    let share = since.as_nanos() * full / window.as_nanos().max(1);
    share.clamp(full / 10, full) as u16
}

/// Of a text, the same everywhere and always (FNV-1a).
pub fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
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

    /// A number, and how it stands; none: it must not be chosen.
    type Member = (u64, Option<Standing>);

    struct AsGiven(Option<u64>);

    impl Judge<Member> for AsGiven {
        fn key(&self, _: &HashKey) -> Option<u64> {
            self.0
        }
        fn place(&self) -> Option<u16> {
            None
        }
        fn is_able(&self, member: &Member) -> bool {
            member.1.is_some()
        }
        fn in_flight(&self, member: &Member) -> u64 {
            member.1.map_or(0, |standing| standing.in_flight)
        }
        fn hash(&self, member: &Member) -> u64 {
            hash(&member.0.to_be_bytes())
        }
        fn standing(&self, member: &Member) -> Standing {
            member.1.unwrap_or(IDLE)
        }
    }

    const IDLE: Standing = Standing { latency: None, in_flight: 0, streams: 0, ramp: RAMP_FULL, backs_off: false };

    fn choose<'a>(shares: &'a [Share<Member>], judge: &impl Judge<Member>, seed: u64) -> Option<&'a Member> {
        let mut seeds = Seeds(seed);
        within(share(shares, judge, &mut seeds)?, judge, &mut seeds)
    }

    fn busy(in_flight: u64) -> Standing {
        Standing { in_flight, ..IDLE }
    }

    fn taking(ms: u64, in_flight: u64) -> Standing {
        Standing { latency: Some(Duration::from_millis(ms)), in_flight, ..IDLE }
    }

    fn of(weight: u32, policy: BalancePolicy, members: &[Member]) -> Share<Member> {
        Share { members: members.to_vec(), ..Share::new(weight, policy, Arc::default()) }
    }

    fn by_load(weight: u32, members: &[Member]) -> Share<Member> {
        of(weight, BalancePolicy::PeakEwma, members)
    }

    /// How often each was chosen, of 10,000.
    fn counts(shares: &[Share<Member>]) -> Vec<u64> {
        let mut counts = vec![0; 8];
        for seed in 0..10_000 {
            if let Some((id, _)) = choose(shares, &AsGiven(None), seed) {
                counts[*id as usize] += 1;
            }
        }
        counts
    }

    fn pair(first: Standing, second: Standing) -> Vec<u64> {
        counts(&[by_load(1, &[(0, Some(first)), (1, Some(second))])])
    }

    #[test]
    fn weights_are_kept_and_zero_takes_none() {
        let (one, two, three) = ((1, Some(IDLE)), (2, Some(IDLE)), (3, Some(IDLE)));
        let counts = counts(&[by_load(90, &[(0, Some(IDLE))]), by_load(10, &[one, two]), by_load(0, &[three])]);
        assert!((8_800..9_200).contains(&counts[0]), "{counts:?}");
        assert!((800..1_200).contains(&(counts[1] + counts[2])), "{counts:?}");
        assert_eq!(counts[3], 0);
    }

    #[test]
    fn the_most_loaded_one_is_avoided_and_ties_are_even() {
        let loaded = counts(&[by_load(1, &[(0, Some(busy(9))), (1, Some(IDLE)), (2, Some(IDLE))])]);
        assert_eq!(loaded[0], 0, "of two different ones it is never the less loaded");
        for even in [pair(IDLE, IDLE), pair(taking(5, 2), taking(5, 2)), pair(taking(0, 1), taking(1, 1))] {
            assert!((4_700..5_300).contains(&even[0]), "{even:?}");
        }
    }

    #[test]
    fn load_is_what_is_in_flight_times_how_long_answers_take() {
        assert_eq!(pair(taking(50, 0), taking(5, 3))[1], 10_000, "5 × 4 is less than 50 × 1");
        assert_eq!(pair(taking(20, 0), taking(5, 30))[0], 10_000, "5 × 31 is more than 20 × 1");
        // Nobody is taken for more than eight times as slow.
        assert_eq!(pair(taking(5_000, 0), taking(5, 8))[0], 10_000, "8 is less than 9");
        assert_eq!(pair(taking(5_000, 0), taking(5, 6))[1], 10_000);
        assert_eq!(pair(IDLE, Standing { streams: 9, ..IDLE })[0], 10_000);
        // One of them never answered yet: only what is in flight can be compared.
        assert_eq!(pair(taking(50, 0), busy(1))[0], 10_000);
        assert_eq!(pair(taking(50, 1), IDLE)[1], 10_000);
    }

    /// A client's place, and nothing else.
    struct At(u16);

    impl Judge<Member> for At {
        fn place(&self) -> Option<u16> {
            Some(self.0)
        }
        fn key(&self, key: &HashKey) -> Option<u64> {
            AsGiven(None).key(key)
        }
        fn is_able(&self, member: &Member) -> bool {
            AsGiven(None).is_able(member)
        }
        fn in_flight(&self, member: &Member) -> u64 {
            AsGiven(None).in_flight(member)
        }
        fn hash(&self, member: &Member) -> u64 {
            AsGiven(None).hash(member)
        }
        fn standing(&self, member: &Member) -> Standing {
            AsGiven(None).standing(member)
        }
    }

    #[test]
    fn a_client_keeps_its_share_while_the_first_one_grows() {
        let mut new_before = 0;
        for percent in [0, 1, 10, 50, 99, 100] {
            let shares = [by_load(percent, &[(1, Some(IDLE))]), by_load(100 - percent, &[(0, Some(IDLE))])];
            let chosen = |place| choose(&shares, &At(place), 1).map(|member| member.0);
            let new = (0..=u16::MAX).take_while(|place| chosen(*place) == Some(1)).count();
            assert!((new..=usize::from(u16::MAX)).all(|place| chosen(place as u16) == Some(0)), "{percent}");
            assert!(new.abs_diff(65_536 * percent as usize / 100) <= 1, "{percent}: {new}");
            assert!(new >= new_before);
            new_before = new;
        }
    }

    #[test]
    fn who_asked_to_be_left_alone_is_while_there_is_another() {
        let away = Standing { backs_off: true, ..IDLE };
        assert_eq!(pair(away, taking(900, 50))[1], 10_000);
        let both = pair(away, Standing { in_flight: 1, ..away });
        assert_eq!(both[0], 10_000, "when all ask, none is heeded");
        assert_eq!(counts(&[by_load(1, &[(0, Some(away))])])[0], 10_000);
        let alternate = of(1, BalancePolicy::RoundRobin, &[(0, Some(away)), (1, Some(IDLE))]);
        assert_eq!(counts(&[alternate])[1], 10_000);
        let half: Vec<Member> = (0..4).map(|id| (id, Some(if id < 2 { away } else { IDLE }))).collect();
        for policy in [BalancePolicy::PeakEwma, BalancePolicy::RoundRobin] {
            let counts = counts(&[of(1, policy, &half)]);
            assert_eq!((counts[0], counts[1]), (0, 0));
            assert!(counts[2].abs_diff(counts[3]) < 2_000, "the others share it: {counts:?}");
        }
        // More than half ask: the last one is not to carry everything.
        let most: Vec<Member> = (0..4).map(|id| (id, Some(if id < 3 { away } else { IDLE }))).collect();
        let counts = counts(&[by_load(1, &most)]);
        assert!(counts[3] < 7_000, "{counts:?}");
    }

    #[test]
    fn who_starts_slowly_takes_its_part_of_the_draws() {
        for policy in [BalancePolicy::PeakEwma, BalancePolicy::RoundRobin] {
            let starting = Standing { ramp: 200, ..IDLE };
            let counts = counts(&[of(1, policy, &[(0, Some(starting)), (1, Some(IDLE))])]);
            // It takes a fifth of the draws that fall on it, and of two draws half fall on it.
            assert!((850..1_150).contains(&counts[0]), "{counts:?}");
        }
        assert_eq!(counts(&[by_load(1, &[(0, Some(Standing { ramp: 1, ..IDLE }))])])[0], 10_000, "nobody else");
        // Eight join two: they have a tenth of their draws each, whichever two are drawn.
        let joined = |id| (id, Some(Standing { ramp: if id < 2 { RAMP_FULL } else { 100 }, ..IDLE }));
        for policy in [BalancePolicy::PeakEwma, BalancePolicy::RoundRobin] {
            let mut counts = [0_u64; 10];
            let shares = [of(1, policy, &(0..10).map(joined).collect::<Vec<_>>())];
            for seed in 0..10_000 {
                counts[choose(&shares, &AsGiven(None), seed).expect("one").0 as usize] += 1;
            }
            let new: u64 = counts[2..].iter().sum();
            assert!(new < 4_500 && counts[0].abs_diff(counts[1]) < 2_500, "{counts:?}");
        }
    }

    #[test]
    fn a_slow_start_is_even() {
        let at = |seconds| ramp(Duration::from_secs(seconds), Duration::from_secs(10));
        assert_eq!([0, 1, 5, 9, 10, 100].map(at), [100, 100, 500, 900, 1_000, 1_000]);
        assert_eq!(ramp(Duration::ZERO, Duration::ZERO), 100);
    }

    #[test]
    fn in_turn() {
        let members: Vec<Member> = vec![(0, Some(IDLE)), (1, None), (2, Some(busy(9))), (3, Some(IDLE))];
        let shares = [of(1, BalancePolicy::RoundRobin, &members)];
        let order: Vec<u64> =
            (0..6).filter_map(|seed| choose(&shares, &AsGiven(None), seed)).map(|one| one.0).collect();
        assert_eq!(order, [0, 2, 3, 0, 2, 3]);
    }

    fn hashed(members: &[Member], key: u64) -> Option<u64> {
        let shares = [of(1, BalancePolicy::Hash(HashKey::Path), members)];
        choose(&shares, &AsGiven(Some(key)), key).map(|member| member.0)
    }

    #[test]
    fn a_key_stays_with_its_member_and_only_those_of_one_that_goes_move() {
        let four: Vec<Member> = (0..4).map(|id| (id, Some(IDLE))).collect();
        let three: Vec<Member> = four.iter().copied().filter(|(id, _)| *id != 2).collect();
        let mut counts = [0; 4];
        for key in (0..4_000).map(|key: u64| hash(&key.to_be_bytes())) {
            let before = hashed(&four, key).expect("one of them");
            counts[before as usize] += 1;
            assert_eq!(hashed(&four, key), Some(before));
            if before != 2 {
                assert_eq!(hashed(&three, key), Some(before), "its member is still there");
            }
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_member_with_more_than_its_share_passes_a_key_on() {
        let at = |in_flight: [u64; 3]| -> Vec<Member> { (0..).zip(in_flight.map(|n| Some(busy(n)))).collect() };
        let key = 7;
        let own = hashed(&at([0, 0, 0]), key).expect("one of them") as usize;
        // 30 in flight and one more: 1.25 × 31 / 3, rounded up, is 13.
        let with = |own_count| {
            let mut counts = [(30 - own_count) / 2; 3];
            counts[own] = own_count;
            hashed(&at(counts), key).map(|id| id as usize)
        };
        assert_eq!(with(12), Some(own));
        assert_ne!(with(14), Some(own));
        let few = |own_count| {
            let mut counts = [0; 3];
            counts[own] = own_count;
            hashed(&at(counts), key).map(|id| id as usize)
        };
        assert_eq!((few(7), few(9) == Some(own)), (Some(own), false), "a few more than its share are fine");
        let mut starting = at([0, 0, 0]);
        starting[own].1 = Some(Standing { ramp: 0, ..IDLE });
        assert_ne!(hashed(&starting, key), Some(own as u64));
        let mut away = at([0, 0, 0]);
        away[own].1 = Some(Standing { backs_off: true, ..IDLE });
        assert_ne!(hashed(&away, key), Some(own as u64));
    }

    #[test]
    fn a_pool_without_a_usable_member_gives_its_share_to_the_others() {
        let counts = counts(&[by_load(99, &[(0, None)]), by_load(1, &[(1, Some(busy(5)))])]);
        assert_eq!((counts[0], counts[1]), (0, 10_000));
        for none in [vec![], vec![by_load(1, &[(0, None)])], vec![by_load(0, &[(0, Some(IDLE))])]] {
            assert_eq!(choose(&none, &AsGiven(None), 1), None);
        }
    }

    fn standings() -> impl proptest::strategy::Strategy<Value = Option<Standing>> {
        use proptest::prelude::*;
        let standing = (proptest::option::of(0u64..5_000), 0u64..5, 0u16..=RAMP_FULL, any::<bool>(), 0u64..3);
        proptest::option::of(standing.prop_map(|(ms, in_flight, ramp, backs_off, streams)| Standing {
            latency: ms.map(Duration::from_millis),
            in_flight,
            streams,
            ramp,
            backs_off,
        }))
    }

    proptest::proptest! {
        #[test]
        fn one_is_chosen_when_one_may_be_and_never_another(
            given in proptest::collection::vec((0u32..3, 0usize..3, proptest::collection::vec(standings(), 0..5)), 0..4),
            seed: u64,
            key: Option<u64>,
        ) {
            let policies = [BalancePolicy::PeakEwma, BalancePolicy::RoundRobin, BalancePolicy::Hash(HashKey::Path)];
            let shares: Vec<_> = given
                .into_iter()
                .map(|(weight, policy, members)| {
                    of(weight, policies[policy].clone(), &(0..).zip(members).collect::<Vec<_>>())
                })
                .collect();
            let possible = shares.iter().any(|s| s.weight > 0 && s.members.iter().any(|member| member.1.is_some()));
            let chosen = choose(&shares, &AsGiven(key), seed);
            proptest::prop_assert_eq!(chosen.is_some(), possible);
            proptest::prop_assert!(chosen.is_none_or(|member| member.1.is_some()));
        }
    }
}
