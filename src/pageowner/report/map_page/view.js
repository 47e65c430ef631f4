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
