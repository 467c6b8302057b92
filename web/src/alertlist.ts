// The list of alerts, each with a table of the evidence that made its rule fire.

import { ALERTS_MAX, type Alert, type AlertBook } from './alerts';
import { el, setText } from './dom';
import { dateTime, shortTime } from './format';
import { nameOf } from './names';

/** New alerts light up, unless there are too many to look at. */
const MARKED_MAX = 3;

export class AlertList {
  private nodes = new Map<string, HTMLElement>();
  private only: string | null = null;
  private seen = new Set<string>();

  constructor(
    private readonly box: HTMLElement,
    private readonly empty: HTMLElement,
    private readonly book: AlertBook,
  ) {}

  /** Shows one symbol's alerts only, or all of them with null. */
  filter(symbol: string | null): void {
    this.only = symbol;
    this.draw();
  }

  draw(): void {
    const shown = this.book.list.filter((alert) => this.only === null || alert.key === this.only);
    const n_new = shown.filter((alert) => !this.seen.has(alert.id)).length;
    const isMarked = this.seen.size > 0 && n_new <= MARKED_MAX;
    const wanted = shown.map((alert) => this.nodes.get(alert.id) ?? this.build(alert, isMarked && !this.seen.has(alert.id)));
    for (const alert of shown) this.seen.add(alert.id);
    wanted.forEach((node, i) => {
      if (this.box.children[i] !== node) this.box.insertBefore(node, this.box.children[i] ?? null);
    });
    while (this.box.children.length > wanted.length) this.box.lastElementChild!.remove();
    this.empty.hidden = wanted.length > 0;
    setText(this.empty, this.only === null ? 'No alerts yet. Rules are watching every trade.' : `No alerts for ${this.only}.`);
    this.forget();
  }

  private build(alert: Alert, isNew: boolean): HTMLElement {
    const name = nameOf(alert.key);
    const head = el('summary', 'alert-head');
    const time = el('time', 'alert-time', shortTime(alert.ms, Date.now()));
    time.dateTime = new Date(alert.ms).toISOString();
    const severity = el('span', 'severity', alert.severity);
    severity.dataset['severity'] = alert.severity;
    const symbol = el('span', 'alert-symbol', name ?? alert.key);
    if (name) symbol.append(' ', el('span', 'alert-code', alert.key));
    head.append(severity, symbol, el('span', 'alert-rule', alert.rule), time, el('span', 'alert-message', alert.message));
    if (alert.mode === 'shadow') severity.after(el('span', 'shadow', 'shadow'));
    const node = el('details', isNew ? 'alert is-new' : 'alert', head);
    node.dataset['id'] = alert.id;
    node.dataset['severity'] = alert.severity;
    // The table is built when it is first opened: most alerts are only read.
    node.addEventListener('toggle', () => node.open && node.childElementCount === 1 && node.append(evidence(alert)));
    const item = el('li', '', node);
    this.nodes.set(alert.id, item);
    return item;
  }

  private forget(): void {
    if (this.nodes.size <= 2 * ALERTS_MAX) return;
    const kept = new Set(this.book.list.map((alert) => alert.id));
    for (const id of [...this.nodes.keys()]) if (!kept.has(id)) this.nodes.delete(id);
    for (const id of [...this.seen]) if (!kept.has(id)) this.seen.delete(id);
  }
}

function evidence(alert: Alert): HTMLElement {
  const thresholds = new Map(alert.thresholds);
  const values = el('table', 'evidence');
  values.append(row('th', 'Evidence', 'Value', 'Threshold'));
  for (const [name, value] of alert.evidence) {
    values.append(row('td', name, value, thresholds.get(name) ?? ''));
    thresholds.delete(name);
  }
  for (const [name, value] of thresholds) values.append(row('td', name, '', value));
  const facts = el('dl', 'facts');
  const add = (term: string, value: string) => value && facts.append(el('div', '', el('dt', '', term), el('dd', '', value)));
  add('Condition', alert.condition);
  add('Event time', `${dateTime(alert.ms)} KST`);
  add('Rule', `${alert.rule}${alert.ruleVersion ? ` · version ${alert.ruleVersion}` : ''}`);
  add('Score', Number.isFinite(alert.score) ? String(Math.round(alert.score * 100) / 100) : '');
  add('State', [alert.state, alert.mode].filter(Boolean).join(' · '));
  add('Partition / offset', `${alert.place} of ${alert.stream}${alert.firstOffset ? `, evidence since ${alert.firstOffset}` : ''}`);
  add('Id', alert.id);
  return el('div', 'alert-body', values, facts);
}

function row(kind: 'th' | 'td', ...cells: string[]): HTMLElement {
  return el('tr', '', ...cells.map((text) => el(kind, '', text)));
}
