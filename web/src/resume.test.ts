import { describe, expect, it } from 'vitest';
import { BACKOFF_MAX_MS, backoffMs, Place, RESUME_MAX_MS } from './resume';

describe('place', () => {
  it('the first subscription starts at the end and is no gap', () => {
    const place = new Place();
    expect(place.resumeToken(0)).toBeNull();
    expect(place.acknowledged('e1', true, false)).toEqual({ gap: false });
  });

  it('resumes with the last cursor', () => {
    const place = new Place();
    place.acknowledged('e1', true, false);
    place.advance('a', 1000);
    place.advance('b', 2000);
    place.advance(undefined, 3000);
    expect(place.resumeToken(2500)).toBe('b');
    expect(place.acknowledged('e1', true, true)).toEqual({ gap: false });
    expect(place.resumeToken(2500)).toBe('b');
  });

  it.each([
    ['the server could not continue', 'e1', false, true],
    ['the log is another one', 'e2', true, true],
    ['it did not ask to continue', 'e1', true, false],
  ])('a gap: %s', (_, epoch, recovered, asked) => {
    const place = new Place();
    place.acknowledged('e1', true, false);
    place.advance('a', 0);
    expect(place.acknowledged(epoch, recovered, asked)).toEqual({ gap: true });
    expect(place.resumeToken(0)).toBeNull();
    expect(place.acknowledged(epoch, true, true)).toEqual({ gap: false });
  });

  it('a server that says neither epoch nor recovery is believed', () => {
    const place = new Place();
    place.acknowledged('e1', undefined, false);
    expect(place.acknowledged('e1', undefined, true)).toEqual({ gap: false });
  });

  it('an old place is not worth catching up from', () => {
    const place = new Place();
    place.advance('a', 0);
    expect(place.resumeToken(RESUME_MAX_MS)).toBe('a');
    expect(place.resumeToken(RESUME_MAX_MS + 1)).toBeNull();
  });

  it('a refused token is forgotten', () => {
    const place = new Place();
    place.advance('a', 0);
    place.forget();
    expect(place.resumeToken(0)).toBeNull();
  });
});

it('waits double, are bounded and spread', () => {
  expect([1, 2, 3, 4, 99].map((n) => backoffMs(n, 0.5))).toEqual([500, 1000, 2000, 4000, BACKOFF_MAX_MS]);
  expect([backoffMs(1, 0), backoffMs(1, 0.999)]).toEqual([375, 625]);
  expect(backoffMs(0, 0.5)).toBe(500);
});
