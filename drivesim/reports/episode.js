// A scenario: tabs of planners, map, cameras, plan, curves.
const decode = (episode) => {
  const ego = episode.ego;
  const times = sums(ego.t, 1000);
  const [x, y, yaw] = [sums(ego.x, 50), sums(ego.y, 50), sums(ego.yaw, 500)];
  const actorTimes = sums(episode.actors.t, 1000);
  const tracks = episode.actors.tracks.map((track) => ({ ...track, x: sums(track.x, 20), y: sums(track.y, 20), yaw: sums(track.yaw, 100) }));
  const plans = episode.plans.map((plan) => {
    const low = Math.min(...(plan.costs || [0]));
    const high = Math.max(...(plan.costs || [1]));
    return {
      ...plan, path: points(plan.path, 20), lines: (plan.candidates || []).map((line) => points(line, 10)),
      // Costs spread over decades: rank by root, so that good ones can be told apart.
      share: plan.costs && plan.costs.map((cost) => Math.sqrt((cost - low) / Math.max(1e-9, high - low))),
    };
  });
  const planTimes = plans.map((plan) => plan.t);
  return {
    ...episode, times, line: Array.from(x, (value, i) => [value, y[i]]), route: points(episode.route, 10), plans, planTimes,
    speed: sums(ego.speed, 100), acceleration: sums(ego.acceleration, 100), yawRate: sums(ego.yaw_rate, 1000), offset: sums(ego.offset, 100),
    steer: sums(ego.steer, 500), throttle: sums(ego.throttle, 100), brake: sums(ego.brake, 100), progress: sums(ego.progress, 10),
    at: (t) => ({ x: valueAt(times, x, t), y: valueAt(times, y, t), yaw: valueAt(times, yaw, t) }),
    actorsAt: (t) => {
      if (!actorTimes.length) return [];
      const i = indexAt(actorTimes, t);
      const part = i + 1 < actorTimes.length ? clamp((t - actorTimes[i]) / (actorTimes[i + 1] - actorTimes[i]), 0, 1) : 0;
      return tracks.filter((track) => i >= track.s && i < track.s + track.x.length).map((track) => {
        const a = i - track.s;
        const b = Math.min(a + 1, track.x.length - 1);
        const mix = (values) => values[a] + part * (values[b] - values[a]);
        return { kind: track.k, length: track.l, width: track.w, x: mix(track.x), y: mix(track.y), yaw: mix(track.yaw) };
      });
    },
    planAt: (t) => {
      if (!plans.length) return null;
      const plan = plans[indexAt(planTimes, t)];
      return plan.t <= t + 0.01 && t - plan.t < 2 ? plan : null;
    },
  };
};

const planCard = (drive, player, own) => {
  const box = el('div');
  if (!drive.plans.length) return el('section', { class: 'card' }, el('h2', {}, 'Plan'), el('p', { class: 'soft' }, 'No plans were kept for this episode.'));
  const all = drive.plans.flatMap((plan) => Object.values(plan.terms).map(Math.abs));
  const most = all.sort((a, b) => a - b)[Math.floor(all.length * 0.98)] || 1;
  let current = null;
  player.onChange((time) => {
    const plan = drive.planAt(time) || drive.plans[indexAt(drive.planTimes, time)];
    if (plan === current) return;
    current = plan;
    const terms = Object.entries(plan.terms);
    box.replaceChildren(
      el('div', { class: 'bars', style: { '--hue': own } }, terms.map(([name, value]) => [
        el('span', {}, words(name)),
        el('div', { class: 'bar' }, el('i', { style: { left: '0', width: `${clamp(Math.abs(value) / most, 0, 1) * 100}%`, background: value < 0 ? theme('--good') : own } })),
        el('span', { class: 'number' }, number(value, Math.abs(value) < 10 ? 3 : 1))])),
      el('div', { class: 'facts' },
        el('span', {}, 'planned at ', el('b', {}, `${number(plan.t, 2)} s`)), el('span', {}, 'horizon ', el('b', {}, `${number(plan.horizon, 1)} s`)),
        plan.lines.length > 0 && el('span', {}, 'shown candidates ', el('b', {}, String(plan.lines.length))),
        Object.entries(plan.diagnostics).map(([name, value]) => el('span', {}, `${words(name)} `, el('b', {}, number(value, Math.abs(value) < 10 ? 2 : 0))))),
      plan.fallback ? el('p', { class: 'bad' }, `fallback: ${plan.fallback}`) : '');
  });
  return el('section', { class: 'card', style: { flex: '1' } }, el('h2', {}, 'What the plan costs', el('small', {}, 'terms of the chosen future')), box);
};

const curvesCard = (drive, player, own) => {
  const marks = drive.events;
  const { times } = drive;
  const chart = (name, unit, series, options) => lineChart(name, unit, series, player, { marks, ...options });
  return el('section', { class: 'card' }, el('div', { class: 'curves' },
    chart('speed', 'm/s', [{ name: '', hue: own, times, values: drive.speed }], { low: 0 }),
    chart('acceleration', 'm/s²', [{ name: '', hue: own, times, values: drive.acceleration }]),
    chart('steer', '(left +)', [{ name: '', hue: own, times, values: drive.steer }], { digits: 2 }),
    chart('pedals', '', [{ name: 'throttle', hue: '#17a673', times, values: drive.throttle }, { name: 'brake', hue: '#e0454d', times, values: drive.brake }], { low: 0, high: 1, digits: 2 }),
    chart('off the route', 'm', [{ name: '', hue: own, times, values: drive.offset }], { digits: 2 }),
    chart('progress', 'm', [{ name: '', hue: own, times, values: drive.progress }], { low: 0, digits: 0 })));
};

const resultCard = (drive, player) => {
  const measures = Object.entries(drive.measures);
  return el('div', { class: 'columns top' },
    el('section', { class: 'card' }, el('h2', {}, 'What happened'),
      drive.events.length ? el('ul', { class: 'events' }, drive.events.map((event) => el('li', {}, el('button', { onclick: () => player.seek(Math.max(0, event.t - 1)) }, `${number(event.t, 2)} s`), words(event.kind), event.text && el('span', { class: 'soft' }, ` ${event.text}`))))
        : el('p', { class: 'soft' }, 'No infraction.'),
      drive.error && el('pre', {}, drive.error)),
    el('section', { class: 'card scroll' }, el('h2', {}, 'Measures'),
      el('table', {}, el('tbody', {}, measures.map(([name, [value, unit]]) => el('tr', {}, el('td', {}, title(name)), el('td', {}, number(value, Math.abs(value) < 10 ? 2 : 1), el('span', { class: 'range' }, unit)))),
        Object.entries(drive.latency).map(([name, [p50, p95]]) => el('tr', {}, el('td', {}, `${words(name.replace(/_ms$/, ''))} latency`), el('td', {}, `${number(p50, 1)} / ${number(p95, 1)}`, el('span', { class: 'range' }, 'ms p50 / p95'))))))));
};

const scenarioPage = (id, wanted) => {
  const summary = data('summary');
  const index = summary.scenarios.findIndex((s) => s.id === id);
  if (index < 0) return [el('p', {}, `No scenario “${id}” in this report. `, el('a', { href: '#/' }, 'Back to the suite'))];
  const scenario = summary.scenarios[index];
  const planner = scenario.planners.includes(wanted) ? wanted : scenario.planners[0];
  const drive = decode(data(`episode:${id}:${planner}`));
  const player = new Player(drive.duration);
  active = player;
  const own = hue(planner, summary.planners);
  const paths = data(`paths:${id}`);
  const others = scenario.planners.filter((name) => name !== planner).map((name) => ({ hue: hue(name, summary.planners), line: points(paths[name], 20) }));
  const score = (name) => (summary.outcomes.find((o) => o.scenario === id && o.planner === name) || { measures: {}, end: '' });
  const neighbour = (step, label) => { const other = summary.scenarios[index + step]; return other ? el('a', { href: `#/${encodeURIComponent(other.id)}/${encodeURIComponent(planner)}` }, label) : el('span', { class: 'faint' }, label); };
  const tab = (name) => el('button', { class: 'tab', role: 'tab', 'aria-selected': String(name === planner), style: { '--hue': hue(name, summary.planners) }, onclick: () => { location.hash = `#/${encodeURIComponent(id)}/${encodeURIComponent(name)}`; } },
    el('i', { class: 'dot' }), name, el('b', {}, number(score(name).measures.driving_score, 0)), el('small', {}, score(name).end));
  const counts = [scenario.traffic[0] && `${scenario.traffic[0]} cars of traffic`, scenario.traffic[1] && `${scenario.traffic[1]} people on foot`, scenario.actors.length && `scripted: ${scenario.actors.map(words).join(', ')}`].filter(Boolean);
  return [
    el('div', { class: 'crumbs' }, el('a', { href: '#/' }, `← suite “${summary.about.suite}”`), el('span', {}, neighbour(-1, '← previous'), ' · ', neighbour(1, 'next →'))),
    el('h1', {}, id), el('p', { class: 'soft' }, scenario.description),
    el('div', {}, [scenario.town, scenario.weather, ...counts, ...scenario.tags].map((text) => el('span', { class: 'tag' }, text)), el('span', { class: 'tag' }, `seed ${drive.seed}`),
      el('span', { class: `tag ${drive.end === 'completed' ? 'good' : 'bad'}` }, drive.end)),
    el('div', { class: 'tabs', role: 'tablist' }, scenario.planners.map(tab)),
    el('div', { class: 'stage' }, mapCard(data(`map:${id}`), drive, others, own, player), el('div', { class: 'side' }, cameraCard(drive, player), planCard(drive, player, own))),
    playbar(player, drive.events.map((event) => ({ t: event.t, label: SHORT[event.kind] || words(event.kind) }))),
    curvesCard(drive, player, own), resultCard(drive, player),
  ];
};
