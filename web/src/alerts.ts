// Alerts: the latest ones by REST, then each new one by SSE. The browser resumes by itself with Last-Event-ID; what comes twice is known
// by its id.

import { isRecord, rowsOf, type Api } from './api';
import { grouped, parseTime } from './format';
import { backoffMs } from './resume';

export const ALERTS_MAX = 100;
const RECENT = '/api/v1/alerts';
const LIVE = '/api/v1/stock/anomaly';

export type Severity = 'low' | 'medium' | 'high' | 'critical';

export interface Alert {
  id: string;
  key: string;
  ms: number;
  stream: string;
  rule: string;
  ruleVersion: string;
  severity: Severity;
  mode: string;
  state: string;
  score: number;
  message: string;
  condition: string;
  evidence: [string, string][];
  thresholds: [string, string][];
  /** `0 / 1234`: partition and offset of the row that fired. */
  place: string;
  firstOffset: string | null;
}

export function readAlert(value: unknown): Alert | null {
  if (!isRecord(value)) return null;
  const text = (name: string) => (value[name] === null || value[name] === undefined ? '' : String(value[name]));
  const ms = parseTime(value['event_time']);
  if (!text('id') || !Number.isFinite(ms)) return null;
  return {
    id: text('id'),
    key: text('key'),
    ms,
    stream: text('stream'),
    rule: text('rule'),
    ruleVersion: text('rule_version'),
    severity: readSeverity(value['severity']),
    mode: text('mode'),
    state: text('state'),
    score: Number(value['score'] ?? NaN),
    message: text('message') || text('condition'),
    condition: text('condition'),
    evidence: readPairs(value['evidence']),
    thresholds: readPairs(value['thresholds']),
    place: `${text('input_partition') || '–'} / ${text('input_offset') || '–'}`,
    firstOffset: text('first_offset') || null,
  };
}

function readSeverity(value: unknown): Severity {
  return value === 'critical' || value === 'high' || value === 'medium' ? value : 'low';
}

/** A JSON object, as text or already parsed, as pairs in their order. Numbers are shown with every digit they have. */
export function readPairs(value: unknown): [string, string][] {
  let object = value;
  if (typeof value === 'string') {
    try {
      object = JSON.parse(value);
    } catch {
      return value ? [['', value]] : [];
    }
  }
  return isRecord(object) ? Object.entries(object).map(([name, v]) => [name, cell(v)]) : [];
}

function cell(value: unknown): string {
  if (typeof value === 'number') return grouped(Number.isInteger(value) ? value : Number(value.toPrecision(12)));
  if (value === null) return 'none';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** Newest first, bounded, each id once. */
export class AlertBook {
  readonly list: Alert[] = [];
  private ids = new Set<string>();

  /** False when it was known, or is older than everything kept. */
  add(alert: Alert): boolean {
    if (this.ids.has(alert.id)) return false;
    let at = this.list.findIndex((other) => other.ms <= alert.ms);
    if (at < 0) at = this.list.length;
    if (at >= ALERTS_MAX) return false;
    this.list.splice(at, 0, alert);
    this.ids.add(alert.id);
    for (const gone of this.list.splice(ALERTS_MAX)) this.ids.delete(gone.id);
    return true;
  }
}

export class AlertFeed {
  private source: EventSource | null = null;
  private n_failures = 0;
  private timer: number | undefined;

  constructor(
    private readonly api: Api,
    private readonly onAlert: (alert: Alert, isLive: boolean) => void,
    private readonly onState: (message: string | null) => void,
  ) {}

  start(): void {
    clearTimeout(this.timer);
    this.source?.close();
    void this.loadRecent();
    const source = new EventSource(this.api.withToken(LIVE));
    this.source = source;
    source.onopen = () => {
      this.n_failures = 0;
      this.onState(null);
    };
    source.addEventListener('anomaly', (event) => this.receive((event as MessageEvent<string>).data));
    source.onerror = () => this.failed(source);
  }

  private async loadRecent(): Promise<void> {
    try {
      for (const row of rowsOf(await this.api.get(RECENT, { limit: 50 }))) {
        const alert = readAlert(row);
        if (alert) this.onAlert(alert, false);
      }
    } catch (error) {
      this.onState(`Earlier alerts could not be read: ${error instanceof Error ? error.message : String(error)}.`);
    }
  }

  private receive(data: string): void {
    let row: unknown = null;
    try {
      row = JSON.parse(data);
    } catch {
      // A frame that is no JSON is no alert; the next one may be.
    }
    const alert = readAlert(row);
    if (alert) this.onAlert(alert, true);
  }

  /** While CONNECTING the browser retries by itself; CLOSED means it gave up, so we begin anew and read what was missed. */
  private failed(source: EventSource): void {
    if (source !== this.source) return;
    this.onState('Alerts are reconnecting…');
    if (source.readyState !== EventSource.CLOSED) return;
    this.n_failures += 1;
    this.timer = window.setTimeout(() => this.start(), backoffMs(this.n_failures, Math.random()));
  }
}
