// Meters: how many rows a second arrive, and how old they are when they do. Pure: the clock is an argument.

const SLOT_MS = 250;
const SLOTS = 12;

/** Rows per second over the last three seconds. */
export class RateMeter {
  private counts = new Array<number>(SLOTS).fill(0);
  private slot = -1;
  private since = NaN;

  add(nowMs: number, n = 1): void {
    this.advance(nowMs);
    this.counts[this.slot % SLOTS]! += n;
  }

  perSecond(nowMs: number): number {
    if (Number.isNaN(this.since)) return 0;
    this.advance(nowMs);
    const total = this.counts.reduce((a, b) => a + b, 0);
    const spanMs = Math.min(nowMs - this.since, (SLOTS - 1) * SLOT_MS + (nowMs % SLOT_MS));
    return spanMs < SLOT_MS ? 0 : (total * 1000) / spanMs;
  }

  private advance(nowMs: number): void {
    const slot = Math.floor(nowMs / SLOT_MS);
    if (Number.isNaN(this.since)) {
      this.since = nowMs;
      this.slot = slot;
    }
    const steps = Math.min(slot - this.slot, SLOTS);
    for (let i = 1; i <= steps; i++) this.counts[(slot - steps + i) % SLOTS] = 0;
    if (slot > this.slot) this.slot = slot;
  }
}

const SAMPLES = 256;
const SAMPLE_AGE_MS = 5000;

/** Median and 95th percentile of recent delays; null when none is recent. One sample a frame is enough. */
export class LagMeter {
  private at = new Float64Array(SAMPLES).fill(-Infinity);
  private seconds = new Float64Array(SAMPLES);
  private next = 0;

  add(nowMs: number, seconds: number): void {
    if (!Number.isFinite(seconds)) return;
    this.at[this.next] = nowMs;
    this.seconds[this.next] = seconds;
    this.next = (this.next + 1) % SAMPLES;
  }

  read(nowMs: number): { median: number; p95: number } | null {
    const recent = [...this.seconds].filter((_, i) => nowMs - this.at[i]! <= SAMPLE_AGE_MS).sort((a, b) => a - b);
    if (recent.length === 0) return null;
    const at = (share: number) => recent[Math.min(recent.length - 1, Math.floor(share * recent.length))]!;
    return { median: at(0.5), p95: at(0.95) };
  }
}
