// Drawing, and what hands do.

const at = id => document.getElementById(id);
const row = 18;
let root, focus, test = null;

function size(pages) {
  let value = Math.abs(pages) * about.page_size, unit = 0;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  while (value >= 1000 && unit < units.length - 1) { value /= 1024; unit++; }
  return value.toFixed(unit === 0 || value >= 100 || value === Math.floor(value) ? 0 : 1)
    + " " + units[unit];
}
const signed = pages => (pages > 0 ? "+" : pages < 0 ? "-" : "") + size(pages);
const pagesOf = n => n.toLocaleString("en") + (n === 1 ? " page" : " pages");
const inPages = about.page_size > 1; // of lines of code it is bytes
const sizeAndPages = n => size(n) + (inPages ? `, ${pagesOf(n)}` : "");

function blend(one, other, share) {
  const part = (text, i) => parseInt(text.slice(i, i + 2), 16);
  return "#" + [1, 3, 5].map(i => Math.round(part(one, i) * (1 - share) + part(other, i) * share)
    .toString(16).padStart(2, "0")).join("");
}

function colour(here) {
  if (at("colour").value === "change") {
    const most = Math.max(here.before, here.after);
    return blend(about.colours.same, here.after > here.before ? about.colours.more
      : about.colours.fewer, most ? Math.abs(here.after - here.before) / most : 0);
  }
  return coloured.get(mostly(here)) || about.colours.others;
}

function ink(background) {
  const [r, g, b] = [1, 3, 5].map(i => parseInt(background.slice(i, i + 2), 16));
  return r * 0.3 + g * 0.59 + b * 0.11 < 110 ? "#fff" : "#000";
}

/* Anew from the chains; what was zoomed into is kept by its path if it is still there. */
function rebuild() {
  const path = [];
  for (let up = focus; up && up.up; up = up.up) path.unshift(up.name);
  root = tree(at("from").value === "inner", about.difference ? at("width").value : "after");
  focus = root;
  for (const name of path) {
    const next = focus.kids.find(kid => kid.name === name);
    if (!next) break;
    focus = next;
  }
  legend();
  draw();
}

function draw() {
  const graph = at("graph"), wide = graph.clientWidth || 1;
  const shown = boxes(focus, 0.5 / wide);
  const deepest = Math.max(...shown.map(box => box.node.depth));
  const icicle = at("shape").value === "icicle";
  const high = (deepest + 1) * row;
  const room = Math.max(high, at("scroll").clientHeight - 4);
  graph.style.height = room + "px";
  graph.replaceChildren(...shown.map(box => {
    const made = document.createElement("div"), pixels = box.w * wide;
    const y = icicle ? box.node.depth * row : room - (box.node.depth + 1) * row;
    const fill = colour(box.node);
    made.style.cssText = `left:${box.x * wide}px;top:${y}px;width:${pixels}px;height:${row - 1}px;`
      + `background:${fill};color:${ink(fill)}`;
    if (pixels > 20) made.textContent = box.node.name; else made.className = "thin";
    if (box.below) made.classList.add("below");
    if (test && box.node.up && test(box.node.name)) made.classList.add("found");
    made.onclick = () => zoom(box.node);
    made.onmouseenter = () => tell(box.node);
    return made;
  }));
  at("scroll").scrollTop = icicle ? 0 : room;
  const sum = test ? matched(root, test) : 0;
  at("said").textContent = test ? `${(100 * sum / (root.width || 1)).toFixed(1)} %: ${size(sum)}`
    : "";
  graph.dataset.boxes = shown.length;
  tell(focus);
}

function zoom(here) {
  focus = here;
  draw();
}

function tell(here) {
  const facts = [["function", here.name]];
  if (about.difference) {
    facts.push(["change", signed(here.after - here.before)],
               ["before", sizeAndPages(here.before)],
               ["after", sizeAndPages(here.after)]);
  } else {
    facts.push(["size", size(here.after)],
               ...(inPages ? [["pages", pagesOf(here.after)]] : []));
  }
  if (root.width) {
    facts.push(["of all", `${(100 * here.width / root.width).toFixed(2)} %`]);
    if (here.up && here.up.width)
      facts.push(["of what it stands on", `${(100 * here.width / here.up.width).toFixed(1)} %`]);
  }
  const parts = [...here.of].sort((a, b) => b[1] - a[1]).slice(0, 5);
  parts.forEach(([what, width], place) => facts.push([place ? "" : "for",
    `${about.subsystems[what]}: ${size(width)}`]));
  at("box").replaceChildren(...facts.flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

function legend() {
  const measure = about.difference ? at("width").value : "after";
  const sums = about.subsystems.map(() => [0, 0, 0]);
  about.what.forEach((what, chain) => {
    sums[what][0] += weight(chain, measure);
    sums[what][1] += about.before[chain];
    sums[what][2] += about.after[chain];
  });
  const order = sums.map((_, what) => what).sort((a, b) => sums[b][0] - sums[a][0]);
  const changed = at("colour").value === "change";
  at("legend").replaceChildren(...order.map(what => {
    const name = about.subsystems[what], [, before, after] = sums[what];
    const most = Math.max(before, after);
    const fill = !changed ? coloured.get(name) || about.colours.others
      : blend(about.colours.same, after > before ? about.colours.more : about.colours.fewer,
              most ? Math.abs(after - before) / most : 0);
    return entry(name, about.difference ? signed(after - before) : size(after), fill, what);
  }));
}

function entry(name, value, fill, what) {
  const made = document.createElement("button"), square = document.createElement("i");
  const label = document.createElement("span"), number = document.createElement("b");
  made.className = "entry";
  made.setAttribute("aria-pressed", String(only === what));
  square.style.background = fill;
  label.textContent = label.title = name;
  number.textContent = value;
  made.append(square, label, number);
  made.onclick = () => { only = only === what ? null : what; rebuild(); };
  return made;
}

function find() {
  const text = at("search").value.trim().toLowerCase();
  test = text ? name => name.toLowerCase().includes(text) : null;
  draw();
}

function showAll() {
  focus = root;
  only = null;
  at("search").value = "";
  test = null;
  rebuild();
}

at("title").textContent = at("title").title = document.title = about.title;
at("colour").value = about.difference ? "change" : "subsystem";
at("shape").value = about.icicle ? "icicle" : "flame";
at("from").value = about.reverse ? "inner" : "outer";
if (!about.difference) {
  at("widthBox").hidden = true;
  at("colour").parentNode.hidden = true;
}
at("colour").onchange = () => { legend(); draw(); };
at("shape").onchange = draw;
at("from").onchange = at("width").onchange = () => { focus = null; rebuild(); };
at("search").oninput = find;
at("all").onclick = showAll;
addEventListener("resize", draw);
addEventListener("keydown", event => {
  if (event.key === "Escape") showAll();
  else if (event.key === "/" && document.activeElement !== at("search")) {
    event.preventDefault();
    at("search").focus();
  }
});
rebuild();
