"use strict";
// What is shown: chains of frames merged from one end, each node with its pages.

const about = JSON.parse(document.getElementById("about").textContent);
const others = -1;
const coloured = new Map(Object.entries(about.colours.subsystems));
let only = null; // the place of the one subsystem that is shown, or null

function weight(chain, measure) {
  const before = about.before[chain], after = about.after[chain];
  return measure === "before" ? before : measure === "after" ? after
    : measure === "change" ? Math.abs(after - before) : Math.max(before, after);
}

/* The tree of all chains that are shown. A node: name, depth, up (its parent), kids in order of
   name, before, after and width in pages, of (width by subsystem). */
function tree(reversed, measure) {
  const root = node("all", null);
  about.chains.forEach((frames, chain) => {
    if (only !== null && about.what[chain] !== only) return;
    const width = weight(chain, measure);
    const ordered = reversed ? [...frames].reverse() : frames;
    let here = root;
    count(here, chain, width);
    for (const frame of ordered) {
      let next = here.byFrame.get(frame);
      if (!next) {
        next = node(about.names[frame], here);
        here.byFrame.set(frame, next);
        here.kids.push(next);
      }
      here = next;
      count(here, chain, width);
    }
  });
  sort(root);
  return root;
}

function node(name, up) {
  return {name, up, depth: up ? up.depth + 1 : 0, kids: [], byFrame: new Map(), of: new Map(),
          before: 0, after: 0, width: 0};
}

function count(here, chain, width) {
  here.before += about.before[chain];
  here.after += about.after[chain];
  here.width += width;
  here.of.set(about.what[chain], (here.of.get(about.what[chain]) || 0) + width);
}

function sort(root) {
  const waiting = [root];
  while (waiting.length) {
    const here = waiting.pop();
    here.kids.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
    waiting.push(...here.kids);
  }
}

function mostly(here) {
  let best = null, most = -1;
  for (const [what, width] of here.of) if (width > most) [best, most] = [what, width];
  return best === null ? "" : about.subsystems[best];
}

/* Boxes of a tree zoomed into one node: the node and those above it as wide as the window, then
   what stands on it. Each: node, x and w as shares of the window, zoomed (stands below). */
function boxes(focus, least) {
  const found = [];
  for (let up = focus.up; up; up = up.up) found.push({node: up, x: 0, w: 1, below: true});
  found.reverse();
  const waiting = [{node: focus, x: 0, w: 1, below: false}];
  while (waiting.length) {
    const box = waiting.pop();
    found.push(box);
    if (!focus.width) continue;
    let x = box.x;
    for (const kid of box.node.kids) {
      const w = kid.width / focus.width;
      if (w >= least) waiting.push({node: kid, x, w, below: false});
      x += w;
    }
  }
  return found;
}

/* Width of all nodes whose name has the text in it, those on top of others not counted twice. */
function matched(root, test) {
  let sum = 0;
  const waiting = [root];
  while (waiting.length) {
    const here = waiting.pop();
    if (here.up && test(here.name)) sum += here.width; else waiting.push(...here.kids);
  }
  return sum;
}
