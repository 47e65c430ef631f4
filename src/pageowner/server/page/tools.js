// What all views use: elements without HTML from texts, numbers in words, questions to the server.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** An element; texts become text nodes, never HTML. Attributes that are functions are listeners. */
export function el(name, attributes = {}, ...inside) {
  const made = name.startsWith('svg:')
    ? document.createElementNS('http://www.w3.org/2000/svg', name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(key, value === true ? '' : value);
    }
  }
  made.append(...inside.flat().filter(part => part !== null && part !== undefined));
  return made;
}

export function size(bytes) {
  let value = bytes, unit = 0;
  while (Math.abs(value) >= 1000 && unit < UNITS.length - 1) { value /= 1024; unit++; }
  const digits = unit === 0 || Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

export const signed = bytes => (bytes > 0 ? '+' : bytes < 0 ? '−' : '') + size(Math.abs(bytes));
export const count = number => number.toLocaleString('en-US');
export const percent = share => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

export function age(seconds) {
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`;
}

export const moment = seconds => new Date(seconds * 1000).toLocaleString(undefined, {
  year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit',
  second: '2-digit', hour12: false});

/** The answer to a question; an Error whose message can be shown. Relative: a proxy may add a path. */
export async function get(path, words = {}) {
  const query = new URLSearchParams(Object.entries(words).filter(
    ([, value]) => value !== '' && value !== null && value !== undefined));
  let answer;
  try {
    answer = await fetch(address(path, query));
  } catch {
    throw new Error('The server does not answer.');
  }
  const found = await answer.json().catch(() => ({error: `The server answers ${answer.status}.`}));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

export const address = (path, words) => {
  const query = new URLSearchParams(words).toString();
  return path + (query ? `?${query}` : '');
};

/** A labelled choice. */
export function choice(label, values, chosen, changed) {
  return el('label', {}, label, el('select', {change: event => changed(event.target.value)},
    values.map(([value, shown]) => el('option', {value, selected: value === chosen}, shown))));
}

/** A table. columns: {title, sort?, wide?, number?, cell(row)}; onSort(name) where one can sort. */
export function table(caption, columns, rows, sorted, onSort) {
  const kind = column => [column.number && 'number', column.wide && 'wide', column.kind]
    .filter(Boolean).join(' ') || null;
  return el('div', {class: 'scroll', role: 'region', 'aria-label': caption}, el('table', {}, el('caption', {}, caption),
    el('thead', {}, el('tr', {}, columns.map(column => el('th',
      {scope: 'col', class: kind(column),
       'aria-sort': column.sort && column.sort === sorted ? 'descending' : null},
      column.sort && onSort ? el('button', {type: 'button', click: () => onSort(column.sort)},
        column.title) : column.title)))),
    el('tbody', {}, rows.map(row => el('tr', {}, columns.map(column => el('td',
      {class: kind(column)}, column.cell(row))))))));
}

/** What an owner is called: a stack in a line that unfolds, or the values of the keys. */
export function owner(row, by) {
  const others = by.filter(name => name !== 'stack').map(
    name => row[name] === null || row[name] === undefined ? 'unknown' : String(row[name]));
  if (!by.includes('stack')) return others.join(', ');
  if (!row.stack) return [others.join(', '), others.length ? ' ' : '', 'no stack known'];
  return el('details', {}, el('summary', {}, others.length ? `${others.join(', ')}: ` : '',
    row.what ? el('b', {}, row.what) : '', ' ', row.line || row.stack[0]),
  el('pre', {}, row.stack.join('\n')));
}
