// SPDX-License-Identifier: Apache-2.0
// The web page: asks the API every two seconds and shows it. Changes nothing. All that comes from
// the API is put in as text, never as markup.
'use strict';

const EVERY_MS = 2000;
const POINTS = 60;                     // two minutes of charts
const HISTORY_MS = 15 * 60 * 1000;     // of health
const EVENTS_KEPT = 4096;
const EVENTS_SHOWN = 20;

const state = {
  token: '', before: null, beforeWorkers: null, series: new Map(), events: [], last: null,
};

const $ = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const svg = ['svg', 'rect', 'polyline', 'line', 'text', 'title'].includes(tag);
  const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children.map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
  return e;
}

class NoToken extends Error {}

async function ask(path) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  const answer = await fetch(path, { headers, cache: 'no-store' });
  const body = await answer.json();
  if (answer.status === 401) throw new NoToken(body.errors[0].message);
  if (!answer.ok) throw new Error(body.errors[0].message);
  return body;
}

function human(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return '–';
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (n >= size) return `${(n / size).toFixed(n >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return n >= 10 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}

// rate() is what a counter grew by, per second; null: not known, or it began anew.
function rate(now, before, key, seconds) {
  if (!now || !before || !(seconds > 0) || now[key] < before[key]) return null;
  return (now[key] - before[key]) / seconds;
}

// note() remembers a value of a chart's line.
function note(name, value) {
  const line = state.series.get(name) || [];
  line.push(value);
  if (line.length > POINTS) line.shift();
  state.series.set(name, line);
  return line;
}

function points(line, width, height, most, x0 = 0, y0 = 0) {
  return line.map((v, i) => [i, v]).filter(([, v]) => v !== null).map(([i, v]) => {
    const x = x0 + width * (POINTS - line.length + i) / (POINTS - 1);
    return `${x.toFixed(1)},${(y0 + height * (1 - v / most)).toFixed(1)}`;
  }).join(' ');
}

function nice(most) {
  if (most <= 0) return 1;
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((m) => m * size).find((m) => m >= most);
}

function spark(line, most) {
  const svg = make('svg', { width: 120, height: 20, viewBox: '0 0 120 20' });
  svg.append(make('line', { class: 'axis', x1: 0, x2: 120, y1: 19, y2: 19 }),
    make('polyline', {
      class: 's0',
      points: points(line, 118, 17, most || Math.max(1, ...line), 1, 1),
    }));
  return svg;
}

// chart() draws lines [name, values]; unit: 1 for a share of one.
function chart(title, lines, unit) {
  const most = unit || nice(Math.max(0, ...lines.flatMap(([, line]) => line)));
  const svg = make('svg', { viewBox: '0 0 400 130', role: 'img', 'aria-label': title });
  for (const part of [0, 0.5, 1]) {
    const y = 8 + 104 * (1 - part);
    const label = unit ? `${Math.round(100 * part * most)}%` : human(most * part);
    svg.append(make('line', { class: 'axis', x1: 44, x2: 396, y1: y, y2: y }),
      make('text', { x: 40, y: y + 3, 'text-anchor': 'end' }, label));
  }
  svg.append(make('text', { x: 44, y: 126 }, '2 min ago'),
    make('text', { x: 396, y: 126, 'text-anchor': 'end' }, 'now'));
  const legend = make('div', { class: 'legend' });
  lines.forEach(([name, line], i) => {
    svg.append(make('polyline', {
      class: `s${i % 4}`, points: points(line, 352, 104, most, 44, 8),
    }));
    const now = line[line.length - 1];
    legend.append(make('span', {}, make('span', { class: `key${i % 4}` }, '■ '),
      `${name}: ${unit ? `${Math.round(100 * (now || 0))}%` : human(now)}`));
  });
  return make('figure', {}, make('figcaption', {}, title), svg, legend);
}

const colours = {
  up: 'up', running: 'up', down: 'down', stalled: 'down', absent: 'down', degraded: 'warn',
  panic: 'down', 'in use': 'up', flapping: 'warn', 'slow start': 'warn', draining: 'warn',
  drained: 'warn', unreachable: 'down', 'forced down': 'down',
};
const badge = (word) => make('span', { class: `badge ${colours[word] || ''}` }, word);
const number = (text) => make('td', { class: 'n' }, text);
const cell = (...what) => make('td', {}, ...what);

function fill(id, rows, columns, empty) {
  $(id).tBodies[0].replaceChildren(...(rows.length ? rows
    : [make('tr', {}, make('td', { colspan: columns, class: 'empty' }, empty))]));
}

// strip() shows what health checks have said of a backend in the last minutes.
function strip(service, backend, health) {
  const now = Date.now();
  const from = now - HISTORY_MS;
  const said = state.events.filter((e) => e.type === 'health' && e.service === service
    && e.backend === backend);
  const width = 180;
  const x = (t) => width * (Math.max(t, from) - from) / HISTORY_MS;
  const svg = make('svg', { width, height: 14, viewBox: `0 0 ${width} 14` });
  // Without an event nothing has changed since the oldest one that is kept.
  let at = from;
  let is = said.length ? 'unknown' : health;
  const shown = (word) => (word === 'up' || word === 'unchecked' ? 'up'
    : word === 'down' ? 'down' : 'unknown');
  const piece = (to) => {
    if (x(to) > x(at)) {
      svg.append(make('rect', {
        class: shown(is), x: x(at).toFixed(1), y: 1, width: (x(to) - x(at)).toFixed(1), height: 12,
      }));
    }
  };
  for (const e of said) {
    const t = Date.parse(e.time);
    piece(t);
    at = Math.max(t, from);
    is = e.health;
  }
  piece(now);
  const changes = said.filter((e) => Date.parse(e.time) >= from).length;
  svg.append(make('title', {}, `${changes} changes in 15 minutes; now ${health}`));
  return svg;
}

function sentence(e) {
  switch (e.type) {
    case 'revision':
      return `revision ${e.revision} by ${e.author || 'unknown'}: ${e.changes} changes`
        + (e.reason ? `: ${e.reason}` : '');
    case 'health': return `backend ${e.backend}: ${e.health} (${e.text})`;
    case 'tier':
      if (e.tier === null) return `no tier can serve any longer; it was tier ${e.before}`;
      return `new connections go to tier ${e.tier}`
        + (e.before === null ? '' : `, no longer to tier ${e.before}`);
    case 'panic':
      return e.panic ? 'too few backends can serve: health is ignored'
        : 'enough backends can serve again';
    case 'announce':
      return `${e.address}: ${e.announced ? 'announced' : `withdrawn: ${e.reason}`}`;
    case 'publish': return `generation ${e.generation}: ${e.tables_built} tables built`;
    case 'dataplane':
      return e.state + (e.pid ? `: process ${e.pid}, ${e.workers} workers` : '');
    case 'node':
      return `this node is ${e.state === 'drained' ? 'drained' : 'taken back in'}`
        + (e.reason ? `: ${e.reason}` : '');
    default: return e.text || '';
  }
}

function showStatus(s) {
  $('node').textContent = s.node;
  document.title = `Sluice ${s.node}`;
  $('facts').textContent = `version ${s.version} · revision ${s.revision} · generation `
    + `${s.generation} · data plane ${s.dataplane.state} · ${s.backends.up} of `
    + `${s.backends.total} backends up · ${human(s.connections.tracked)} connections`;
  const word = s.dataplane.state !== 'running' ? `data plane ${s.dataplane.state}`
    : s.published ? 'in step' : 'not published';
  $('link').textContent = word;
  $('link').className = `badge ${word === 'in step' ? 'up' : 'down'}`;
  $('warnings').replaceChildren(...s.warnings.map((w) => make('li', {}, w)));
}

function showCharts(stats, workers, seconds) {
  const total = (key) => rate(stats.total, state.before && state.before.total, key, seconds);
  const bits = (key) => { const r = total(key); return r === null ? null : 8 * r; };
  $('charts').replaceChildren(
    chart('Packets/s', [
      ['received', note('t rx', total('rx_packets'))],
      ['forwarded', note('t fw', total('forwarded'))],
      ['dropped', note('t drop', total('dropped'))],
      ['by the stand-in', note('t standin', total('standin_forwarded'))]]),
    chart('Bit/s', [['received', note('t rxb', bits('rx_bytes'))],
      ['sent', note('t txb', bits('tx_bytes'))]]),
    chart('Load of workers', workers.slice(0, 8).map(
      (w) => [`worker ${w.id}`, note(`w ${w.id}`, w.busy)]), 1));
}

function showServices(services, stats, seconds) {
  const before = new Map(((state.before && state.before.services) || []).map((s) => [s.name, s]));
  const counted = new Map(stats.services.map((s) => [s.name, s]));
  fill('services', services.map((s) => {
    const now = counted.get(s.name);
    const was = before.get(s.name);
    const packets = rate(now, was, 'packets', seconds);
    const bytes = rate(now, was, 'bytes', seconds);
    return make('tr', {}, cell(s.name), cell(`${s.address} ${s.protocol}/${s.port}`),
      cell(s.forward), cell(s.scheduler),
      cell(badge(s.state), s.panic ? ' ' : '', s.panic ? badge('panic') : ''),
      number(`${s.backends_in_use}/${s.backends_total}`), number(s.tier ?? '–'),
      number(human(packets)), number(human(bytes === null ? null : 8 * bytes)),
      number(human(rate(now, was, 'connections_opened', seconds))),
      number(now ? human(now.connections) : '–'), cell(spark(note(`s ${s.name}`, packets))));
  }), 12, 'no services');
}

// reports() is what a backend says of itself, beside its check.
function reports(b) {
  const ago = (ms) => (ms === null ? '' : `, ${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s ago`);
  let said = '';
  if (b.agent) said += `; agent: ${b.agent.problem || b.agent.line}${ago(b.agent.age_ms)}`;
  if (b.heartbeat) {
    const load = b.heartbeat.load === null ? '' : `, load ${b.heartbeat.load}`;
    said += `; heartbeat: ${b.heartbeat.state}${load}${ago(b.heartbeat.age_ms)}`;
  }
  return said;
}

function showBackends(backends, stats, seconds) {
  const flat = (all) => new Map(((all && all.services) || []).flatMap(
    (s) => s.backends.map((b) => [`${s.name} ${b.address}`, b])));
  const counted = flat(stats);
  const before = flat(state.before);
  fill('backends', backends.map((b) => {
    const key = `${b.service} ${b.address}`;
    return make('tr', {}, cell(b.service), cell(b.address), cell(badge(b.health)),
      make('td', { class: 'wide' }, b.health_text + reports(b)), cell(badge(b.standing)), number(b.tier),
      number(b.effective_weight === b.weight ? b.weight : `${b.effective_weight} of ${b.weight}`),
      number(`${(100 * b.share).toFixed(1)}%`),
      number(human(rate(counted.get(key), before.get(key), 'packets', seconds))),
      number(human(b.connections)), cell(strip(b.service, b.address, b.health)));
  }), 11, 'no backends');
}

function showWorkers(workers, seconds) {
  const before = new Map((state.beforeWorkers || []).map((w) => [w.id, w]));
  fill('workers', workers.map((w) => {
    const bar = make('svg', { width: 120, height: 12, viewBox: '0 0 120 12' },
      make('rect', { class: 'back', x: 0, y: 1, width: 120, height: 10, rx: 2 }),
      make('rect', {
        class: w.busy > 0.8 ? 'high' : 'load', x: 0, y: 1, width: 120 * w.busy, height: 10, rx: 2,
      }));
    return make('tr', {}, number(w.id), cell(badge(w.state)), number(w.cpu),
      cell(w.ports.join(', ')), cell(bar), number(`${Math.round(100 * w.busy)}%`),
      number(human(rate(w, before.get(w.id), 'rx_packets', seconds))),
      number(human(w.connections)), cell(spark(state.series.get(`w ${w.id}`) || [], 1)));
  }), 9, 'no data plane runs');
}

function showEvents() {
  const rows = state.events.filter((e) => e.type !== 'publish').slice(-EVENTS_SHOWN).reverse();
  fill('events', rows.map((e) => make('tr', {}, cell(e.time.replace('T', ' ').replace('Z', '')),
    cell(e.type), cell(e.service || ''), make('td', { class: 'wide' }, sentence(e)))), 4,
  'nothing yet');
}

async function look() {
  const after = state.last === null ? `?limit=${EVENTS_KEPT}` : `?after=${state.last}`;
  const [status, services, backends, workers, stats, events] = await Promise.all(
    ['status', 'services', 'backends', 'workers', 'stats', `events/recent${after}`]
      .map((call) => ask(`/v1/${call}`)));
  if (events.missed) state.events = [];
  state.events = state.events.concat(events.events).slice(-EVENTS_KEPT);
  state.last = events.last;
  const seconds = state.before ? (Date.parse(stats.time) - Date.parse(state.before.time)) / 1000
    : 0;
  $('login').hidden = true;
  $('main').hidden = false;
  showStatus(status);
  showCharts(stats, workers.workers, seconds);
  showServices(services.services, stats, seconds);
  showBackends(backends.backends, stats, seconds);
  showWorkers(workers.workers, seconds);
  showEvents();
  state.before = stats;
  state.beforeWorkers = workers.workers;
}

async function run() {
  try {
    await look();
    setTimeout(run, EVERY_MS);
  } catch (e) {
    if (e instanceof NoToken) {
      $('main').hidden = true;
      $('login').hidden = false;
      $('login-error').textContent = state.token ? e.message : '';
      $('link').textContent = 'no token';
      $('link').className = 'badge warn';
      return;
    }
    $('link').textContent = `no answer: ${e.message}`;
    $('link').className = 'badge down';
    setTimeout(run, EVERY_MS);
  }
}

// The token stays in this tab; a link may bring it after the #, which is sent to no server.
const brought = /^#token=(.+)$/.exec(window.location.hash);
if (brought) {
  sessionStorage.setItem('token', decodeURIComponent(brought[1]));
  window.history.replaceState(null, '', window.location.pathname);
}
state.token = sessionStorage.getItem('token') || '';
$('login').addEventListener('submit', (e) => {
  e.preventDefault();
  state.token = $('token').value.trim();
  sessionStorage.setItem('token', state.token);
  run();
});
run();
