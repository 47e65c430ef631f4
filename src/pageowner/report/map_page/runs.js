'use strict';
// Texts of the snapshot reach the page as text nodes only: tasks choose their names themselves.

const about = JSON.parse(document.getElementById('about').textContent);
const $ = id => document.getElementById(id);
const SPECIAL = ['unknown', 'free', 'held', 'nothing'];  // owners behind the last
const NO_ORDER = 255, DIM = '#383838', BUSY_PX = 2, GRID_PX = 8, MOST_PX = 32;
const TITLES = {comm: 'task', memcg: 'cgroup', gfp: 'gfp flags', age: 'age'};
let sides = [], by = about.by, order = about.order, filter = null, legend = [];

async function unpack() {
  const text = atob($('data').textContent.trim());
  $('data').remove();
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  const raw = await new Response(stream).arrayBuffer();
  const kinds = {u1: Uint8Array, u4: Uint32Array, f4: Float32Array};
  const columns = {};
  for (const [name, [kind, at, count]] of Object.entries(about.columns))
    columns[name] = new kinds[kind](raw, at, count);
  return columns;
}

class Side {
  // One snapshot: runs of frames laid out one after the other, begin[i] to begin[i + 1].
  constructor(info, number, columns) {
    Object.assign(this, info);
    const get = name => columns[`${number}.${name}`];
    const size = get('size');
    this.begin = new Float64Array(size.length + 1);
    for (let i = 0; i < size.length; i++) this.begin[i + 1] = this.begin[i] + size[i];
    this.total = this.begin[size.length];
    this.owner = get('owner'); this.order = get('order'); this.age = get('age');
    this.codes = Object.fromEntries(about.keys.map(name => [name, get(`key.${name}`)]));
    this.category = new Uint8Array(size.length);
    this.curve = 0;
    while (4 ** this.curve < this.total) this.curve++;
  }

  find(place) {  // the run with this place
    let low = 0, high = this.owner.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.begin[middle] <= place) low = middle; else high = middle - 1;
    }
    return low;
  }

  label(name, owner) {
    return owner < this.owners ? this.labels[name][this.codes[name][owner]] : null;
  }

  zone(place) {
    let found = null;
    for (const one of this.stretches) if (one[3] <= place) found = one;
    return found && place < found[3] + found[2] - found[1] ? found : null;
  }

  ageOf(run) {
    const age = this.age[run];
    if (Number.isNaN(age)) return -1;
    let bin = 0;
    while (about.ages[bin][1] !== null && age >= about.ages[bin][1]) bin++;
    return bin;
  }
}

// What is drawn: categories of both sides ----------------------------------------------------

function classify() {
  const ages = by === 'age', pages = new Map();
  for (const side of sides) {
    side.ownerPages = new Float64Array(side.owners + SPECIAL.length);
    for (let i = 0; i < side.owner.length; i++)
      side.ownerPages[side.owner[i]] += side.begin[i + 1] - side.begin[i];
    if (!ages)
      for (let o = 0; o < side.owners; o++) {
        const label = side.label(by, o);
        if (label !== null) pages.set(label, (pages.get(label) || 0) + side.ownerPages[o]);
      }
  }
  const colours = about.colours, seen = sides.every(side => side.sees_free);
  const names = ages ? about.ages.map(one => one[0])
    : [...pages.keys()].sort((a, b) => pages.get(b) - pages.get(a));
  const palette = ages ? colours.ages : colours.values, top = names.slice(0, palette.length);
  legend = top.map((label, i) => ({label, role: 'value', colour: palette[i]}));
  const rest = names.length - top.length;
  legend.push({label: `${rest} others`, role: 'other', colour: colours.roles.other},
    {label: 'in use, not known', role: 'unknown', colour: colours.roles.unknown},
    {label: seen ? 'free' : 'no record', role: 'free', colour: colours.roles.free},
    {label: 'not the allocator\'s', role: 'held', colour: colours.roles.held},
    {label: '', role: 'nothing', colour: colours.background},
    {label: 'not chosen', role: 'dim', colour: DIM});
  const place = new Map(top.map((label, i) => [label, i]));
  const at = role => legend.findIndex(one => one.role === role);
  const [other, unknown, dim] = [at('other'), at('unknown'), at('dim')];
  let chosen = 0, all = 0;
  for (const one of legend) Object.assign(one, {pages: 0, each: sides.map(() => 0)});
  for (const [number, side] of sides.entries()) {
    const of = new Uint8Array(side.owners + SPECIAL.length), yes = new Uint8Array(of.length);
    for (let o = 0; o < of.length; o++) {
      const label = ages ? null : side.label(by, o);
      of[o] = o >= side.owners ? at(SPECIAL[o - side.owners])
        : label === null ? unknown : place.has(label) ? place.get(label) : other;
      yes[o] = !filter || filter.category !== undefined ||
        (o < side.owners && Object.entries(filter.keys).every(([k, v]) => side.label(k, o) === v));
    }
    for (let i = 0; i < side.owner.length; i++) {
      const o = side.owner[i];
      let c = of[o];
      if (ages && o < side.owners) { c = side.ageOf(i); if (c < 0) c = unknown; }
      const size = side.begin[i + 1] - side.begin[i];
      legend[c].pages += size;
      legend[c].each[number] += size;
      if (legend[c].role !== 'nothing') all += size;
      const match = yes[o] && (!filter || filter.category === undefined
        || filter.category === legend[c].label);
      if (match) chosen += size;
      side.category[i] = match || c >= at('free') ? (filter && !match && c === at('held')
        ? dim : c) : dim;
    }
  }
  for (const one of legend) one.share = one.pages / Math.max(all, 1);
  $('filter').hidden = !filter;
  if (filter) {
    $('only').textContent = `only ${sized(chosen)}: ${filter.text}`;
    $('only').title = $('only').textContent;
  }
  drawLegend();
}

function drawLegend() {
  $('legend').replaceChildren(...legend.filter(one => one.pages && one.label).map(one => {
    const entry = make('button', '', 'entry'), swatch = make('i', '');
    swatch.style.background = one.colour;
    const name = make('span', one.label);
    name.title = one.label;
    const sizes = sides.length > 1 ? one.each.map(bytes).join(' | ')
      : `${(100 * one.share).toFixed(1)}% ${bytes(one.pages)}`;
    entry.append(swatch, name, make('b', sizes));
    entry.onclick = () => choose({category: one.label, text: one.label});
    return entry;
  }));
}

function choose(wanted) {
  filter = wanted;
  classify();
  paint();
}
