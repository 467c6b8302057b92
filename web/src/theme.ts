// Colours that the canvas needs, read from the stylesheet; and which colour means up.

export interface Palette {
  ink: string;
  muted: string;
  line: string;
  panel: string;
  up: string;
  down: string;
  upSoft: string;
  downSoft: string;
  accent: string;
  high: string;
  font: string;
}

export type Convention = 'korean' | 'western';
const CONVENTION_SLOT = 'mulgil.convention';

export function palette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: read('ink'),
    muted: read('muted'),
    line: read('line'),
    panel: read('panel'),
    up: read('up'),
    down: read('down'),
    upSoft: read('up-soft'),
    downSoft: read('down-soft'),
    accent: read('accent'),
    high: read('high'),
    font: getComputedStyle(document.body).fontFamily,
  };
}

/** Korea draws rises red and falls blue; most other markets green and red. */
export function convention(): Convention {
  return localStorage.getItem(CONVENTION_SLOT) === 'western' ? 'western' : 'korean';
}

export function setConvention(value: Convention): void {
  localStorage.setItem(CONVENTION_SLOT, value);
  document.documentElement.dataset['convention'] = value;
}

/** Calls back whenever the system switches between dark and light. */
export function onSchemeChange(callback: () => void): void {
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', callback);
}
