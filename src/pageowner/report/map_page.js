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

// Where cells stand ---------------------------------------------------------------------------

class View {
  // level: a cell is 2^level frames in rows, 4^level on the curve; px: its side on the screen.
  constructor(side, box) {
    this.side = side;
    this.canvas = make('canvas', '');
    this.canvas.tabIndex = 0;
    this.pen = this.canvas.getContext('2d');
    const title = make('h2', `${side.source}${side.kernel && ', kernel ' + side.kernel}`);
    title.title = title.textContent;
    const map = make('section', '', 'map'), frame = make('div', '');
    frame.append(this.canvas);
    map.append(title, frame);
    box.append(map);
    this.small = document.createElement('canvas');
  }

  get frames() { return (order === 'row' ? 2 : 4) ** this.level; }

  resize() {
    const {width, height} = this.canvas.getBoundingClientRect();
    this.canvas.width = Math.max(Math.round(width), 1);
    this.canvas.height = Math.max(Math.round(height), 1);
    this.measure();
  }

  measure() {
    this.columns = Math.max(Math.ceil(this.canvas.width / this.px), 1);
    this.lines = Math.max(Math.ceil(this.canvas.height / this.px), 1);
  }

  all() {  // the whole memory
    const {width, height} = this.canvas;
    this.px = BUSY_PX;
    this.level = 0;
    const fits = () => order === 'row'
      ? this.columnsShown() * Math.floor(height / this.px) * this.frames >= this.side.total
      : this.px * 2 ** (this.side.curve - this.level) <= Math.min(width, height);
    while (!fits() && this.level < 40) this.level++;
    while (this.level === 0 && this.px < MOST_PX) {
      this.px *= 2;
      if (!fits()) { this.px /= 2; break; }
    }
    [this.origin, this.x, this.y] = [0, 0, 0];
    this.measure();
    if (order === 'hilbert') {
      const side = 2 ** (this.side.curve - this.level);
      this.x = -Math.floor((width / this.px - side) / 2);
    }
    this.top = [this.level, this.px];
  }

  columnsShown() {  // blocks of a line's length stand below each other
    const columns = Math.max(Math.floor(this.canvas.width / this.px), 1);
    return columns >= 128 ? columns - columns % 64 : columns;
  }

  zoom(steps, px, py) {  // keeps what is under the pointer there
    for (; steps; steps -= Math.sign(steps)) {
      let [level, side] = [this.level, this.px];
      if (steps > 0) { if (level) level--; else if (side < MOST_PX) side *= 2; }
      else if (side > BUSY_PX && level === 0) side /= 2;
      else level++;
      if (level > this.top[0] || (level === this.top[0] && side < this.top[1])) return this.all();
      const cx = Math.floor(px / this.px), cy = Math.floor(py / this.px);
      const place = this.origin + (cy * this.columnsShown() + cx) * this.frames;
      const [wx, wy] = [this.x + px / this.px, this.y + py / this.px];
      const grown = 2 ** (this.level - level);
      [this.level, this.px] = [level, side];
      this.measure();
      const nx = Math.floor(px / side), ny = Math.floor(py / side);
      this.origin = Math.floor(place / this.frames) * this.frames
        - (ny * this.columnsShown() + nx) * this.frames;
      this.x = Math.floor(wx * grown) - nx;
      this.y = Math.floor(wy * grown) - ny;
    }
    this.clamp();
  }

  move(dx, dy) {  // by cells
    this.origin -= (dy * this.columnsShown() + dx) * this.frames;
    this.x -= dx;
    this.y -= dy;
    this.clamp();
  }

  clamp() {
    const {frames} = this, wide = this.columnsShown() * frames;
    const most = Math.max(Math.floor((this.side.total - 1) / frames) * frames, 0);
    this.origin = Math.min(Math.max(this.origin, -wide + frames), most);
    const side = 2 ** (this.side.curve - this.level);
    this.x = Math.min(Math.max(this.x, 1 - this.columns), side - 1);
    this.y = Math.min(Math.max(this.y, 1 - this.lines), side - 1);
  }

  goto(place) {
    this.origin = Math.floor(place / this.frames) * this.frames;
    const [x, y] = along(this.side.curve - this.level, Math.floor(place / 4 ** this.level));
    this.x = x - (this.columns >> 1);
    this.y = y - (this.lines >> 1);
    this.clamp();
  }

  place(cx, cy) {  // the first frame's place of a cell, or -1
    if (order === 'row') {
      const columns = this.columnsShown();
      return cx < columns ? this.origin + (cy * columns + cx) * this.frames : -1;
    }
    const level = this.side.curve - this.level, side = 2 ** level;
    const [x, y] = [this.x + cx, this.y + cy];
    return x < 0 || y < 0 || x >= side || y >= side ? -1 : index(level, x, y) * this.frames;
  }

  paint() {
    const {columns, lines, side, frames, pen} = this;
    const image = new ImageData(columns, lines), out = new Uint32Array(image.data.buffer);
    const table = legend.map(one => [1, 3, 5].map(at => parseInt(one.colour.slice(at, at + 2), 16)));
    const counts = new Float64Array(legend.length), {begin, category, total} = side;
    const count = category.length;
    let run = 0;
    for (let cy = 0; cy < lines; cy++) {
      for (let cx = 0; cx < columns; cx++) {
        const low = this.place(cx, cy), high = Math.min(low + frames, total);
        if (low < 0 || low >= total) continue;
        if (!(begin[run] <= low && low < begin[run + 1])) run = side.find(low);
        let best = category[run], share = 1;
        if (begin[run + 1] < high) {
          counts.fill(0);
          for (let i = run; i < count && begin[i] < high; i++) {
            counts[category[i]] += Math.min(begin[i + 1], high) - Math.max(begin[i], low);
            run = i;
          }
          for (let k = 0; k < counts.length; k++) if (counts[k] > counts[best]) best = k;
          share = counts[best] / (high - low);
        }
        const s = .4 + .6 * share, [r, g, b] = table[best];
        out[cy * columns + cx] = (255 << 24 | b * s << 16 | g * s << 8 | r * s) >>> 0;
      }
    }
    [this.small.width, this.small.height] = [columns, lines];
    this.small.getContext('2d').putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.fillStyle = about.colours.background;
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    pen.drawImage(this.small, 0, 0, columns * this.px, lines * this.px);
    if (this.px >= GRID_PX) {
      pen.fillStyle = 'rgb(0 0 0 / .4)';
      for (let cx = 0; cx < columns; cx++) pen.fillRect(cx * this.px, 0, 1, this.canvas.height);
      for (let cy = 0; cy < lines; cy++) pen.fillRect(0, cy * this.px, this.canvas.width, 1);
    }
    this.zones();
    Object.assign(this.canvas.dataset, {frames, px: this.px});
  }

  zones() {  // names where nodes and zones begin
    const {pen} = this;
    pen.font = '12px system-ui, sans-serif';
    pen.textBaseline = 'top';
    let last = -Infinity;
    for (const [name, start, , at] of this.side.stretches) {
      const [x, y] = this.pixel(at);
      if (x < -1 || y < -1 || x > this.canvas.width || y > this.canvas.height) continue;
      pen.fillStyle = '#fff';
      if (order === 'row') {
        pen.fillRect(x, y, this.columnsShown() * this.px - x, 1);
        pen.fillRect(x, y, 1, this.px);
        pen.fillRect(0, y + this.px, x, 1);
      } else pen.fillRect(x, y, 5, 5);
      const text = `${name} from ${bytes(start)}`, wide = pen.measureText(text).width + 8;
      const left = Math.max(Math.min(x, this.canvas.width - wide), 0);
      const top = Math.min(Math.max(y + this.px, last), this.canvas.height - 16);
      pen.fillStyle = 'rgb(0 0 0 / .75)';
      pen.fillRect(left, top, wide, 16);
      pen.fillStyle = '#fff';
      pen.fillText(text, left + 4, top + 2);
      last = top + 16;
    }
  }

  pixel(place) {
    if (order === 'row') {
      const cell = Math.floor((place - this.origin) / this.frames), columns = this.columnsShown();
      const line = Math.floor(cell / columns);
      return [(cell - line * columns) * this.px, line * this.px];
    }
    const [x, y] = along(this.side.curve - this.level, Math.floor(place / this.frames));
    return [(x - this.x) * this.px, (y - this.y) * this.px];
  }

  // What is there: of several pages the run that has most of the cell.
  at(px, py) {
    const low = this.place(Math.floor(px / this.px), Math.floor(py / this.px));
    const high = Math.min(low + this.frames, this.side.total);
    if (low < 0 || low >= this.side.total) return null;
    const {begin, owner} = this.side, first = this.side.find(low), pages = new Map();
    for (let i = first; i < owner.length && begin[i] < high; i++)
      pages.set(owner[i], (pages.get(owner[i]) || 0)
        + Math.min(begin[i + 1], high) - Math.max(begin[i], low));
    const [most] = [...pages].sort((a, b) => b[1] - a[1]);
    let run = first;
    while (owner[run] !== most[0]) run++;
    return {low, high, run, owner: most[0], pages: most[1], owners: pages.size,
      place: Math.max(low, begin[run])};
  }
}

// Hilbert's curve on a square of side 2^level: the same as the layout of the other pictures.
function index(level, x, y) {
  let found = 0;
  for (let l = level - 1; l >= 0; l--) {
    const right = x >> l & 1, up = y >> l & 1, low = 2 ** l - 1;
    found = found * 4 + (3 * right ^ up);
    x &= low; y &= low;
    if (!up) { if (right) { x = low - x; y = low - y; } [x, y] = [y, x]; }
  }
  return found;
}

function along(level, place) {
  let x = 0, y = 0;
  for (let l = 0; l < level; l++) {
    const quarter = Math.floor(place / 4 ** l) % 4, right = quarter >> 1;
    const up = (quarter ^ right) & 1, low = 2 ** l - 1;
    if (!up) { if (right) { x = low - x; y = low - y; } [x, y] = [y, x]; }
    x += right * 2 ** l; y += up * 2 ** l;
  }
  return [x, y];
}

// Words ---------------------------------------------------------------------------------------

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.textContent = text;
  return element;
}

function bytes(pages) {
  let value = pages * sides[0].page_size, unit = 0;
  while (value >= 1000 && unit < 5) { value /= 1024; unit++; }
  return `${value >= 100 || value === Math.floor(value) ? Math.round(value) : value.toFixed(1)} ${
    ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]}`;
}

const sized = pages => `${pages.toLocaleString('en')} ${pages === 1 ? 'page' : 'pages'} (${
  bytes(pages)})`;

function since(seconds) {
  for (const [unit, name] of [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']])
    if (seconds >= unit) return `${(seconds / unit).toPrecision(3)} ${name}`;
  return `${(seconds * 1000).toPrecision(3)} ms`;
}

let pinned = false;

function tell(view, hit) {
  const page = $('page'), {side} = view;
  page.replaceChildren();
  $('stack').textContent = '';
  if (!hit) return;
  const zone = side.zone(hit.place);
  const add = (name, value, filterKey) => {
    const cell = make('dd', '');
    if (filterKey) {
      const button = make('button', value);
      button.title = 'see these alone';
      button.onclick = () => choose({keys: {[filterKey]: side.label(filterKey, hit.owner)},
        text: `${TITLES[filterKey] || filterKey} ${value}`});
      cell.append(button);
    } else cell.textContent = value;
    page.append(make('dt', name), cell);
  };
  if (zone) {
    const pfn = hit.place - zone[3] + zone[1];
    add('pfn', `${pfn} (0x${pfn.toString(16)}), at ${bytes(pfn)}`);
    add('zone', zone[0]);
  }
  if (hit.high - hit.low > 1)
    add('cell', `${sized(hit.high - hit.low)}; ${hit.owners === 1 ? 'all' : hit.pages.toLocaleString('en')
    + ' of them'} ${hit.owners === 1 ? 'of one owner' : `of this owner, ${hit.owners} owners`}`);
  if (hit.owner >= side.owners) {
    const role = SPECIAL[hit.owner - side.owners];
    add('owner', role === 'nothing' ? 'no memory here' : role === 'free'
      ? (side.sees_free ? 'nobody: free' : 'none recorded: free, reserved or no memory')
      : role === 'held' ? 'never given to the page allocator' : 'in use, not known by whom');
    return;
  }
  for (const name of about.keys.filter(name => name !== 'stack')) {
    const value = side.label(name, hit.owner);
    if (value !== null) add(TITLES[name] || name, value, name);
  }
  if (side.order[hit.run] !== NO_ORDER) {
    const size = 2 ** side.order[hit.run];
    add('block', `order ${side.order[hit.run]}: ${sized(size)}`);
  }
  if (!Number.isNaN(side.age[hit.run])) add('age', since(side.age[hit.run]));
  add('owns', sized(side.ownerPages[hit.owner]));
  $('stack').textContent = side.label('stack', hit.owner) || '(no stack)';
}

// Hands ---------------------------------------------------------------------------------------

let views = [], waiting = false;

function paint() {  // at the next frame, once for all that happens before it
  if (!waiting) requestAnimationFrame(paintNow);
  waiting = true;
}

function paintNow() {
  waiting = false;
  for (const view of views) view.paint();
  $('scale').textContent = `a cell is ${sized(views[0].frames)}`;
}

// Two snapshots of one machine are moved together.
function each(act) {
  for (const view of views) act(view);
  paint();
}

function listen(view) {
  const {canvas} = view;
  let from = null, moved = false;
  canvas.addEventListener('wheel', event => {
    event.preventDefault();
    each(one => one.zoom(event.deltaY < 0 ? 1 : -1, event.offsetX, event.offsetY));
  }, {passive: false});
  canvas.addEventListener('pointerdown', event => {
    from = [event.offsetX, event.offsetY];
    moved = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', event => {
    if (from && event.buttons) {
      const dx = Math.trunc((event.offsetX - from[0]) / view.px);
      const dy = Math.trunc((event.offsetY - from[1]) / view.px);
      if (dx || dy) {
        moved = moved || Math.abs(event.offsetX - from[0]) + Math.abs(event.offsetY - from[1]) > 4;
        if (!moved) return;
        from = [from[0] + dx * view.px, from[1] + dy * view.px];
        each(one => one.move(dx, dy));
      }
    } else if (!pinned) tell(view, view.at(event.offsetX, event.offsetY));
  });
  canvas.addEventListener('pointerup', event => {
    from = null;
    if (moved) return;
    const hit = view.at(event.offsetX, event.offsetY), {side} = view;
    if (pinned || !hit || hit.owner >= side.owners) {
      pinned = false;
      if (filter) choose(null);
      tell(view, hit);
      return;
    }
    // An owner: a task and what it took the memory for.
    const keys = {};
    for (const name of ['comm', 'tgid', 'stack']) keys[name] = side.label(name, hit.owner);
    tell(view, hit);
    pinned = true;
    const [comm, tgid] = [keys.comm, keys.tgid];
    choose({keys, text: (comm === null ? 'this owner' : `task ${comm}${tgid === null ? '' : ` (${
      tgid})`}`) + (side.label('subsystem', hit.owner) === null ? ''
      : `, ${side.label('subsystem', hit.owner)}`)});
  });
}

function keyboard(event) {
  if (event.target.tagName === 'SELECT' || event.ctrlKey || event.altKey || event.metaKey) return;
  const middle = view => [view.canvas.width / 2, view.canvas.height / 2];
  const steps = {ArrowLeft: [8, 0], ArrowRight: [-8, 0], ArrowUp: [0, 8], ArrowDown: [0, -8],
    PageUp: [0, 40], PageDown: [0, -40]};
  if (event.key === 'Escape') release();
  else if (event.key === '+') each(view => view.zoom(1, ...middle(view)));
  else if (event.key === '-') each(view => view.zoom(-1, ...middle(view)));
  else if (event.key === '0') each(view => view.all());
  else if (steps[event.key]) each(view => view.move(...steps[event.key]));
  else return;
  event.preventDefault();
}

function release() {
  pinned = false;
  choose(null);
}

(async () => {
  const columns = await unpack();
  sides = about.sides.map((info, number) => new Side(info, number, columns));
  document.title = `Physical memory: ${sides.map(side => side.source).join(' and ')}`;
  views = sides.map(side => new View(side, $('maps')));
  for (const name of about.aspects) {
    const option = make('option', TITLES[name] || name);
    option.value = name;
    $('by').append(option);
  }
  $('by').value = by;
  $('order').value = order;
  $('by').onchange = () => { by = $('by').value; filter = filter && filter.keys ? filter : null;
    classify(); paint(); };
  $('order').onchange = () => { order = $('order').value; each(view => view.all()); };
  $('in').onclick = () => each(view => view.zoom(1, view.canvas.width / 2, view.canvas.height / 2));
  $('out').onclick = () => each(view => view.zoom(-1, view.canvas.width / 2,
    view.canvas.height / 2));
  $('all').onclick = () => each(view => view.all());
  $('clear').onclick = release;
  document.addEventListener('keydown', keyboard);
  for (const [name, start, end, at] of sides[0].stretches) {
    const button = make('button', '', 'entry');
    button.append(make('span', name), make('b', `${bytes(start)} to ${bytes(end)}`));
    button.onclick = () => each(view => view.goto(at));
    $('zones').append(button);
  }
  for (const side of sides) for (const note of side.notes) $('notes').append(make('p', note, 'note'));
  classify();
  for (const view of views) { view.resize(); view.all(); listen(view); }
  new ResizeObserver(() => {
    for (const view of views) {
      const {width, height} = view.canvas.getBoundingClientRect();
      if (Math.round(width) === view.canvas.width && Math.round(height) === view.canvas.height)
        continue;
      const whole = view.level === view.top[0] && view.px === view.top[1];
      view.resize();
      if (whole) view.all(); else view.clamp();
    }
    paintNow();  // before the frame is shown: a canvas of a new size is empty
  }).observe($('maps'));
  paintNow();
})();
