//! Order statistics of small samples.

use serde::Serialize;

/// Smallest, middle and largest of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// Smallest.
    pub(crate) min: f64,
    /// Median (mean of the two middle ones of an even sample).
    pub(crate) median: f64,
    /// Largest.
    pub(crate) max: f64,
}

/// The `q` quantile (0..=1) of `values` by nearest rank; `NaN` for an empty sample.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Median of `values`; `NaN` for an empty sample.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Spread of a sample.
pub(crate) fn spread(values: &[f64]) -> Spread {
    Spread {
        min: quantile(values, 0.0),
        median: median(values),
        max: quantile(values, 1.0),
    }
}

/// Ratios `ours[i] / other[i]`.
pub(crate) fn ratios(ours: &[f64], other: &[f64]) -> Vec<f64> {
    ours.iter().zip(other).map(|(a, b)| a / b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_even_sample_is_the_mean_of_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn quantile_is_nearest_rank() {
        let sample: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (quantile(&sample, 0.5), quantile(&sample, 0.99)),
            (50.0, 99.0)
        );
        assert_eq!(
            (quantile(&sample, 0.0), quantile(&sample, 1.0)),
            (1.0, 100.0)
        );
    }

    #[test]
    fn ratios_are_paired() {
        assert_eq!(ratios(&[1.0, 6.0], &[2.0, 3.0]), vec![0.5, 2.0]);
    }
}
