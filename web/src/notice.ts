// What the page says when there is nothing to show, or something is in the way; and what can be done about it.

import { byId, setText } from './dom';
import { ApiError, type Api } from './api';
import type { Link } from './realtime';

const GENERATE = '/api/v1/stock/generate';

export class Notice {
  private readonly banner = byId('banner');
  private readonly bannerText = byId('banner-text');
  private readonly bannerAction = byId<HTMLButtonElement>('banner-action');
  private readonly empty = byId('empty');
  private readonly emptyText = byId('empty-text');
  private readonly start = byId<HTMLButtonElement>('start');
  private readonly dialog = byId<HTMLDialogElement>('key-dialog');
  private isDismissed = false;

  constructor(
    private readonly api: Api,
    onRetry: () => void,
    private readonly onKey: () => void,
  ) {
    this.bannerAction.addEventListener('click', onRetry);
    this.start.addEventListener('click', () => void this.generate());
    byId<HTMLFormElement>('key-form').addEventListener('submit', (event) => this.takeKey(event));
    this.dialog.addEventListener('cancel', () => (this.isDismissed = true));
    byId('key-cancel').addEventListener('click', () => {
      this.isDismissed = true;
      this.dialog.close();
    });
  }

  /** Called twice a second: the wait counts down. */
  showLink(link: Link, nowMs: number, hasRows: boolean): void {
    this.banner.hidden = link.kind !== 'lost';
    if (link.kind !== 'lost') return;
    const seconds = Math.max(0, Math.ceil((link.retryAtMs - nowMs) / 1000));
    const again = `Trying again${seconds > 0 ? ` in ${seconds} s` : ' now'}`;
    setText(this.bannerText, hasRows ? `Connection lost. ${again}; the stream continues where it stopped.` : `mulgil does not answer. ${again}.`);
  }

  showEmpty(isEmpty: boolean): void {
    this.empty.hidden = !isEmpty;
  }

  askForKey(reason: string): void {
    if (this.dialog.open || this.isDismissed) return;
    setText(byId('key-reason'), reason);
    this.dialog.showModal();
  }

  /** Handled here whole: the content security policy forbids forms to go anywhere. */
  private takeKey(event: Event): void {
    event.preventDefault();
    this.dialog.close();
    const input = byId<HTMLInputElement>('key-input');
    this.api.key = input.value.trim() || null;
    input.value = '';
    this.onKey();
  }

  private async generate(): Promise<void> {
    this.start.disabled = true;
    setText(this.emptyText, 'Starting the simulator…');
    try {
      await this.api.post(GENERATE, {});
      setText(this.emptyText, 'The simulator runs. The first trades arrive within a second.');
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      setText(this.emptyText, `The simulator did not start: ${message}.`);
      this.isDismissed = false;
      if (error instanceof ApiError && error.isRefused) this.askForKey('Starting the simulator needs a key with the scope admin.');
    } finally {
      this.start.disabled = false;
    }
  }
}
