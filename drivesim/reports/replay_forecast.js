// What the model imagined at a moment, against what came: small maps and readouts per step.
const fromBytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const UNITS = ['m', 'mps', 'mps2', 's', 'rad'];
const splitName = (name) => {
  const parts = name.split('_');
  const last = parts[parts.length - 1];
  return UNITS.includes(last) ? [words(parts.slice(0, -1).join('_')), { mps: 'm/s', mps2: 'm/s²' }[last] || last] : [words(name), ''];
};
const IMAGINED = '#a855f7';
const CAME = '#17a673';

// A small map in the ego frame, forward is up; both futures at one step ahead.
class MiniMap {
  constructor(forecasts, step, state) {
    Object.assign(this, { forecasts, step, state });
    this.view = canvas((context, width, height) => this.draw(context, width, height));
    this.view.node.style.aspectRatio = '3 / 4';
  }

  grid(context, grid, colour, project) {
    if (!grid) return;
    const [, steps, rows, columns] = grid.shape;
    const [x0, x1, y0, y1] = this.forecasts.extent;
    const start = (this.state.index * steps + this.step) * rows * columns;
    const [dx, dy] = [(x1 - x0) / rows, (y1 - y0) / columns];
    context.fillStyle = colour;
    for (let row = 0; row < rows; row += 1) for (let column = 0; column < columns; column += 1) {
      const value = grid.bytes[start + row * columns + column] / 255;
      if (value < 0.08) continue;
      context.globalAlpha = 0.65 * value;
      const [px, py] = project(x1 - row * dx, y1 - column * dy);
      const [qx, qy] = project(x1 - (row + 1) * dx, y1 - (column + 1) * dy);
      context.fillRect(px, py, qx - px + 0.5, qy - py + 0.5);
    }
    context.globalAlpha = 1;
  }

  draw(context, width, height) {
    const { forecasts, state, step } = this;
    const [x0, x1] = forecasts.extent;
    const scale = height / (x1 - x0);
    const project = (x, y) => [width / 2 - y * scale, height - (x - x0) * scale];
    context.fillStyle = theme('--wash');
    context.fillRect(0, 0, width, height);
    context.strokeStyle = theme('--line');
    context.lineWidth = 1;
    for (let x = Math.ceil(x0 / 10) * 10; x <= x1; x += 10) polyline(context, [[0, project(x, 0)[1]], [width, project(x, 0)[1]]]);
    this.grid(context, forecasts.grids.actual, CAME, project);
    this.grid(context, forecasts.grids.imagined, IMAGINED, project);
    const gap = forecasts.readouts.lead_gap_m;
    for (const [kind, colour, side, size] of [['actual', CAME, 1, 2.6], ['imagined', IMAGINED, -1, 1.5]]) {
      const line = forecasts[`${kind}Paths`][state.index];
      context.strokeStyle = colour;
      context.fillStyle = colour;
      context.lineWidth = size;
      polyline(context, [[0, 0], ...line.slice(0, step + 1)].map(([x, y]) => project(x, y)));
      const [x, y] = line[step];
      const [px, py] = project(x, y);
      const before = step > 0 ? line[step - 1] : [0, 0];
      context.save();
      context.translate(px, py);
      context.rotate(Math.hypot(x - before[0], y - before[1]) > 0.3 ? -Math.atan2(y - before[1], x - before[0]) : 0);
      context.globalAlpha = 0.55;
      context.fillRect(-scale, -3.4 * scale, 2 * scale, 4.6 * scale);
      context.restore();
      const metres = gap && gap[kind][state.index][step];
      if (metres !== null && metres !== undefined) {
        // The car ahead: as far beyond the front bumper as the readout says.
        const [, gy] = project(x + 3.4 + metres, y);
        context.fillRect(px - 1.2 * scale + side * 2, gy - 2, 2.4 * scale, 4);
        context.globalAlpha = 0.35;
        context.fillRect(px - 1.0 * scale + side * 2, gy - 4.6 * scale, 2 * scale, 4.6 * scale);
      }
      context.globalAlpha = 1;
    }
  }
}

const decodeForecasts = (forecasts) => ({
  ...forecasts,
  imaginedPaths: forecasts.imagined.map((path) => points(path, 20)),
  actualPaths: forecasts.actual.map((path) => points(path, 20)),
  grids: Object.fromEntries(Object.entries(forecasts.grids).map(([name, grid]) => [name, { ...grid, bytes: fromBytes(grid.data) }])),
});

// Horizontal axis: seconds ahead; lines: {name, hue, values, dashed}.
const aheadChart = (title, unit, times, read) => {
  const view = canvas((context, width, height) => {
    const lines = read();
    const all = lines.flatMap((line) => line.values).filter((value) => value !== null && Number.isFinite(value));
    let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
    if (unit === '' && low >= 0 && high <= 1) [low, high] = [0, 1];
    if (high - low < 1e-6) [low, high] = [low - 0.5, high + 0.5];
    const [left, head, foot] = [36, 40, 18];
    const x = (t) => left + (t / times[times.length - 1]) * (width - left - 8);
    const y = (value) => head + (1 - (value - low) / (high - low)) * (height - head - foot);
    context.font = '11px system-ui, sans-serif';
    const step = niceStep(high - low);
    for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) {
      context.strokeStyle = theme('--line');
      context.lineWidth = 1;
      polyline(context, [[left, y(value)], [width - 8, y(value)]]);
      context.fillStyle = theme('--faint');
      context.textAlign = 'right';
      context.fillText(number(value, step < 1 ? 1 : 0), left - 6, y(value) + 4);
    }
    context.textAlign = 'left';
    let at = 0;
    context.font = '600 12px system-ui, sans-serif';
    context.fillStyle = theme('--ink');
    context.fillText(`${title}${unit ? `, ${unit}` : ''}`, 0, 12);
    context.font = '12px system-ui, sans-serif';
    for (const line of lines) {
      context.strokeStyle = line.hue;
      context.fillStyle = line.hue;
      context.lineWidth = 2;
      context.setLineDash(line.dashed ? [5, 4] : []);
      polyline(context, [[at, 26], [at + 16, 26]]);
      context.beginPath();
      let open = false;
      line.values.forEach((value, i) => {
        if (value === null) { open = false; return; }
        if (open) context.lineTo(x(times[i]), y(value));
        else context.moveTo(x(times[i]), y(value));
        open = true;
      });
      context.stroke();
      context.setLineDash([]);
      line.values.forEach((value, i) => {
        if (value === null) return;
        context.beginPath();
        context.arc(x(times[i]), y(value), 2.5, 0, 7);
        context.fill();
      });
      context.fillStyle = theme('--soft');
      context.fillText(line.name, at + 20, 30);
      at += context.measureText(line.name).width + 32;
    }
    context.fillStyle = theme('--faint');
    context.fillText('seconds ahead', left, height - 3);
    context.textAlign = 'right';
    context.fillText(`${number(times[times.length - 1], 1)} s`, width - 8, height - 3);
  });
  return { node: el('div', { class: 'chart', style: { height: '170px' } }, view.node), paint: view.paint };
};

const forecastCard = (forecasts, player) => {
  const state = { index: 0 };
  const count = Math.min(4, forecasts.horizon.length);
  const steps = Array.from({ length: count }, (_, i) => Math.round(((i + 1) * forecasts.horizon.length) / count) - 1);
  const maps = steps.map((step) => new MiniMap(forecasts, step, state));
  const charts = Object.keys(forecasts.readouts).map((name) => {
    const [label, unit] = splitName(name);
    return aheadChart(label, unit, forecasts.horizon, () => [
      { name: 'came', hue: CAME, values: forecasts.readouts[name].actual[state.index] },
      { name: 'imagined', hue: IMAGINED, values: forecasts.readouts[name].imagined[state.index], dashed: true }]);
  });
  const when = el('small', {});
  player.onChange((time) => {
    state.index = indexAt(forecasts.t, time);
    when.textContent = `looking ahead from ${number(forecasts.t[state.index], 1)} s along the driven actions`;
    [...maps.map((map) => map.view), ...charts].forEach((part) => part.paint());
  });
  return el('section', { class: 'card' },
    el('h2', {}, 'Imagined and came', when),
    el('div', { class: 'facts', style: { 'margin': '0 0 10px' } }, el('span', {}, el('i', { class: 'dot', style: { '--hue': IMAGINED } }), ' imagined, read out by probes'), el('span', {}, el('i', { class: 'dot', style: { '--hue': CAME } }), ' came'), el('span', {}, 'ego frame, forward is up, a line every 10 m')),
    el('div', { class: 'forecast' }, maps.map((map, i) => el('figure', {}, map.view.node, el('figcaption', {}, `+${number(forecasts.horizon[steps[i]], 1)} s`)))),
    charts.length > 0 && el('div', { class: 'curves', style: { 'margin-top': '16px' } }, charts.map((chart) => chart.node)));
};
