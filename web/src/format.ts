// How numbers and times are written. Prices show every digit they have: JSON numbers arrive as doubles, whose shortest decimal form is
// exactly what the server sent for up to 15 significant digits. Times are those of the market, Asia/Seoul, which has no summer time.

const MINUS = '−';
const KST_OFFSET_MS = 9 * 3_600_000;

/** The shortest decimal form, never with an exponent. */
export function plain(value: number): string {
  const text = String(value);
  const at = text.indexOf('e');
  if (at < 0) return text;
  const exponent = Number(text.slice(at + 1));
  const negative = text.startsWith('-');
  const [whole = '0', fraction = ''] = text.slice(negative ? 1 : 0, at).split('.');
  const digits = whole + fraction;
  const point = whole.length + exponent;
  const body =
    point <= 0
      ? `0.${'0'.repeat(-point)}${digits}`
      : point >= digits.length
        ? digits + '0'.repeat(point - digits.length)
        : `${digits.slice(0, point)}.${digits.slice(point)}`;
  return negative ? `-${body}` : body;
}

/** Thousands separators for a plain decimal, with at least `decimalsMin` decimals. */
export function grouped(value: number, decimalsMin = 0): string {
  if (!Number.isFinite(value)) return '–';
  const text = plain(Math.abs(value));
  const [whole = '0', fraction = ''] = text.split('.');
  const decimals = fraction.padEnd(decimalsMin, '0');
  const sign = value < 0 ? MINUS : '';
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, ',') + (decimals ? `.${decimals}` : '');
}

/** How many decimals a price has, at least two in currencies that have cents. */
export function decimalsOf(value: number, currency: string | null): number {
  return Math.max(plain(value).split('.')[1]?.length ?? 0, centsOf(currency));
}

export function price(value: number, currency: string | null): string {
  return symbolOf(currency) + grouped(value, centsOf(currency));
}

/** A price without its currency, for columns whose head names it. */
export function priceDigits(value: number, currency: string | null): string {
  return grouped(value, centsOf(currency));
}

export function symbolOf(currency: string | null): string {
  if (currency === 'KRW') return '₩';
  if (currency === 'USD') return '$';
  if (currency === 'JPY') return '¥';
  if (currency === 'EUR') return '€';
  return currency ? `${currency} ` : '';
}

function centsOf(currency: string | null): number {
  return currency === 'USD' || currency === 'EUR' ? 2 : 0;
}

/** Sums that only give an impression: 950, 12.3K, 4.56M, 7.89B, 1.23T. */
export function compact(value: number): string {
  const size = Math.abs(value);
  const units: [number, string][] = [
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'K'],
  ];
  for (const [scale, unit] of units) {
    if (size >= scale) return significant(value / scale) + unit;
  }
  return size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : significant(value);
}

function significant(value: number): string {
  const size = Math.abs(value);
  const text = value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return text.replace('-', MINUS);
}

/** A ratio as signed percent; zero has no sign. */
export function change(ratio: number): string {
  if (!Number.isFinite(ratio)) return '–';
  const text = (Math.abs(ratio) * 100).toFixed(2);
  if (Number(text) === 0) return '0.00%';
  return `${ratio > 0 ? '+' : MINUS}${text}%`;
}

/** Rows per second. */
export function rate(perSecond: number): string {
  return perSecond < 10 && perSecond > 0 ? perSecond.toFixed(1) : grouped(Math.round(perSecond));
}

/** A delay with one unit, as short as it can be understood. A clock that runs behind the source's gives a negative one. */
export function lag(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return '–';
  if (seconds < 0) return seconds > -0.0005 ? '0 ms' : `${MINUS}${lag(-seconds)}`;
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(seconds < 0.00995 && seconds > 0 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3600)} h`;
  if (seconds < 2 * 365 * 86_400) return `${Math.floor(seconds / 86_400)} days`;
  return `${Math.floor(seconds / (365 * 86_400))} years`;
}

/** Milliseconds since the epoch of an RFC 3339 time; NaN when it is none. */
export function parseTime(text: unknown): number {
  return typeof text === 'string' ? Date.parse(text) : NaN;
}

/** `09:30:05` in Seoul. */
export function clock(ms: number): string {
  return seoul(ms).slice(11, 19);
}

/** `09:30:05.123` in Seoul. */
export function clockMs(ms: number): string {
  return seoul(ms).slice(11, 23);
}

/** `2026-11-21 09:30:05` in Seoul. */
export function dateTime(ms: number): string {
  return seoul(ms).slice(0, 19).replace('T', ' ');
}

/** The time alone for today, else the date with it. */
export function shortTime(ms: number, nowMs: number): string {
  const then = seoul(ms);
  return then.slice(0, 10) === seoul(nowMs).slice(0, 10) ? then.slice(11, 19) : `${then.slice(5, 10)} ${then.slice(11, 16)}`;
}

function seoul(ms: number): string {
  return Number.isFinite(ms) ? new Date(ms + KST_OFFSET_MS).toISOString() : '–'.padEnd(24);
}
