//! Log-uniform prices, from multiplications and additions only, so that they are the same on every machine.

use super::rng::Rng;

/// log2(10^6): a price spans six powers of ten.
const SPAN_LOG2: f64 = 19.931_568_569_324_174;
/// The Taylor coefficients of 2^f, ln(2)^k / k!.
const EXP2: [f64; 14] = coefficients();

const fn coefficients() -> [f64; 14] {
    let mut terms = [1.0; 14];
    let mut k = 1;
    while k < terms.len() {
        terms[k] = terms[k - 1] * std::f64::consts::LN_2 / k as f64;
        k += 1;
    }
    terms
}

/// 2^x for x in `[0, 1000]`, to about 12 digits, with no call of the system's mathematical library.
#[inline]
fn exp2(x: f64) -> f64 {
    let whole = x as u64;
    let rest = x - whole as f64;
    let square = rest * rest;
    let fourth = square * square;
    let pair = |k: usize| EXP2[k] + EXP2[k + 1] * rest;
    let quad = |k: usize| pair(k) + pair(k + 2) * square;
    let power = quad(0) + fourth * (quad(4) + fourth * (quad(8) + fourth * pair(12)));
    power * f64::from_bits((1023 + whole) << 52)
}

/// A price in cents: 100 times ten to a uniform power in `[0, 6)`, rounded.
#[inline]
pub fn price_cents(rng: &mut Rng) -> u64 {
    (exp2(rng.unit() * SPAN_LOG2) * 100.0 + 0.5) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nexmark::rng::Streams;

    #[test]
    fn when_compared_with_the_system_library_then_powers_agree() {
        for step in 0..20_000 {
            let x = step as f64 / 1000.0;
            assert!((exp2(x) / x.exp2() - 1.0).abs() < 1e-11, "2^{x}");
        }
    }

    #[test]
    fn when_prices_are_drawn_then_each_power_of_ten_is_equally_likely() {
        let mut rng = Streams::new(6, 0).stream(0);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            let price = price_cents(&mut rng);
            assert!((100..=100_000_000).contains(&price), "{price}");
            counts[(price.ilog10() as usize - 2).min(5)] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }
}
