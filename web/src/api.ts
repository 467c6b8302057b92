// The REST side: one small client that knows the key and turns problem documents into errors a person can read.

const KEY_SLOT = 'mulgil.key';
const TIMEOUT_MS = 10_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }

  /** The request needs a key, or one that may do more. */
  get isRefused(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

export class Api {
  /** Kept for this tab only, so that a key does not outlive the visit. */
  get key(): string | null {
    return sessionStorage.getItem(KEY_SLOT);
  }

  set key(value: string | null) {
    if (value) sessionStorage.setItem(KEY_SLOT, value);
    else sessionStorage.removeItem(KEY_SLOT);
  }

  get(path: string, query: Record<string, string | number> = {}): Promise<unknown> {
    const text = new URLSearchParams(Object.entries(query).map(([k, v]) => [k, String(v)])).toString();
    return this.ask(text ? `${path}?${text}` : path, { method: 'GET' });
  }

  post(path: string, body: unknown): Promise<unknown> {
    return this.ask(path, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
  }

  /** For WebSocket and SSE, whose browser interfaces cannot send headers. */
  withToken(path: string): string {
    return this.key ? `${path}${path.includes('?') ? '&' : '?'}access_token=${encodeURIComponent(this.key)}` : path;
  }

  socketUrl(path: string): string {
    const url = new URL(this.withToken(path), location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    return url.href;
  }

  private async ask(path: string, init: RequestInit): Promise<unknown> {
    const headers = new Headers(init.headers);
    headers.set('accept', 'application/json');
    if (this.key) headers.set('authorization', `Bearer ${this.key}`);
    const answer = await fetch(path, { ...init, headers, cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
    const body: unknown = await answer.json().catch(() => null);
    // `/health/ready` says why it is not ready with a 503 and the same body.
    const isHealth = answer.status === 503 && isRecord(body) && 'checks' in body;
    if (!answer.ok && !isHealth) throw new ApiError(answer.status, problemText(body, answer.status));
    return body;
  }
}

/** RFC 9457: `detail` says most, `title` is the kind. */
function problemText(body: unknown, status: number): string {
  if (isRecord(body)) {
    for (const field of ['detail', 'title', 'message']) {
      const text = body[field];
      if (typeof text === 'string' && text) return text;
    }
  }
  return `the server answered ${status}`;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The rows of an answer, whether it is a list or wraps one. */
export function rowsOf(body: unknown): Record<string, unknown>[] {
  const list = Array.isArray(body) ? body : isRecord(body) ? (body['data'] ?? body['rows'] ?? body['streams'] ?? body['alerts'] ?? body['lag']) : [];
  return Array.isArray(list) ? list.filter(isRecord) : [];
}
