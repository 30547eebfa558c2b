// Interval plots (SVG) and time curves with a cursor (canvas).

// rows: {label, hue, mean, low, high, text}; one horizontal axis from low to high.
const intervalPlot = (rows, { low, high, ticks, labelWidth = 170, textWidth = 190, zero = null }) => {
  const width = 620;
  const rowHeight = 34;
  const height = rows.length * rowHeight + 26;
  const x = (value) => labelWidth + ((clamp(value, low, high) - low) / (high - low)) * (width - labelWidth - textWidth);
  const parts = ticks.map((tick) => [
    svg('line', { x1: x(tick), x2: x(tick), y1: 4, y2: height - 22, class: tick === zero ? 'zero' : 'grid' }),
    svg('text', { x: x(tick), y: height - 6, 'text-anchor': 'middle' }, String(tick).replace('-', '−')),
  ]);
  rows.forEach((row, i) => {
    const y = i * rowHeight + 20;
    parts.push(
      svg('text', { x: labelWidth - 12, y: y + 4, 'text-anchor': 'end', class: 'ink' }, row.label),
      svg('rect', { x: x(row.low), y: y - 5, width: Math.max(1, x(row.high) - x(row.low)), height: 10, rx: 5, fill: row.hue, opacity: 0.28 }),
      svg('circle', { cx: x(row.mean), cy: y, r: 6, fill: row.hue }),
      svg('text', { x: width - textWidth + 14, y: y + 4, class: 'ink' }, row.text),
    );
  });
  return el('div', { class: 'scroll' }, svg('svg', { viewBox: `0 0 ${width} ${height}`, width: '100%', style: { 'min-width': '480px', 'max-height': `${height * 1.25}px` }, role: 'img' }, parts));
};

const niceStep = (span) => {
  const raw = span / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw);
};

// series: {name, hue, times, values, step?}; shares the player's time and lets one drag it.
const lineChart = (title, unit, series, player, { marks = [], low = null, high = null, digits = 1 } = {}) => {
  let bottom = low ?? Infinity;
  let top = high ?? -Infinity;
  for (const line of series) for (const value of line.values) {
    if (value === null || !Number.isFinite(value)) continue;
    bottom = Math.min(bottom, value);
    top = Math.max(top, value);
  }
  if (!(top > bottom)) [bottom, top] = Number.isFinite(bottom) ? [bottom - 1, bottom + 1] : [0, 1];
  const left = 36;
  const head = 24;
  const foot = 16;
  const draw = (context, width, height) => {
    const x = (t) => left + (t / player.duration) * (width - left - 6);
    const y = (value) => head + (1 - (value - bottom) / (top - bottom)) * (height - head - foot);
    context.font = '11px system-ui, sans-serif';
    context.lineWidth = 1;
    const step = niceStep(top - bottom);
    for (let value = Math.ceil(bottom / step) * step; value <= top + 1e-9; value += step) {
      context.strokeStyle = theme(Math.abs(value) < step / 1e3 ? '--faint' : '--line');
      context.beginPath();
      context.moveTo(left, y(value));
      context.lineTo(width - 6, y(value));
      context.stroke();
      context.fillStyle = theme('--faint');
      context.textAlign = 'right';
      context.fillText(number(value, step < 0.1 ? 2 : step < 1 ? 1 : 0), left - 6, y(value) + 4);
    }
    context.strokeStyle = theme('--bad');
    for (const mark of marks) {
      context.globalAlpha = 0.55;
      context.beginPath();
      context.moveTo(x(mark.t), head);
      context.lineTo(x(mark.t), height - foot);
      context.stroke();
    }
    context.globalAlpha = 1;
    context.lineWidth = 1.6;
    context.lineJoin = 'round';
    for (const line of series) {
      context.strokeStyle = line.hue;
      context.beginPath();
      let open = false;
      for (let i = 0; i < line.times.length; i += 1) {
        const value = line.values[i];
        if (value === null || !Number.isFinite(value)) { open = false; continue; }
        if (open && line.step) context.lineTo(x(line.times[i]), y(line.values[i - 1]));
        if (open) context.lineTo(x(line.times[i]), y(value));
        else context.moveTo(x(line.times[i]), y(value));
        open = true;
      }
      context.stroke();
    }
    context.strokeStyle = theme('--ink');
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x(player.time), head - 4);
    context.lineTo(x(player.time), height - foot);
    context.stroke();
    context.textAlign = 'left';
    context.font = '600 12px system-ui, sans-serif';
    context.fillStyle = theme('--ink');
    context.fillText(title, 0, 13);
    let at = context.measureText(title).width + 8;
    context.font = '12px system-ui, sans-serif';
    for (const line of series) {
      const now = line.values.length ? valueAt(line.times, line.values, player.time) : null;
      const text = `${line.name ? `${line.name} ` : ''}${number(now ?? undefined, digits)} ${unit}`;
      context.fillStyle = line.hue;
      context.fillRect(at, 5, 9, 9);
      context.fillStyle = theme('--soft');
      context.fillText(text, at + 13, 13);
      at += context.measureText(text).width + 26;
    }
    context.fillStyle = theme('--faint');
    context.textAlign = 'right';
    context.fillText(`${number(player.duration, 0)} s`, width - 6, height - 3);
    context.textAlign = 'left';
    context.fillText('0', left, height - 3);
  };
  const view = canvas(draw);
  const seek = (event) => {
    const box = view.node.getBoundingClientRect();
    player.seek(((event.clientX - box.left - left) / (box.width - left - 6)) * player.duration);
  };
  view.node.addEventListener('pointerdown', (event) => { view.node.setPointerCapture(event.pointerId); seek(event); });
  view.node.addEventListener('pointermove', (event) => { if (event.buttons & 1) seek(event); });
  player.onChange(view.paint);
  return el('div', { class: 'chart' }, view.node);
};
