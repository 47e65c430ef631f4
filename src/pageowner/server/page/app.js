// The frame: which view is shown, as the address's fragment says, and what is known of the source.

import {history} from './history.js';
import {age, el, get, moment} from './tools.js';
import {balance, flame, frag, leaks, map, owners} from './views.js';

const VIEWS = {owners: ['Owners', owners], balance: ['Balance', balance], leaks: ['Leaks', leaks],
  history: ['History', history], flame: ['Flame', flame], map: ['Map', map],
  frag: ['Fragmentation', frag]};

const view = document.getElementById('view'), status = document.getElementById('state');
const about = {keys: [], captures: [], moment};
let turn = 0;

const parts = () => {
  const [name, words] = location.hash.slice(1).split('?');
  return [Object.hasOwn(VIEWS, name) ? name : 'owners',
    Object.fromEntries(new URLSearchParams(words || ''))];
};

function change(name, state, words, quietly) {
  const query = new URLSearchParams(Object.entries({...state, ...words}).filter(
    ([, value]) => value !== '')).toString();
  const fragment = `#${name}${query ? `?${query}` : ''}`;
  if (quietly) history_replace(fragment); else location.hash = fragment;
}

const history_replace = fragment => window.history.replaceState(null, '', fragment);

async function draw() {
  const [name, state] = parts(), mine = ++turn, [title, shown] = VIEWS[name];
  document.title = `${title}: ${about.source || 'pageowner'}`;
  document.getElementById('views').replaceChildren(...Object.entries(VIEWS).map(
    ([other, [label]]) => el('a', {href: `#${other}`,
      'aria-current': other === name ? 'page' : null}, label)));
  view.setAttribute('aria-busy', 'true');
  const focused = document.activeElement && view.contains(document.activeElement)
    ? [...view.querySelectorAll('button, select, input, summary')].indexOf(document.activeElement)
    : -1;
  try {
    await shown(about, state, (...inside) => {
      if (mine === turn) view.replaceChildren(...inside.flat(3).filter(Boolean));
    }, (words, quietly) => change(name, quietly ? parts()[1] : state, words, quietly));
  } catch (error) {
    if (mine === turn) view.replaceChildren(el('p', {class: 'error'}, error.message),
      ...(state.by ? [el('p', {}, el('a', {href: `#${name}`}, 'Group by stack'))] : []));
  }
  if (mine !== turn) return;
  for (const place of view.querySelectorAll('.scroll')) {
    // what scrolls must be within reach of the keyboard
    if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
  }
  view.removeAttribute('aria-busy');
  if (focused >= 0) view.querySelectorAll('button, select, input, summary')[focused]?.focus();
}

async function learn() {
  try {
    const found = await get('api/figures');
    Object.assign(about, {keys: found.keys, source: found.source});
    document.getElementById('title').textContent = found.source;
    const taken = found.taken === null ? 'it does not say when it was taken'
      : `${moment(found.taken)}, ${age(Math.max(Date.now() / 1000 - found.taken, 0))} ago`;
    status.textContent = [found.tracking ? 'tracked live' : null, taken, ...found.notes,
      found.error].filter(Boolean).join('; ');
    about.captures = (await get('api/captures')).captures;
    return true;
  } catch (error) {
    status.textContent = error.message;
    return false;
  }
}

window.addEventListener('hashchange', draw);
while (!await learn()) await new Promise(done => setTimeout(done, 1000));
await draw();
setInterval(() => { if (!document.hidden) learn(); }, 60000);
