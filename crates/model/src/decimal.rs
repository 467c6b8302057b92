//! Exact decimals as scaled 128-bit integers: the value is `unscaled / 10^scale`, the same layout as Arrow's `Decimal128`.

use crate::time::shorten;
use arrow::datatypes::i256;

/// The most digits a decimal can have.
pub const PRECISION_MAX: u8 = 38;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    #[error("'{0}' is not a number")]
    Format(String),
    #[error("{0} has more than {1} decimals: widen the column's scale, or send fewer decimals")]
    Scale(String, i8),
    #[error("{0} does not fit into decimal({1}, {2})")]
    Range(String, u8, i8),
}

/// Ten to the power of `n`, for n up to 38.
pub const fn pow10(n: u32) -> i128 {
    10i128.pow(n)
}

/// Reads `12`, `-0.5`, `1.348e-05`, `+3E2` exactly into `decimal(precision, scale)`. Digits that the scale cannot hold are an error
/// unless they are zeros: nothing is ever rounded on the way in.
pub fn parse(text: &str, precision: u8, scale: i8) -> Result<i128, DecimalError> {
    let format = || DecimalError::Format(shorten(text));
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = unsigned.split_at(unsigned.find(['e', 'E']).unwrap_or(unsigned.len()));
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + decimals.len() == 0 || !all_digits(whole) || !all_digits(decimals) {
        return Err(format());
    }
    let exponent = parse_exponent(exponent).ok_or_else(format)?;
    let decimals = decimals.trim_end_matches('0');
    let mut value = 0i128;
    for digit in whole.bytes().chain(decimals.bytes()) {
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i128::from(digit - b'0')))
            .ok_or_else(|| DecimalError::Range(shorten(text), precision, scale))?;
    }
    rescale(value, decimals.len() as i64 - exponent, negative, text, precision, scale)
}

/// `e-05` -> -5, an empty tail -> 0. Exponents beyond any decimal's reach are clamped: they fail as out of range later, or are zero.
fn parse_exponent(tail: &str) -> Option<i64> {
    if tail.is_empty() {
        return Some(0);
    }
    let digits = &tail[1..];
    let n_digits = digits.trim_start_matches(['+', '-']);
    if n_digits.is_empty() || !n_digits.bytes().all(|b| b.is_ascii_digit()) || digits.len() - n_digits.len() > 1 {
        return None;
    }
    Some(digits.parse::<i64>().unwrap_or(if digits.starts_with('-') { -10_000 } else { 10_000 }).clamp(-10_000, 10_000))
}

fn rescale(value: i128, n_decimals: i64, negative: bool, text: &str, precision: u8, scale: i8) -> Result<i128, DecimalError> {
    let range = || DecimalError::Range(shorten(text), precision, scale);
    if value == 0 {
        return Ok(0);
    }
    let shift = i64::from(scale) - n_decimals;
    let unscaled = if shift >= 0 {
        let shift = u32::try_from(shift).ok().filter(|s| *s <= u32::from(PRECISION_MAX)).ok_or_else(range)?;
        value.checked_mul(pow10(shift)).ok_or_else(range)?
    } else {
        let too_fine = || DecimalError::Scale(shorten(text), scale);
        let shift = u32::try_from(-shift).ok().filter(|s| *s <= u32::from(PRECISION_MAX)).ok_or_else(too_fine)?;
        if value % pow10(shift) != 0 {
            return Err(too_fine());
        }
        value / pow10(shift)
    };
    if unscaled >= pow10(u32::from(precision.min(PRECISION_MAX))) {
        return Err(range());
    }
    Ok(if negative { -unscaled } else { unscaled })
}

/// Writes the exact value without trailing zeros after the point: `71500`, `0.00001348`.
pub fn format(unscaled: i128, scale: i8) -> String {
    let mut out = String::with_capacity(24);
    write(&mut out, unscaled, scale);
    out
}

/// As [`format`], appended to `out`.
pub fn write(out: &mut String, unscaled: i128, scale: i8) {
    use std::fmt::Write;
    let scale = u32::try_from(scale).unwrap_or(0).min(u32::from(PRECISION_MAX));
    let (magnitude, one) = (unscaled.unsigned_abs(), pow10(scale).unsigned_abs());
    if unscaled < 0 {
        out.push('-');
    }
    let (whole, mut fraction) = (magnitude / one, magnitude % one);
    write!(out, "{whole}").expect("writing to a String cannot fail");
    if fraction == 0 {
        return;
    }
    let mut width = scale as usize;
    while fraction % 10 == 0 {
        fraction /= 10;
        width -= 1;
    }
    write!(out, ".{fraction:0width$}").expect("writing to a String cannot fail");
}

/// `numerator / denominator` at `scale`, rounded half to even; both have their own scales. None when the denominator is zero or the
/// result does not fit.
pub fn divide(numerator: i128, numerator_scale: i8, denominator: i128, denominator_scale: i8, scale: i8) -> Option<i128> {
    let shift = i32::from(scale) + i32::from(denominator_scale) - i32::from(numerator_scale);
    let (up, down) = (10i128.checked_pow(shift.max(0).unsigned_abs())?, 10i128.checked_pow(shift.min(0).unsigned_abs())?);
    let (Some(num), Some(den)) = (numerator.checked_mul(up), denominator.checked_mul(down)) else {
        return divide_wide((numerator, up), (denominator, down));
    };
    if den == 0 {
        return None;
    }
    let (quotient, rest) = (num / den, num % den);
    // Both are below 2^127, so that twice the rest fits.
    let up = match (2 * rest.unsigned_abs()).cmp(&den.unsigned_abs()) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    let away = if (num < 0) == (den < 0) { 1 } else { -1 };
    within_38_digits(if up { quotient + away } else { quotient })
}

/// As [`divide`], for products that need more than 128 bits on the way to a result that does not.
fn divide_wide(numerator: (i128, i128), denominator: (i128, i128)) -> Option<i128> {
    let product = |(a, b): (i128, i128)| i256::from_i128(a).wrapping_mul(i256::from_i128(b));
    let (num, den) = (product(numerator), product(denominator));
    let (quotient, rest) = (num.checked_div(den)?, num.checked_rem(den)?);
    let twice = rest.wrapping_abs().wrapping_mul(i256::from_i128(2));
    let odd = quotient.to_i128()? % 2 != 0;
    let away = if num.is_negative() == den.is_negative() { 1 } else { -1 };
    let up = twice > den.wrapping_abs() || (twice == den.wrapping_abs() && odd);
    within_38_digits(quotient.to_i128()?.checked_add(if up { away } else { 0 })?)
}

fn within_38_digits(n: i128) -> Option<i128> {
    (n.unsigned_abs() < pow10(PRECISION_MAX.into()).unsigned_abs()).then_some(n)
}

/// The nearest float: for ratios and statistics only.
pub fn to_f64(unscaled: i128, scale: i8) -> f64 {
    unscaled as f64 / 10f64.powi(i32::from(scale))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_exactly() {
        let check =
            |text: &str, want: &str| assert_eq!(parse(text, 18, 8).map_or_else(|e| e.to_string(), |v| format(v, 8)), want, "{text}");
        check("1.348e-05", "0.00001348");
        check("71500", "71500");
        check("71500.00", "71500");
        check("-0.5", "-0.5");
        check("+3E2", "300");
        check("100200300", "100200300");
        check("1001.0010", "1001.001");
        check("10.0", "10");
        check("0", "0");
        check("0.000000000000", "0");
        check("-0", "0");
        check("1e-8", "0.00000001");
        check("1.50e1", "15");
        check("1200e-2", "12");
        check("0.00000001000000000000", "0.00000001");
        check("1e-9", "1e-9 has more than 8 decimals: widen the column's scale, or send fewer decimals");
        check("12345678901", "12345678901 does not fit into decimal(18, 8)");
        check("1e400", "1e400 does not fit into decimal(18, 8)");
        check(
            "1e-99999999999999999999",
            "1e-99999999999999999999 has more than 8 decimals: widen the column's scale, or send fewer decimals",
        );
        check(&"9".repeat(40), &format!("{} does not fit into decimal(18, 8)", "9".repeat(40)));
        for bad in ["", "-", ".", "e5", "1e", "1e+-2", "NaN", "inf", "1_000", "1,5", "0x10", " 1", "1.2.3", "--1"] {
            assert_eq!(parse(bad, 18, 8), Err(DecimalError::Format(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn divides_half_to_even() {
        assert_eq!(divide(1, 0, 3, 0, 4), Some(3333));
        assert_eq!(divide(5, 0, 2, 0, 0), Some(2));
        assert_eq!(divide(7, 0, 2, 0, 0), Some(4));
        assert_eq!(divide(-5, 0, 2, 0, 0), Some(-2));
        assert_eq!(divide(-7, 0, 2, 0, 0), Some(-4));
        assert_eq!(divide(100, 2, 1, 0, 0), Some(1));
        assert_eq!(divide(1, 0, 0, 0, 4), None);
    }

    proptest! {
        #[test]
        fn format_then_parse_is_identity(v in -999_999_999_999_999_999i128..=999_999_999_999_999_999, scale in 0i8..=12) {
            prop_assert_eq!(parse(&format(v, scale), 18, scale), Ok(v));
        }

        #[test]
        fn never_panics(text in "[-+0-9.eE]{0,50}") {
            let _ = parse(&text, 18, 8);
        }

        #[test]
        fn agrees_with_plain_arithmetic(whole in 0u32..1_000_000, decimals in "[0-9]{0,6}", exponent in -2i32..3) {
            let n: i128 = format!("{whole}{decimals}").parse().unwrap();
            let want = n * pow10((8 - decimals.len() as i32 + exponent) as u32);
            prop_assert_eq!(parse(&format!("{whole}.{decimals}e{exponent}"), 38, 8), Ok(want));
        }
    }
}
