// The strip that shows the water's course: source, log, engine, history, client; for each whether it is well, and how far behind the
// trades' own time it is. Every figure is optional: what the server does not tell is left out.

import { isRecord, rowsOf, type Api } from './api';
import { el, setText } from './dom';
import { lag, rate } from './format';

export type Hop = 'source' | 'log' | 'engine' | 'history' | 'client';
const HOPS: readonly Hop[] = ['source', 'log', 'engine', 'history', 'client'];

const ASK_EVERY_MS = 2000;

/** Which hop a check or a lag figure belongs to, by the words of its name. */
const WORDS: readonly [Hop, RegExp][] = [
  ['history', /histor|parquet/],
  ['engine', /engine|shard|process|detect|bar|alert/],
  ['client', /client|deliver|serve/],
  ['log', /log|journal|append|disk|commit/],
  ['source', /sourc|simul|generat|receiv|ingest/],
];

export function hopOf(name: string): Hop | null {
  return WORDS.find(([, words]) => words.test(name.toLowerCase()))?.[0] ?? null;
}

export interface Check {
  name: string;
  ok: boolean;
  detail: string;
}

export function readReadiness(body: unknown): { ready: boolean; checks: Check[] } {
  const checks = rowsOf(isRecord(body) ? body['checks'] : null).map((c) => ({
    name: String(c['name'] ?? ''),
    ok: c['ok'] === true,
    detail: String(c['detail'] ?? ''),
  }));
  return { ready: isRecord(body) && (body['status'] === 'ready' || body['ready'] === true), checks };
}

/** Rows ever committed, by kind of stream: the sums of the next offsets. */
export function readTotals(body: unknown): Map<string, number> {
  const totals = new Map<string, number>();
  for (const stream of rowsOf(body)) {
    const kind = String(stream['kind'] ?? '');
    const next = rowsOf(stream['partitions']).reduce((sum, p) => sum + Number(p['next'] ?? 0), 0);
    totals.set(kind, (totals.get(kind) ?? 0) + next);
  }
  return totals;
}

/** The largest lag of the trade stream per hop; of any stream where trades are not told. */
export function readLags(body: unknown): Map<Hop, number> {
  const rows = rowsOf(body);
  const own = rows.filter((r) => r['stream'] === 'trades');
  const lags = new Map<Hop, number>();
  for (const r of own.length > 0 ? own : rows) {
    const hop = hopOf(String(r['hop'] ?? ''));
    const seconds = Number(r['seconds'] ?? NaN);
    if (hop && Number.isFinite(seconds)) lags.set(hop, Math.max(lags.get(hop) ?? -Infinity, seconds));
  }
  return lags;
}

interface Node {
  root: HTMLElement;
  value: HTMLElement;
  sub: HTMLElement;
}

export class Pipeline {
  private nodes = new Map<Hop, Node>();
  private totals: { atMs: number; totals: Map<string, number> } | null = null;
  private timer: number | undefined;

  constructor(
    box: HTMLElement,
    private readonly pill: HTMLElement,
    private readonly list: HTMLElement,
    private readonly api: Api,
  ) {
    for (const hop of HOPS) {
      const value = el('span', 'hop-value', '–');
      const sub = el('span', 'hop-sub', '');
      const root = el('li', 'hop', el('span', 'hop-name', hop), value, sub);
      root.dataset['hop'] = hop;
      this.nodes.set(hop, { root, value, sub });
      box.append(root);
    }
  }

  start(): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.start(), document.hidden ? 5 * ASK_EVERY_MS : ASK_EVERY_MS);
    void this.askReadiness();
    void this.askTotals();
  }

  /** What this page measures itself. */
  showClient(perSecond: number, seconds: number | null, p95: number | null): void {
    const { root, value, sub } = this.nodes.get('client')!;
    setText(value, lag(seconds));
    setText(sub, `${rate(perSecond)} rows/s`);
    root.title = p95 === null ? '' : `95 of 100 rows arrive within ${lag(p95)} of their event time, by this computer's clock`;
  }

  private showRate(hop: Hop, perSecond: number, unit: string, title: string): void {
    const { sub } = this.nodes.get(hop)!;
    setText(sub, `${rate(Math.max(0, perSecond))} ${unit}`);
    sub.title = title;
  }

  private showLags(lags: Map<Hop, number>): void {
    for (const [hop, seconds] of lags) if (hop !== 'client') setText(this.nodes.get(hop)!.value, lag(seconds));
  }

  private async askReadiness(): Promise<void> {
    try {
      const body = await this.api.get('/health/ready');
      const { ready, checks } = readReadiness(body);
      this.showChecks(ready, checks);
      this.showLags(readLags(isRecord(body) ? body['lag'] : null));
    } catch {
      this.pill.dataset['state'] = 'unknown';
      setText(this.pill, 'Readiness unknown');
      for (const { root } of this.nodes.values()) root.dataset['state'] = 'unknown';
    }
  }

  private showChecks(ready: boolean, checks: readonly Check[]): void {
    this.pill.dataset['state'] = ready ? 'ok' : 'bad';
    const n_bad = checks.filter((c) => !c.ok).length;
    setText(this.pill, ready ? 'Ready' : n_bad > 0 ? `Not ready · ${n_bad} of ${checks.length} checks` : 'Not ready');
    this.list.replaceChildren(...checks.map(checkRow));
    for (const hop of HOPS) {
      const own = checks.filter((c) => hopOf(c.name) === hop);
      const { root } = this.nodes.get(hop)!;
      root.dataset['state'] = own.length === 0 ? (hop === 'client' ? 'ok' : 'unknown') : own.every((c) => c.ok) ? 'ok' : 'bad';
      if (hop !== 'client') root.title = own.map((c) => `${c.name}: ${c.detail || (c.ok ? 'well' : 'not well')}`).join('\n');
    }
  }

  private async askTotals(): Promise<void> {
    const nowMs = Date.now();
    const totals = await this.api.get('/api/v1/streams').then(readTotals, () => null);
    const before = this.totals;
    if (!totals) return;
    this.totals = { atMs: nowMs, totals };
    if (!before) return;
    const perSecond = (...kinds: string[]) =>
      kinds.reduce((sum, kind) => sum + (totals.get(kind) ?? 0) - (before.totals.get(kind) ?? 0), 0) / ((nowMs - before.atMs) / 1000);
    this.showRate('log', perSecond('trade'), 'rows/s', 'Trades committed to the log');
    this.showRate('engine', perSecond('bar', 'alert'), 'out/s', 'Bars and alerts that came out');
  }
}

function checkRow(check: Check): HTMLElement {
  const row = el('li', 'check', el('span', 'check-name', check.name), el('span', 'check-detail', check.detail));
  row.dataset['state'] = check.ok ? 'ok' : 'bad';
  return row;
}
