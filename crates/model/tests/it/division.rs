//! Division of decimals against long division by hand, digit by digit, up to the limits of 38 digits.

use mulgil_model::decimal::{divide, pow10};
use proptest::prelude::*;

/// The whole part and `n_digits` behind it, half to even, as decimal digits; None beyond 38 of them.
fn by_hand(numerator: i128, denominator: i128, n_digits: u32) -> Option<i128> {
    if denominator == 0 {
        return None;
    }
    let (num, den) = (numerator.unsigned_abs(), denominator.unsigned_abs());
    let (mut result, mut rest) = (num / den, num % den);
    for _ in 0..n_digits {
        result = result.checked_mul(10)?.checked_add(rest * 10 / den)?;
        rest = rest * 10 % den;
    }
    let up = rest * 2 > den || (rest * 2 == den && result % 2 == 1);
    let result = i128::try_from(result + u128::from(up)).ok()?;
    let negative = (numerator < 0) != (denominator < 0);
    (result < pow10(38)).then_some(if negative { -result } else { result })
}

fn any_number() -> impl Strategy<Value = i128> {
    let limit = pow10(37);
    prop_oneof![-1_000i128..1_000, -limit..limit, limit - 9..limit, 1 - limit..9 - limit, (0u32..37).prop_map(pow10)]
}

proptest! {
    #[test]
    fn equals_long_division(numerator in any_number(), denominator in any_number(), n_digits in 0u32..13, scale in 0i8..9) {
        let got = divide(numerator, scale, denominator, 0, scale + n_digits as i8);
        prop_assert_eq!(got, by_hand(numerator, denominator, n_digits));
    }
}
