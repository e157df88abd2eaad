//! The network between replicas and clients: it loses, repeats, delays and reorders, and parts of it are
//! cut off from others for a time.

use std::collections::BTreeMap;

/// How badly it does.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Messages of a thousand that are lost.
    pub lost: u32,
    /// Messages of a thousand that come twice.
    pub twice: u32,
    /// The shortest time under way, microseconds.
    pub delay_us_min: u64,
    /// The longest time under way, microseconds.
    pub delay_us_max: u64,
    /// Messages of a thousand that take up to a hundred times as long.
    pub late: u32,
}

impl Weather {
    /// Nothing is lost, nothing is late.
    pub const FAIR: Self =
        Self { lost: 0, twice: 0, delay_us_min: 100, delay_us_max: 400, late: 0 };

    /// What it is like in a run.
    pub fn random(rng: &mut fastrand::Rng) -> Self {
        let mut often = |most: u32| if rng.u32(..3) == 0 { 0 } else { rng.u32(1..=most) };
        let (lost, twice, late) = (often(150), often(100), often(30));
        let delay_us_min = rng.u64(20..1_000);
        let delay_us_max = delay_us_min + rng.u64(1..20_000);
        Self { lost, twice, delay_us_min, delay_us_max, late }
    }
}

/// The ways between all that have an address.
pub struct Network {
    rng: fastrand::Rng,
    weather: Weather,
    /// Until when nothing gets from one address to another, microseconds.
    cut_until_us: BTreeMap<(u64, u64), u64>,
}

impl Network {
    /// A network whose ways are all open.
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), weather, cut_until_us: BTreeMap::new() }
    }

    /// Everything gets through from now on.
    pub fn heal(&mut self) {
        self.weather = Weather::FAIR;
        self.cut_until_us.clear();
    }

    /// Nothing gets from one address to another until then.
    pub fn cut(&mut self, from: u64, to: u64, until_us: u64) {
        let until = self.cut_until_us.entry((from, to)).or_default();
        *until = until_us.max(*until);
    }

    /// When what is sent now arrives: never, once or more often.
    pub fn arrivals(&mut self, now_us: u64, from: u64, to: u64) -> impl Iterator<Item = u64> {
        let is_cut = self.cut_until_us.get(&(from, to)).is_some_and(|until| *until > now_us);
        let chance = self.rng.u32(..1_000);
        let times = match chance {
            _ if is_cut => 0,
            chance if chance < self.weather.lost => 0,
            chance if chance < self.weather.lost + self.weather.twice => 2,
            _ => 1,
        };
        let mut due = [0; 2];
        for due in &mut due[..times] {
            let Weather { delay_us_min, delay_us_max, late, .. } = self.weather;
            let most = match self.rng.u32(..1_000) < late {
                true => delay_us_max * 100,
                false => delay_us_max,
            };
            *due = now_us + self.rng.u64(delay_us_min..=most);
        }
        due.into_iter().take(times)
    }
}
