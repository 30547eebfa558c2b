// The page of a replayed log.
const asDrive = (replay) => {
  const times = sums(replay.t, 1000);
  const [x, y, yaw] = [sums(replay.ego.x, 50), sums(replay.ego.y, 50), sums(replay.ego.yaw, 500)];
  const line = Array.from(x, (value, i) => [value, y[i]]);
  return {
    times, line, route: line, speed: replay.speed, events: [], plans: [], size: [4.79, 2.16, 1.44], lights: { stops: [], t: [], states: [] },
    duration: times[times.length - 1], pictures: replay.pictures, planAt: () => null,
    at: (t) => ({ x: valueAt(times, x, t), y: valueAt(times, y, t), yaw: valueAt(times, yaw, t) }),
    actorsAt: (t) => (replay.actors.length ? replay.actors[indexAt(times, t)] : []).map(([ax, ay, heading, length, width]) => ({ x: ax, y: ay, yaw: heading, length, width, kind: length < 1.2 ? 1 : 0 })),
  };
};

// Tokens by time, in the colours of their first three principal components; and the tokens now.
const latentCard = (replay, drive, player) => {
  const [ticks, tokens] = replay.latent.shape;
  const bytes = fromBytes(replay.latent.data);
  const bitmap = (width, height, at) => {
    const node = el('canvas', { width, height });
    const image = new ImageData(width, height);
    for (let j = 0; j < height; j += 1) for (let i = 0; i < width; i += 1) {
      const from = at(i, j) * 3;
      image.data.set([bytes[from], bytes[from + 1], bytes[from + 2], 255], (j * width + i) * 4);
    }
    node.getContext('2d').putImageData(image, 0, 0);
    return node;
  };
  const history = bitmap(ticks, tokens, (i, j) => i * tokens + j);
  const strip = canvas((context, width, height) => {
    context.imageSmoothingEnabled = false;
    context.drawImage(history, 0, 0, width, height);
    const x = (player.time / player.duration) * width;
    context.fillStyle = '#ffffff';
    context.fillRect(x - 1.5, 0, 3, height);
    context.fillStyle = '#000000';
    context.fillRect(x - 0.5, 0, 1, height);
  });
  strip.node.className = 'latent';
  const seek = (event) => { const box = strip.node.getBoundingClientRect(); player.seek(((event.clientX - box.left) / box.width) * player.duration); };
  strip.node.addEventListener('pointerdown', seek);
  strip.node.addEventListener('pointermove', (event) => { if (event.buttons & 1) seek(event); });
  const columns = replay.latent.grid ? replay.latent.grid[1] : Math.ceil(Math.sqrt(tokens * 2));
  const rows = Math.ceil(tokens / columns);
  const now = canvas((context, width, height) => {
    const side = Math.min(width / columns, height / rows);
    const base = indexAt(drive.times, player.time) * tokens;
    for (let k = 0; k < tokens; k += 1) {
      context.fillStyle = `rgb(${bytes.slice((base + k) * 3, (base + k) * 3 + 3).join(',')})`;
      context.fillRect((k % columns) * side, Math.floor(k / columns) * side, side - 1.5, side - 1.5);
    }
  });
  now.node.style.cssText = 'width:100%;height:170px;display:block';
  player.onChange(() => { strip.paint(); now.paint(); });
  return el('section', { class: 'card' }, el('h2', {}, 'The latent', el('small', {}, `${tokens} tokens; colours are their first three principal components over the drive`)),
    el('div', { style: { display: 'grid', 'grid-template-columns': 'minmax(0, 3fr) minmax(0, 1fr)', gap: '18px' } },
      el('figure', { style: { margin: '0' } }, strip.node, el('figcaption', {}, 'time runs to the right, one row per token')),
      el('figure', { style: { margin: '0' } }, now.node, el('figcaption', {}, 'now'))));
};

const branchCard = (branch, player) => {
  if (!branch) return null;
  const colour = (name) => (/brake|instead|counter/i.test(name) ? '#e0457b' : '#2f6fed');
  const charts = Object.entries(branch.series).map(([quantity, lines]) => {
    const [label, unit] = splitName(quantity);
    return aheadChart(label, unit, branch.times, () => Object.entries(lines).map(([name, values]) => ({ name, values, hue: colour(name), dashed: /imagined/i.test(name) })));
  });
  return el('section', { class: 'card' },
    el('h2', {}, 'What if', el('small', {}, `at ${number(branch.t, 1)} s: ${branch.action}`)),
    el('p', { class: 'soft' }, 'Dashed: imagined from the latent. Solid: what came, or what the world itself did when it was branched at this moment. ',
      el('button', { class: 'small', onclick: () => player.seek(branch.t) }, `go to ${number(branch.t, 1)} s`)),
    el('div', { class: 'curves' }, charts.map((chart) => chart.node)));
};

const replayPage = () => {
  const replay = data('replay');
  const drive = asDrive(replay);
  const forecasts = decodeForecasts(replay.forecasts);
  const player = new Player(drive.duration);
  active = player;
  const hues = ['#2f6fed', '#e07a34', '#a855f7', '#17a673'];
  const surprise = Object.entries(replay.surprise).map(([name, values], i) => ({ name, hue: hues[i % hues.length], times: drive.times, values }));
  const marks = replay.counterfactual ? [{ t: replay.counterfactual.t, label: 'what if' }] : [];
  return [
    el('h1', {}, replay.title),
    el('div', { class: 'about' }, Object.entries(replay.facts).map(([label, value]) => el('span', {}, `${label} `, el('b', {}, value)))),
    replay.notes.map((note) => el('p', { class: 'soft' }, note)),
    el('div', { class: 'stage' }, mapCard(data('map'), drive, [], '#2f6fed', player), el('div', { class: 'side' }, cameraCard(drive, player),
      el('section', { class: 'card', style: { flex: '1' } }, el('h2', {}, 'Surprise', el('small', {}, 'how far the latent that came lies from the imagined one')),
        surprise.map((line) => lineChart(line.name, '', [{ ...line, name: '' }], player, { marks, low: 0, digits: 3 }))))),
    playbar(player, marks),
    latentCard(replay, drive, player), forecastCard(forecasts, player), branchCard(replay.counterfactual, player),
    el('section', { class: 'card' }, el('div', { class: 'curves' },
      lineChart('speed', 'm/s', [{ name: '', hue: hues[0], times: drive.times, values: replay.speed }], player, { marks, low: 0 }),
      lineChart('acceleration', 'm/s²', [{ name: '', hue: hues[0], times: drive.times, values: replay.acceleration }], player, { marks }))),
  ];
};

document.getElementById('page').replaceChildren(...replayPage().flat(Infinity).filter(Boolean));
if (location.hash.length > 1 && active) active.seek(Number(location.hash.slice(1)));
