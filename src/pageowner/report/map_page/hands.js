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
    for (const name of ['comm', 'pid', 'stack']) keys[name] = side.label(name, hit.owner);
    tell(view, hit);
    pinned = true;
    const [comm, pid] = [keys.comm, keys.pid];
    choose({keys, text: (comm === null ? 'this owner' : `task ${comm}${pid === null ? '' : ` (${
      pid})`}`) + (side.label('subsystem', hit.owner) === null ? ''
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
  for (const note of new Set(sides.flatMap(side => side.notes)))
    $('notes').append(make('p', note, 'note'));
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
