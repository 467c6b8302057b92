// The tape: the latest trades of the chosen symbol. A fixed pool of rows is rewritten, so that a busy market makes no garbage.

import { el, setText } from './dom';
import { clockMs, compact, grouped, priceDigits } from './format';
import type { Market, Side, Trade } from './ticks';

const ROWS = 48;
const SIDE_TEXT: Record<Side, string> = { buy: 'Buy', sell: 'Sell', unknown: '–' };
/** A trade this much larger than the usual one stands out. */
const LARGE_FACTOR = 5;

interface Row {
  root: HTMLElement;
  time: HTMLElement;
  price: HTMLElement;
  quantity: HTMLElement;
  amount: HTMLElement;
  side: HTMLElement;
}

export class Tape {
  private readonly pool: Row[] = [];
  private drawn = -1;
  private isHeld = false;
  private usual = 0;
  private currency: string | null = null;

  constructor(
    box: HTMLElement,
    private readonly note: HTMLElement,
    private readonly market: Market,
  ) {
    for (let i = 0; i < ROWS; i++) this.pool.push(build());
    box.append(...this.pool.map((row) => row.root));
    box.addEventListener('pointerenter', (event) => this.hold(event.pointerType === 'mouse'));
    box.addEventListener('pointerleave', () => this.hold(false));
  }

  /** A held tape can be read at leisure; what comes meanwhile is counted. */
  private hold(isHeld: boolean): void {
    this.isHeld = isHeld;
    if (!isHeld) this.draw(this.currency);
    else setText(this.note, 'held');
  }

  restart(): void {
    this.drawn = -1;
    this.usual = 0;
  }

  draw(currency: string | null): void {
    const { tape, n_tape } = this.market;
    this.currency = currency;
    if (this.isHeld && this.drawn >= 0 && n_tape > 0) {
      setText(this.note, n_tape > this.drawn ? `held · ${grouped(n_tape - this.drawn)} new` : 'held');
      return;
    }
    setText(this.note, n_tape === 0 ? 'waiting for a trade' : '');
    if (n_tape === this.drawn) return;
    this.learnUsual(Math.min(n_tape - Math.max(this.drawn, 0), tape.length));
    this.pool.forEach((row, i) => this.paint(row, tape[tape.length - 1 - i], currency));
    this.drawn = n_tape;
  }

  private learnUsual(n_new: number): void {
    for (const trade of this.market.tape.slice(this.market.tape.length - n_new)) {
      const amount = trade.price * trade.quantity;
      this.usual = this.usual === 0 ? amount : this.usual + 0.02 * (amount - this.usual);
    }
  }

  private paint(row: Row, trade: Trade | undefined, currency: string | null): void {
    row.root.hidden = trade === undefined;
    if (!trade) return;
    const amount = trade.price * trade.quantity;
    row.root.dataset['side'] = trade.side;
    row.root.classList.toggle('large', this.market.n_tape > 30 && amount > LARGE_FACTOR * this.usual);
    setText(row.time, clockMs(trade.ms));
    setText(row.price, priceDigits(trade.price, currency));
    setText(row.quantity, grouped(trade.quantity));
    setText(row.amount, compact(amount));
    setText(row.side, SIDE_TEXT[trade.side]);
  }
}

function build(): Row {
  const cells = ['tape-time', 'tape-price', 'tape-quantity', 'tape-amount', 'tape-side'].map((name) => el('span', name));
  const [time, price, quantity, amount, side] = cells as [HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement];
  const root = el('li', 'tape-row', ...cells);
  root.hidden = true;
  return { root, time, price, quantity, amount, side };
}
