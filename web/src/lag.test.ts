import { expect, it } from 'vitest';
import { LagMeter, RateMeter } from './lag';

it('the rate follows the last three seconds', () => {
  const meter = new RateMeter();
  expect(meter.perSecond(0)).toBe(0);
  for (let ms = 100_000; ms < 110_000; ms += 10) meter.add(ms, 50);
  expect(meter.perSecond(110_000)).toBeGreaterThan(4800);
  expect(meter.perSecond(110_000)).toBeLessThan(5300);
  expect(meter.perSecond(111_500)).toBeLessThan(3000);
  expect(meter.perSecond(114_000)).toBe(0);
  meter.add(200_000, 10);
  expect(meter.perSecond(200_000)).toBeLessThan(10);
});

it('a rate just begun is that of its own span', () => {
  const meter = new RateMeter();
  for (let ms = 50_000; ms < 51_000; ms += 100) meter.add(ms, 10);
  expect(meter.perSecond(51_000)).toBeCloseTo(100, 0);
});

it('the lag is the median of recent samples', () => {
  const meter = new LagMeter();
  expect(meter.read(0)).toBeNull();
  for (let i = 0; i < 100; i++) meter.add(1000, i / 1000);
  meter.add(1000, NaN);
  expect(meter.read(1000)).toEqual({ median: 0.05, p95: 0.095 });
  expect(meter.read(7000)).toBeNull();
});
