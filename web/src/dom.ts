// Building and finding elements. Text only ever enters as text, never as markup.

export function el<K extends keyof HTMLElementTagNameMap>(tag: K, className = '', ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** An element that index.html promises. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const node = document.getElementById(id);
  if (!node) throw new Error(`index.html has no element '${id}'`);
  return node as T;
}

/** Touches the document only when the text differs. */
export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

export function svg(className: string, viewBox: string): { root: SVGSVGElement; path: SVGPathElement } {
  const ns = 'http://www.w3.org/2000/svg';
  const root = document.createElementNS(ns, 'svg');
  root.setAttribute('class', className);
  root.setAttribute('viewBox', viewBox);
  root.setAttribute('preserveAspectRatio', 'none');
  root.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(ns, 'path');
  root.append(path);
  return { root, path };
}
