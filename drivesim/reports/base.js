// Elements, numbers and the clock that everything on a page follows.
const parsed = new Map();
const data = (id) => {
  if (!parsed.has(id)) {
    const tag = document.getElementById(id);
    parsed.set(id, tag ? JSON.parse(tag.textContent) : null);
  }
  return parsed.get(id);
};

const fill = (node, attributes, children) => {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'style') for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

// Delta-coded integers back to numbers.
const sums = (steps, perUnit) => {
  const values = new Float64Array(steps.length);
  let total = 0;
  for (let i = 0; i < steps.length; i += 1) {
    total += steps[i];
    values[i] = total / perUnit;
  }
  return values;
};
const points = ([xs, ys], perMetre) => {
  const x = sums(xs, perMetre);
  const y = sums(ys, perMetre);
  return Array.from(x, (value, i) => [value, y[i]]);
};

// Last index whose time is not after t (at least 0).
const indexAt = (times, t) => {
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= t + 1e-9) low = middle;
    else high = middle - 1;
  }
  return low;
};
const valueAt = (times, values, t) => {
  const i = indexAt(times, t);
  if (i + 1 >= times.length || t <= times[i]) return values[i];
  const part = (t - times[i]) / (times[i + 1] - times[i]);
  return values[i] + part * (values[i + 1] - values[i]);
};

const number = (value, digits = 1) => (value === undefined || value === null ? '–' : value.toFixed(digits).replace('-', '−'));
const signed = (value, digits = 1) => (value > 0 ? '+' : '') + number(value, digits);
const words = (name) => name.replaceAll('_', ' ');
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const HUES = ['#2f6fed', '#e07a34', '#8b93a1', '#17a673', '#a855f7', '#e0457b', '#0ea5b7', '#a3a31c'];
const NAMED = { latent: 0, 'behaviour-cloning': 1, 'constant-velocity': 2, expert: 3 };
const hue = (planner, planners) => {
  if (planner in NAMED) return HUES[NAMED[planner]];
  const others = planners.filter((name) => !(name in NAMED));
  return HUES[4 + (others.indexOf(planner) % 4)];
};
// Red over amber to green, light enough for dark text on it.
const scoreColour = (share) => `hsl(${Math.round(4 + 146 * clamp(share, 0, 1) ** 1.3)} 62% ${Math.round(76 - 12 * clamp(share, 0, 1))}%)`;
// Speed: violet (slow) over teal to yellow (fast).
const speedColour = (share) => `hsl(${Math.round(275 - 225 * clamp(share, 0, 1))} 75% 52%)`;
const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A canvas that keeps to its box's size and calls draw(context, width, height) when asked or resized.
const canvas = (draw) => {
  const node = el('canvas');
  const paint = () => {
    const ratio = window.devicePixelRatio || 1;
    const width = node.clientWidth;
    const height = node.clientHeight;
    if (!width || !height) return;
    if (node.width !== Math.round(width * ratio) || node.height !== Math.round(height * ratio)) {
      node.width = Math.round(width * ratio);
      node.height = Math.round(height * ratio);
    }
    const context = node.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height, ratio);
  };
  new ResizeObserver(paint).observe(node);
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', paint);
  return { node, paint };
};

// One time for map, pictures, curves and plan.
class Player {
  constructor(duration) {
    this.duration = Math.max(duration, 0.01);
    this.time = 0;
    this.playing = false;
    this.rate = 1;
    this.listeners = [];
  }

  onChange(listener) {
    this.listeners.push(listener);
    listener(this.time);
  }

  seek(time) {
    this.time = clamp(time, 0, this.duration);
    for (const listener of this.listeners) listener(this.time);
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing && this.time >= this.duration - 0.05) this.time = 0;
    this.last = performance.now();
    if (this.playing) requestAnimationFrame((now) => this.advance(now));
    this.seek(this.time);
  }

  advance(now) {
    if (!this.playing) return;
    const time = this.time + ((now - this.last) / 1000) * this.rate;
    this.last = now;
    if (time >= this.duration) this.playing = false;
    this.seek(time);
    if (this.playing) requestAnimationFrame((next) => this.advance(next));
  }

  stop() {
    this.playing = false;
    this.listeners = [];
  }
}

const playIcon = (playing) =>
  svg('svg', { width: 16, height: 16, viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    playing ? [svg('rect', { x: 3, y: 2, width: 4, height: 12 }), svg('rect', { x: 9, y: 2, width: 4, height: 12 })] : svg('path', { d: 'M4 2 L14 8 L4 14 Z' }));

// Play button, slider, marks of events and the clock.
const playbar = (player, marks) => {
  const button = el('button', { class: 'play', 'aria-label': 'play or pause', onclick: () => player.toggle() }, playIcon(false));
  const slider = el('input', { type: 'range', min: 0, max: player.duration, step: 0.05, 'aria-label': 'time', oninput: () => player.seek(Number(slider.value)) });
  const clock = el('span', { class: 'clock' });
  const rate = el('button', { class: 'small', 'aria-label': 'playback rate', onclick: () => {
    player.rate = { 1: 2, 2: 4, 4: 1 }[player.rate];
    rate.textContent = `${player.rate}×`;
  } }, '1×');
  const taken = [];
  const flags = marks.map(({ t, label }) => {
    const share = (t / player.duration) * 100;
    const hidden = taken.some((other) => Math.abs(other - share) < 9);
    if (!hidden) taken.push(share);
    return el('button', { class: 'mark', title: `${label} at ${number(t, 2)} s`, style: { left: `calc(8px + (100% - 16px) * ${share / 100})` }, onclick: () => player.seek(Math.max(0, t - 1)) }, hidden ? '\u00a0' : label);
  });
  let shown = false;
  player.onChange((time) => {
    slider.value = time;
    clock.textContent = `${number(time, 1)} / ${number(player.duration, 1)} s`;
    if (shown !== player.playing) button.replaceChildren(playIcon(player.playing));
    shown = player.playing;
  });
  return el('div', { class: 'card playbar' }, button, el('div', { class: 'track' }, flags, slider), clock, rate);
};

// Space plays, arrows step; one handler for whatever player is shown.
let active = null;
document.addEventListener('keydown', (event) => {
  if (!active || event.target.tagName === 'INPUT' || event.target.tagName === 'BUTTON') return;
  if (event.key === ' ') active.toggle();
  else if (event.key === 'ArrowRight') active.seek(active.time + 0.25);
  else if (event.key === 'ArrowLeft') active.seek(active.time - 0.25);
  else return;
  event.preventDefault();
});
