// What to say to the server after a connection was lost, and how long to wait before. Pure: the socket asks, this file answers.

/** Beyond this a client does better to start anew and read history than to receive everything it missed. */
export const RESUME_MAX_MS = 60_000;
export const BACKOFF_FIRST_MS = 500;
export const BACKOFF_MAX_MS = 15_000;

/** One subscription's place in its streams. */
export class Place {
  private cursor: string | null = null;
  private epoch: string | null = null;
  private seenMs = -Infinity;

  /** The token to resume with, or null to start at the end of the stream. */
  resumeToken(nowMs: number): string | null {
    return this.cursor !== null && nowMs - this.seenMs <= RESUME_MAX_MS ? this.cursor : null;
  }

  advance(cursor: unknown, nowMs: number): void {
    if (typeof cursor !== 'string' || cursor === '') return;
    this.cursor = cursor;
    this.seenMs = nowMs;
  }

  /** The server refused the token, or it lies in another epoch: it is worth nothing any more. */
  forget(): void {
    this.cursor = null;
  }

  /**
   * The server's acknowledgement. `gap` is true when rows may be missing on the page: it asked to continue and could not, or it had been
   * running and started anew. History must then be read again.
   */
  acknowledged(epoch: unknown, recovered: unknown, askedToResume: boolean): { gap: boolean } {
    const next = typeof epoch === 'string' ? epoch : null;
    const known = this.epoch !== null;
    const moved = known && next !== this.epoch;
    this.epoch = next ?? this.epoch;
    const continued = askedToResume && !moved && recovered !== false;
    if (known && !continued) this.forget();
    return { gap: known && !continued };
  }
}

/** Waits double from half a second to fifteen; `spread` in [0, 1) keeps many clients from coming back at once. */
export function backoffMs(n_failures: number, spread: number): number {
  const full = Math.min(BACKOFF_FIRST_MS * 2 ** Math.max(0, n_failures - 1), BACKOFF_MAX_MS);
  return Math.round(full * (0.75 + 0.5 * spread));
}
