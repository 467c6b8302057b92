// The watch list: one row per symbol, drawn only when its quote changed.

import { el, setText, svg } from './dom';
import { change, price } from './format';
import { changeOf, type BaselineKind, type Market, type Quote } from './ticks';

const SPARK_WIDTH = 64;
const SPARK_HEIGHT = 22;
/** Rows that may flash at once. */
const FLASHES_MAX = 8;

export type Order = 'symbol' | 'change' | 'active';

const SINCE: Record<BaselineKind, string> = {
  close: 'against the last close before today',
  open: "against today's first price",
  first: 'since this page was opened',
};

interface Row {
  root: HTMLButtonElement;
  last: HTMLElement;
  change: HTMLElement;
  spark: SVGPathElement;
  shown: number;
}

export class WatchList {
  private rows = new Map<string, Row>();
  private order: Order = 'symbol';
  private filter = '';
  private chosen: string | null = null;
  private readonly isCalm = matchMedia('(prefers-reduced-motion: reduce)').matches;

  constructor(
    private readonly box: HTMLElement,
    private readonly market: Market,
    private readonly onChoose: (symbol: string) => void,
  ) {
    box.addEventListener('keydown', (event) => this.step(event));
  }

  setOrder(order: Order): void {
    this.order = order;
    this.arrange();
  }

  setFilter(text: string): void {
    this.filter = text.trim().toLowerCase();
    for (const [symbol, row] of this.rows) row.root.hidden = !this.matches(symbol);
  }

  choose(symbol: string): void {
    if (this.chosen !== null) this.rows.get(this.chosen)?.root.setAttribute('aria-pressed', 'false');
    this.chosen = symbol;
    const row = this.rows.get(symbol);
    row?.root.setAttribute('aria-pressed', 'true');
    row?.root.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }

  /** Draws what changed since the last call. */
  draw(): void {
    let isNew = false;
    // When everything moves, flashes say nothing and cost much.
    const canFlash = !this.isCalm && this.market.dirty.size <= FLASHES_MAX;
    for (const symbol of this.market.dirty) {
      const quote = this.market.quotes.get(symbol);
      if (!quote) continue;
      if (!this.rows.has(symbol)) {
        this.rows.set(symbol, this.build(quote));
        isNew = true;
      }
      this.paint(quote, this.rows.get(symbol)!, canFlash);
    }
    this.market.dirty.clear();
    if (isNew) this.arrange();
  }

  /** Puts rows in the chosen order; also called now and then, as changes move. */
  arrange(): void {
    const quotes = [...this.market.quotes.values()].filter((q) => this.rows.has(q.symbol)).sort(compare(this.order));
    const wanted = quotes.map((q) => this.rows.get(q.symbol)!.root);
    const isSame = wanted.length === this.box.children.length && wanted.every((node, i) => this.box.children[i] === node);
    if (!isSame) this.box.replaceChildren(...wanted);
  }

  private build(quote: Quote): Row {
    const root = el('button', 'quote');
    root.type = 'button';
    root.dataset['symbol'] = quote.symbol;
    root.setAttribute('aria-pressed', String(quote.symbol === this.chosen));
    const title = el('span', 'quote-title', el('span', 'quote-name', quote.name ?? quote.symbol));
    const under = quote.name === null ? (quote.market ?? '') : [quote.symbol, quote.market].filter(Boolean).join(' · ');
    title.append(el('span', 'quote-code', under));
    const spark = svg('spark', `0 -1 ${SPARK_WIDTH} ${SPARK_HEIGHT + 2}`);
    const last = el('span', 'quote-last');
    const ratio = el('span', 'quote-change');
    root.append(title, spark.root, el('span', 'quote-figures', last, ratio));
    root.addEventListener('click', () => this.onChoose(quote.symbol));
    root.hidden = !this.matches(quote.symbol);
    return { root, last, change: ratio, spark: spark.path, shown: NaN };
  }

  private paint(quote: Quote, row: Row, canFlash: boolean): void {
    const ratio = changeOf(quote);
    setText(row.last, price(quote.last, quote.currency));
    setText(row.change, change(ratio));
    const trend = ratio > 0 ? 'up' : ratio < 0 ? 'down' : 'flat';
    if (row.root.dataset['trend'] !== trend) row.root.dataset['trend'] = trend;
    const title = `${quote.symbol}: ${SINCE[quote.baselineKind]}`;
    if (row.change.title !== title) row.change.title = title;
    row.spark.setAttribute('d', quote.spark.path(SPARK_WIDTH, SPARK_HEIGHT));
    if (canFlash && row.shown !== quote.last && !Number.isNaN(row.shown)) flash(row.last, quote.last > row.shown);
    row.shown = quote.last;
  }

  private matches(symbol: string): boolean {
    const name = this.market.quotes.get(symbol)?.name ?? '';
    return !this.filter || symbol.toLowerCase().includes(this.filter) || name.toLowerCase().includes(this.filter);
  }

  private step(event: KeyboardEvent): void {
    if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
    const shown = [...this.box.children].filter((node): node is HTMLElement => node instanceof HTMLElement && !node.hidden);
    const at = shown.indexOf(document.activeElement as HTMLElement);
    const next = shown[at + (event.key === 'ArrowDown' ? 1 : -1)];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }
}

function flash(node: HTMLElement, isUp: boolean): void {
  for (const running of node.getAnimations()) running.cancel();
  const colour = `var(${isUp ? '--up-soft' : '--down-soft'})`;
  node.animate([{ backgroundColor: colour }, { backgroundColor: 'transparent' }], { duration: 600, easing: 'ease-out' });
}

function compare(order: Order): (a: Quote, b: Quote) => number {
  const bySymbol = (a: Quote, b: Quote) => (a.market ?? '').localeCompare(b.market ?? '') || a.symbol.localeCompare(b.symbol);
  if (order === 'change') return (a, b) => changeOf(b) - changeOf(a) || bySymbol(a, b);
  if (order === 'active') return (a, b) => b.n_trades - a.n_trades || bySymbol(a, b);
  return bySymbol;
}
