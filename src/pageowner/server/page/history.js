// Two moments of a recorded series: what changed between them, and step by step through time.

import {choice, count, el, get, owner, signed, size, table} from './tools.js';
import {embedded, given, groups} from './views.js';

export async function history(about, state, show, change) {
  const times = about.captures;
  if (times.length < 2) {
    return show(el('p', {}, 'There is no history. Serve a directory of "pageowner record", or name'
      + ' one with --history.'));
  }
  const place = (taken, otherwise) => {
    const found = times.indexOf(Number(taken));
    return found < 0 ? otherwise : found;
  };
  const before = place(state.before, 0), after = place(state.after, times.length - 1);
  const by = state.by || 'stack', last = times.length - 1;
  const move = (first, second) => change({before: times[first], after: times[second]});
  const slider = (label, at, moved) => el('label', {}, `${label}: ${about.moment(times[at])}`,
    el('input', {type: 'range', min: 0, max: last, value: at, 'aria-valuetext':
      about.moment(times[at]), change: event => moved(Number(event.target.value))}));
  const step = (title, by_, off) => el('button', {type: 'button', disabled: off, title,
    'aria-label': title, click: () => move(before + by_, after + by_)}, by_ < 0 ? '◀' : '▶');
  const controls = el('div', {class: 'controls'},
    slider('Before', before, at => move(at, Math.max(at, after))),
    slider('After', after, at => move(Math.min(before, at), at)),
    el('span', {}, step('One capture back', -1, before === 0),
      step('One capture on', 1, after === last)),
    choice('Group by', groups(about), by, value => change({by: value})));
  const found = await get('api/diff', {before: times[before], after: times[after], by, top: 200});
  const graph = el('details', {class: 'flame', toggle: event => {
    if (event.target.open && graph.children.length === 1) {
      graph.append(...embedded('A flame graph of what changed', 'flame.html', given(
        {before: String(times[before]), at: String(times[after])})));
    }
  }}, el('summary', {}, 'Flame graph of what changed'));
  show(controls, el('p', {}, `${size(found.before.bytes)} before, ${size(found.after.bytes)} after`),
    graph, table(`${count(found.changes.length + (found.rest.owners || 0))} owners changed`, [
      {title: 'Change', number: true, cell: row => el('span',
        {class: row.bytes > 0 ? 'more' : 'fewer'}, signed(row.bytes))},
      {title: 'Before', number: true, wide: true, cell: row => bytes(row, 'before', found)},
      {title: 'After', number: true, wide: true, cell: row => bytes(row, 'after', found)},
      {title: 'Now', wide: true, cell: row => row.became},
      {title: 'Owner', kind: 'owner', cell: row => owner(row, found.by)}], found.changes));
}

const bytes = (row, side, found) => size(
  row[`bytes_${side}`] ?? (row[`pages_${side}`] || 0) * found.page_size);
