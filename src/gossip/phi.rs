//! How suspicious a silence is: the phi-accrual failure detector.
//!
//! Hayashibara, Défago, Yared, Katayama: *The φ Accrual Failure Detector*, 2004. The times between
//! answers are taken for normally distributed; phi is minus the decimal logarithm of the chance that
//! a silence as long as this one is followed by an answer.

use super::Settings;
use std::time::Duration;

/// Intervals that are remembered.
const WINDOW: usize = 64;

/// What one watched node's answers were like.
#[derive(Clone, Debug)]
pub struct Detector {
    intervals: [f32; WINDOW],
    used: usize,
    next: usize,
    heard: Duration,
}

impl Detector {
    /// Begins to watch; the first answer is expected within a usual time.
    pub fn new(now: Duration) -> Self {
        Self { intervals: [0.0; WINDOW], used: 0, next: 0, heard: now }
    }

    /// Notes an answer.
    pub fn hear(&mut self, now: Duration) {
        self.intervals[self.next] = now.saturating_sub(self.heard).as_secs_f32();
        self.next = (self.next + 1) % WINDOW;
        self.used = (self.used + 1).min(WINDOW);
        self.heard = self.heard.max(now);
    }

    /// Nobody is missed, though no answer came: the silence was one that ends well, and such ones are
    /// reckoned with from now on.
    pub fn excuse(&mut self, settings: &Settings, now: Duration) {
        self.heard = self.heard.max(now.saturating_sub(settings.silence_max));
        self.hear(now);
    }

    /// Takes time out of the silence in which this node itself did not run.
    pub fn forgive(&mut self, time: Duration) {
        self.heard += time;
    }

    /// Mean and deviation of the intervals in seconds, never below what the settings reckon with.
    fn usual(&self, settings: &Settings) -> (f64, f64) {
        let known = &self.intervals[..self.used];
        let count = self.used.max(1) as f64;
        let mean = known.iter().map(|interval| f64::from(*interval)).sum::<f64>() / count;
        let squares = known.iter().map(|interval| (f64::from(*interval) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        let mean = mean.max(settings.interval.as_secs_f64());
        (mean, deviation.max(settings.deviation_min.as_secs_f64()))
    }

    /// How suspicious the silence is by now.
    pub fn phi(&self, settings: &Settings, now: Duration) -> f64 {
        let (mean, deviation) = self.usual(settings);
        let silence = now.saturating_sub(self.heard).as_secs_f64();
        let late = (silence - mean - settings.pause.as_secs_f64()) / deviation;
        // An approximation of the normal distribution's tail, by the logistic one.
        let exponent = late * (1.5976 + 0.070_566 * late * late);
        // ln(1 + e^x), which does not overflow.
        let softplus = exponent.max(0.0) + (-exponent.abs()).exp().ln_1p();
        softplus / std::f64::consts::LN_10
    }

    /// Whether the silence, a number of times as long as would do, is an accusation.
    pub fn accuses(&self, settings: &Settings, now: Duration, patience: u32) -> bool {
        let silence = now.saturating_sub(self.heard);
        let judged = self.heard + silence / patience.max(1);
        // One accusation that was refuted may have been a stall, after which it died at once.
        let longest = if patience <= 2 { silence } else { silence / patience };
        longest >= settings.silence_max || self.phi(settings, judged) >= settings.phi
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard_every(interval_ms: u64, jitter_ms: u64) -> (Detector, Duration) {
        let mut now = Duration::from_secs(1);
        let mut detector = Detector::new(now);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            now += Duration::from_millis(interval_ms + rng.u64(0..=jitter_ms));
            detector.hear(now);
        }
        (detector, now)
    }

    fn accused_after(detector: &Detector, now: Duration, patience: u32) -> Duration {
        let settings = Settings::default();
        (0..20_000)
            .map(Duration::from_millis)
            .find(|silence| detector.accuses(&settings, now + *silence, patience))
            .expect("a silence of 20 s is suspicious")
    }

    #[test]
    fn a_silence_is_more_suspicious_the_more_regular_the_answers_were() {
        let (steady, now) = heard_every(100, 10);
        let after = accused_after(&steady, now, 1);
        assert!((400..900).contains(&after.as_millis()), "{after:?}");
        let (unsteady, now) = heard_every(100, 600);
        let later = accused_after(&unsteady, now, 1);
        assert!(later > after + Duration::from_millis(300), "{later:?}, {after:?}");
        assert_eq!(later, Settings::default().silence_max);
    }

    #[test]
    fn phi_grows_with_the_silence_and_has_no_end() {
        let (detector, now) = heard_every(100, 50);
        let settings = Settings::default();
        let phi = |ms| detector.phi(&settings, now + Duration::from_millis(ms));
        assert!(phi(0) < 0.1, "{}", phi(0));
        for pair in [0, 100, 200, 400, 800, 1_600, 100_000, 10_000_000].windows(2) {
            assert!(phi(pair[1]) > phi(pair[0]) && phi(pair[1]).is_finite(), "{pair:?}");
        }
    }

    #[test]
    fn patience_multiplies_the_silence_and_time_that_is_forgiven_does_not_count() {
        let (mut detector, now) = heard_every(100, 10);
        let after = accused_after(&detector, now, 1);
        let patient = accused_after(&detector, now, 4);
        assert!(patient >= 4 * after - Duration::from_millis(4), "{patient:?}, {after:?}");
        detector.forgive(Duration::from_secs(5));
        assert!(!detector.accuses(&Settings::default(), now + Duration::from_secs(5), 1));
    }
}
