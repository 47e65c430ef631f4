// Owners, balance, leaks, fragmentation, and the pages that are embedded: the map and flames.

import {address, age, choice, count, el, get, owner, percent, signed, size, table} from './tools.js';

const GROUPS = [['stack', 'stack'], ['subsystem', 'subsystem'], ['comm,pid', 'process'],
  ['comm', 'task name'], ['user', 'user'], ['memcg', 'cgroup'], ['pod', 'pod'],
  ['container', 'container'], ['module', 'module'], ['allocator', 'allocator'], ['order', 'block order'], ['state', 'state']];
const MOST = 300;

/** The groups that this server knows: those with a title, then its other keys. */
export const groups = about => [
  ...GROUPS.filter(([value]) => value.split(',').every(name => about.keys.includes(name))),
  ...about.keys.filter(name => !GROUPS.some(([value]) => value.split(',').includes(name)))
    .map(name => [name, name])];

export const when = (about, state, changed) => about.captures.length < 2 ? null : choice('Moment',
  [['', 'now'], ...about.captures.map(taken => [String(taken), about.moment(taken)]).reverse()],
  state.at || '', value => changed({at: value}));

export async function owners(about, state, show, change) {
  const by = state.by || 'stack', sort = state.sort || 'pages';
  const found = await get('api/owners', {by, sort, top: MOST, at: state.at});
  const newest = Math.max(...found.owners.map(row => row.newest_ns || 0));
  const columns = [
    {title: 'Size', number: true, sort: 'pages', cell: row => size(row.bytes)},
    {title: '%', number: true, wide: true, cell: row => percent(row.share)},
    {title: 'Blocks', number: true, wide: true, sort: 'blocks',
     cell: row => row.blocks === null ? '' : count(row.blocks)},
    {title: 'Oldest', number: true, wide: true, sort: 'age',
     cell: row => row.oldest_ns ? age(Math.max(newest - row.oldest_ns, 0) / 1e9) : ''},
    {title: 'Owner', kind: 'owner', sort: 'name', cell: row => owner(row, found.by)}];
  const place = el('div');
  const draw = text => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = found.owners.filter(row => {
      const shown = [...found.by.map(name => row[name]), row.what].flat().join(' ').toLowerCase();
      return words.every(word => shown.includes(word));
    });
    const kept = rows.reduce((sum, row) => sum + row.bytes, 0);
    const left = found.rest.owners ? `; ${count(found.rest.owners)} smaller ones are not listed` : '';
    place.replaceChildren(table(`${count(rows.length)} owners, ${size(kept)} of`
      + ` ${size(found.bytes)}${left}`, columns, rows, sort, name => change({sort: name})));
  };
  const filter = el('input', {type: 'search', value: state.filter || '', autocomplete: 'off',
    input: event => { change({filter: event.target.value}, true); draw(event.target.value); }});
  show(el('div', {class: 'controls'},
    choice('Group by', groups(about), by, value => change({by: value})),
    el('label', {}, 'Filter', filter), when(about, state, change),
    el('a', {href: 'snapshot.parquet' + (state.at ? `?at=${state.at}` : '')}, 'Snapshot'),
    el('a', {href: 'pages.pprof' + (state.at ? `?at=${state.at}` : '')}, 'pprof')), place);
  draw(state.filter || '');
}

export async function balance(about, state, show) {
  const found = await get('api/balance');
  if (!found.rows.length) return show(el('p', {}, found.note));
  const line = row => {
    const name = [row.name, row.note ? el('small', {}, ` ${row.note}`) : null];
    const head = [el('span', {class: 'number'}, size(row.bytes)), el('span', {}, name)];
    if (!row.rows) return el('div', {class: 'line'}, head);
    return el('details', {}, el('summary', {class: 'line'}, head),
      el('div', {class: 'nested'}, row.rows.map(line)));
  };
  show(el('h2', {}, `${size(found.total)} in all`),
    found.warnings.map(warned => el('p', {class: 'note'}, warned.text)),
    el('div', {}, found.rows.map(line)),
    found.missing.length ? el('p', {class: 'note'}, `Not readable: ${found.missing.join('; ')}`)
      : null);
}

export async function leaks(about, state, show) {
  const found = await get('api/leaks');
  if (!found.looks) return show(el('p', {}, `Nothing is judged yet: ${found.note}.`));
  const kinds = [['leak', 'Leaks'], ['grows', 'Suspects: they grew, but not as a leak does'],
    ['reclaimable', 'Cache that the kernel takes back when memory is short']];
  const shown = kinds.flatMap(([kind, title]) => {
    const rows = found.owners.filter(row => row.kind === kind);
    return rows.length ? [el('h2', {}, title), el('div', {class: 'cards'},
      rows.slice(0, 60).map(row => card(row, found)))] : [];
  });
  const head = `${count(found.looks)} looks in ${age(found.seconds)}`;
  show(el('p', {}, found.owners.some(row => row.kind === 'leak') ? head : `No leak. ${head}`),
    shown);
}

function card(row, found) {
  const name = row.what || row.note || 'unknown';
  const facts = [row.kind === 'grows' ? row.why
    : `${size(row.bytes_per_hour)} an hour (${size(row.bytes_per_hour_low)} to`
      + ` ${size(row.bytes_per_hour_high)}), confidence ${percent(row.confidence)}`];
  if (row.stayed_bytes !== null) {
    facts.push(`${size(row.stayed_bytes)} of what settled stays (${percent(row.survival || 0)})`);
  }
  if (row.bursts > 1 && row.kind !== 'grows') facts.push(`${row.bursts} bursts`);
  const tasks = row.tasks.map(task => `${task.comm || 'unknown'}`
    + (task.tgid === null ? '' : ` (pid ${task.tgid})`)).join(', ');
  return el('section', {class: 'card'}, el('h3', {}, `${name}${row.program ? ` of ${row.program}`
    : ''}, ${size(row.bytes)}`), chart(row, found), el('p', {}, facts.join('; ')),
  tasks ? el('p', {}, `by ${tasks}`) : null,
  row.stack ? el('details', {}, el('summary', {}, row.line || row.stack[0]),
    el('pre', {}, row.stack.join('\n'))) : null);
}

/** Settled pages against time, the slope through their middle, and its interval. */
function chart(row, found) {
  const wide = 420, high = 130, left = 62, top = 8, low = high - 20;
  const times = found.times_s, bytes = row.settled_series.map(pages => pages * found.page_size);
  const end = times[times.length - 1] || 1, most = Math.max(...bytes, 1);
  const x = time => left + (wide - left - 6) * time / end;
  const y = value => Math.min(Math.max(low - (low - top) * value / most, 0), high);
  const middle = values => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
  const centre = [middle(times), middle(bytes)];
  const at = (rate, time) => centre[1] + rate / 3600 * (time - centre[0]);
  const edge = (rate, time) => `${x(time).toFixed(1)},${y(at(rate, time)).toFixed(1)}`;
  const interval = [edge(row.bytes_per_hour_low, 0), edge(row.bytes_per_hour_low, end),
    edge(row.bytes_per_hour_high, end), edge(row.bytes_per_hour_high, 0)];
  const points = bytes.map((value, place) => `${x(times[place]).toFixed(1)},${y(value).toFixed(1)}`);
  return el('svg:svg', {viewBox: `0 0 ${wide} ${high}`, role: 'img', 'aria-label':
    `Settled memory from ${size(bytes[0])} to ${size(bytes[bytes.length - 1])} in ${age(end)}`},
  row.kind === 'grows' ? null : el('svg:polygon', {class: 'interval', points: interval.join(' ')}),
  row.kind === 'grows' ? null : el('svg:line', {class: 'slope', x1: x(0), x2: x(end),
    y1: y(at(row.bytes_per_hour, 0)), y2: y(at(row.bytes_per_hour, end))}),
  el('svg:polyline', {class: 'points', points: points.join(' ')}),
  el('svg:text', {x: 2, y: top + 10}, size(most)), el('svg:text', {x: 2, y: low}, '0 B'),
  el('svg:text', {x: left, y: high - 5}, '0 s'),
  el('svg:text', {x: wide - 6, y: high - 5, 'text-anchor': 'end'}, age(end)));
}

export async function frag(about, state, show, change) {
  const by = state.by || 'stack';
  const found = await get('api/frag', {by, at: state.at, top: 100});
  const states = [...new Set(found.zones.flatMap(zone => Object.keys(zone.states)))];
  show(el('div', {class: 'controls'},
    choice('Group by', groups(about), by, value => change({by: value})),
    when(about, state, change)),
  found.notes.map(note => el('p', {class: 'note'}, note)),
  table(`Pageblocks of ${size(found.page_size << found.pageblock_order)} by zone`, [
    {title: 'Zone', cell: zone => zone.name},
    ...states.map(name => ({title: name, number: true, cell: zone => count(zone.states[name] || 0)})),
    {title: 'mixed', number: true, cell: zone => count(Object.values(zone.mixed).reduce(
      (sum, blocks) => sum + blocks, 0))}], found.zones),
  found.free.length ? table('Free blocks by order: 2^order pages each', [
    {title: 'Zone', cell: zone => zone.zone},
    ...found.free[0].blocks.map((_, order) => (
      {title: String(order), number: true, cell: zone => count(zone.blocks[order] || 0)}))],
  found.free) : null,
  el('h2', {}, 'Who fragments'),
  table(`${count(found.polluters_in_all)} owners of pages in pageblocks of another type`, [
    {title: 'Blocks', number: true, cell: row => count(row.pageblocks ?? row.blocks ?? 0)},
    {title: 'Size', number: true, cell: row => size((row.pages || 0) * found.page_size)},
    {title: 'Owner', kind: 'owner', cell: row => owner(row, found.by)}], found.polluters));
}

const embedded = (title, path, words) => [
  el('p', {}, el('a', {href: address(path, words), target: '_blank', rel: 'noopener'},
    'Open in a window of its own')),
  el('iframe', {src: address(path, words), title})];

const given = words => Object.fromEntries(Object.entries(words).filter(([, value]) => value));

export async function map(about, state, show, change) {
  const by = state.by || 'subsystem';
  const keys = ['subsystem', 'state', 'migratetype', 'comm', 'age', 'memcg', 'pod', 'container'];
  show(el('div', {class: 'controls'},
    choice('Colour by', keys.map(name => [name, name]), by, value => change({by: value})),
    when(about, state, change)), embedded('The map of physical memory', 'map.html',
    given({by, at: state.at})));
}

export async function flame(about, state, show, change) {
  const keys = [['', 'stack alone'], ...groups(about).filter(([value]) => value !== 'stack')];
  show(el('div', {class: 'controls'},
    choice('Towers by', keys, state.by || '', value => change({by: value})),
    when(about, state, change)), embedded('A flame graph of all owners', 'flame.html',
    given({by: state.by, at: state.at})));
}

export {embedded, given, signed};
