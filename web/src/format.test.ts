import { describe, expect, it } from 'vitest';
import * as f from './format';

const table = <T extends readonly unknown[]>(cases: readonly T[], check: (...c: T) => void) => cases.forEach((c) => check(...c));

describe('prices', () => {
  it('shows every digit of a number as it was sent', () => {
    table(
      [
        ['1.348e-05', '0.00001348'],
        ['0.00000001', '0.00000001'],
        ['999999999.99999999', '1000000000'],
        ['123456789.1', '123456789.1'],
        ['99999999.1234567', '99999999.1234567'],
        ['1e21', '1000000000000000000000'],
        ['1.5e22', '15000000000000000000000'],
        ['-2.5e-7', '-0.00000025'],
        ['71200.00000000', '71200'],
        ['0', '0'],
      ],
      (sent, shown) => expect(f.plain(JSON.parse(sent))).toBe(shown),
    );
  });

  it('never differs from the text for up to 15 significant digits', () => {
    let seed = 7;
    for (let i = 0; i < 5000; i++) {
      seed = (seed * 48271) % 2147483647;
      const whole = seed % 10 ** (seed % 8);
      const fraction = String(seed % 10_000_000).replace(/0+$/, '');
      const text = fraction ? `${whole}.${fraction}` : String(whole);
      expect(f.plain(JSON.parse(text))).toBe(text);
    }
  });

  it('writes currencies as their readers do', () => {
    table(
      [
        [71200, 'KRW', '₩71,200'],
        [1_000_000_000, 'KRW', '₩1,000,000,000'],
        [0.5, 'KRW', '₩0.5'],
        [189.5, 'USD', '$189.50'],
        [1234567.891, 'USD', '$1,234,567.891'],
        [0.00001348, 'BTC', 'BTC 0.00001348'],
        [12, null, '12'],
        [-1200.25, 'USD', '$−1,200.25'],
        [NaN, null, '–'],
      ] as const,
      (value, currency, shown) => expect(f.price(value, currency)).toBe(shown),
    );
    expect(f.decimalsOf(189.5, 'USD')).toBe(2);
    expect(f.decimalsOf(0.00001348, null)).toBe(8);
  });

  it('shortens sums and signs changes', () => {
    table([[950, '950'], [12345, '12.3K'], [1050, '1.05K'], [4_560_000, '4.56M'], [7.894e9, '7.89B'], [123e12, '123T'], [0.25, '0.25']] as const, (v, shown) =>
      expect(f.compact(v)).toBe(shown),
    );
    table([[0.0123, '+1.23%'], [-0.5, '−50.00%'], [0, '0.00%'], [-0.00001, '0.00%'], [NaN, '–']] as const, (v, shown) => expect(f.change(v)).toBe(shown));
  });
});

describe('times', () => {
  it('are those of Seoul, across midnight and the year', () => {
    const ms = f.parseTime('2026-12-31T15:00:01.234567Z');
    expect(f.clock(ms)).toBe('00:00:01');
    expect(f.clockMs(ms)).toBe('00:00:01.234');
    expect(f.dateTime(ms)).toBe('2027-01-01 00:00:01');
    expect(f.shortTime(ms, ms + 1000)).toBe('00:00:01');
    expect(f.shortTime(ms, ms + 86_400_000)).toBe('01-01 00:00');
  });

  it('that are none are said to be none', () => {
    expect(f.parseTime(12)).toBeNaN();
    expect(f.clock(NaN)).not.toContain('NaN');
  });

  it('delays have one unit', () => {
    table(
      [[0.0012, '1.2 ms'], [0.012, '12 ms'], [0.999, '999 ms'], [1.26, '1.3 s'], [59, '59 s'], [61, '1 min'], [7300, '2 h'], [200_000, '2 days'], [2.4e8, '7 years'], [-0.02, '−20 ms'], [0, '0 ms'], [null, '–']] as const,
      (v, shown) => expect(f.lag(v)).toBe(shown),
    );
    expect([f.rate(0), f.rate(2.44), f.rate(5012.6)]).toEqual(['0', '2.4', '5,013']);
  });
});
