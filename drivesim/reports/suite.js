// The first page: planners side by side.
const PERCENT = new Set(['success_rate', 'success']);
const NAMES = {
  driving_score: 'driving score', driving_score_2_0: 'driving score (2.0)', driving_score_1_0: 'driving score (1.0)', route_completion: 'route completion', success_rate: 'success rate',
  success: 'success', penalty: 'infraction penalty',
};
const title = (name) => NAMES[name] || words(name);
const shown = (name, value) => (PERCENT.has(name) ? `${number(value * 100, 0)} %` : number(value, Math.abs(value) < 2 ? 2 : 1));
const estimateText = (name, e) => [shown(name, e.mean), el('span', { class: 'range' }, `${shown(name, e.ci95[0])} … ${shown(name, e.ci95[1])}`)];
const INFRACTION = /^(infractions?_|collisions?_|red_light|stop_sign|outside_|blocked|deviat|timeout|scenario_timeout)/;
const perKm = (name) => name.endsWith('_per_km');

const header = (summary) => {
  const { suite, date, commit, machine, command } = summary.about;
  const fact = (label, value) => value && el('span', {}, `${label} `, el('b', {}, value));
  const episodes = summary.outcomes.length;
  return [
    el('h1', {}, `Suite “${suite}”`),
    el('div', { class: 'about' },
      fact('driven', date), fact('commit', commit), fact('on', machine),
      el('span', {}, el('b', {}, String(episodes)), ` episodes, `, el('b', {}, String(summary.scenarios.length)), ' scenarios, ', el('b', {}, String(new Set(summary.outcomes.map((o) => o.seed)).size)), ' seed(s)'),
      command && el('code', {}, command)),
  ];
};

const tiles = (summary) => el('div', { class: 'tiles' }, summary.planners.map((planner) => {
  const measures = summary.estimates[planner];
  const score = measures.driving_score;
  const latency = (summary.latency[planner] || {}).plan_ms || (summary.latency[planner] || {}).total;
  const line = (label, value) => value !== undefined && [el('dt', {}, label), el('dd', {}, value)];
  return el('section', { class: 'tile', style: { '--hue': hue(planner, summary.planners) } },
    el('div', { class: 'name' }, el('i', { class: 'dot' }), planner),
    el('div', { class: 'big' }, number(score && score.mean, 1), el('small', {}, score ? `${number(score.ci95[0], 1)} … ${number(score.ci95[1], 1)}` : '')),
    el('div', { class: 'soft' }, 'driving score, 95 % interval'),
    el('dl', {},
      ['success_rate', 'success', 'route_completion', 'penalty'].filter((name) => measures[name]).map((name) => line(title(name), shown(name, measures[name].mean))),
      latency && line('plan, p95', `${number(latency[1], 0)} ms`)));
}));

const scorePlot = (summary) => {
  const rows = summary.planners.filter((planner) => summary.estimates[planner].driving_score).map((planner) => {
    const { mean, ci95, n } = summary.estimates[planner].driving_score;
    return { label: planner, hue: hue(planner, summary.planners), mean, low: ci95[0], high: ci95[1], text: `${number(mean, 1)}  [${number(ci95[0], 1)}, ${number(ci95[1], 1)}]  n ${n}` };
  });
  return el('section', { class: 'card' }, el('h2', {}, 'Driving score', el('small', {}, 'CARLA leaderboard 2.1, 0 to 100, mean and 95 % interval')),
    intervalPlot(rows, { low: 0, high: 100, ticks: [0, 25, 50, 75, 100], labelWidth: 140, textWidth: 175 }));
};

const pairPlot = (summary) => {
  if (!summary.pairs.length) return null;
  const most = Math.max(10, ...summary.pairs.flatMap((pair) => pair.ci95.map(Math.abs)));
  const edge = Math.ceil(most / 10) * 10;
  const rows = summary.pairs.map((pair) => {
    const sure = pair.ci95[0] > 0 || pair.ci95[1] < 0;
    return {
      label: `${pair.first} − ${pair.second}`, hue: sure ? hue(pair.mean > 0 ? pair.first : pair.second, summary.planners) : '#8b93a1',
      mean: pair.mean, low: pair.ci95[0], high: pair.ci95[1],
      text: `${signed(pair.mean)} [${signed(pair.ci95[0])}, ${signed(pair.ci95[1])}] won ${pair.wins} of ${pair.scenarios}`,
    };
  });
  return el('section', { class: 'card' }, el('h2', {}, 'Paired differences', el('small', {}, 'driving score, bootstrap over scenarios; grey: holds 0')),
    intervalPlot(rows, { low: -edge, high: edge, ticks: [-edge, -edge / 2, 0, edge / 2, edge], labelWidth: 242, textWidth: 240, zero: 0 }));
};

const measureTable = (summary, heading, note, wanted) => {
  const names = [...new Set(summary.planners.flatMap((planner) => Object.keys(summary.estimates[planner])))].filter(wanted);
  if (!names.length) return null;
  return el('section', { class: 'card scroll' }, el('h2', {}, heading, note && el('small', {}, note)),
    el('table', {},
      el('thead', {}, el('tr', {}, el('th', {}, ''), summary.planners.map((planner) => el('th', {}, planner)))),
      el('tbody', {}, names.map((name) => el('tr', {}, el('td', {}, title(name)), summary.planners.map((planner) => {
        const e = summary.estimates[planner][name];
        return el('td', {}, e ? estimateText(name, e) : '–');
      }))))));
};

const infractionTable = (summary) => {
  const rows = new Map();
  for (const outcome of summary.outcomes) for (const [kind, count] of Object.entries(outcome.infractions)) {
    if (kind.endsWith('_percent')) continue;
    if (!rows.has(kind)) rows.set(kind, {});
    rows.get(kind)[outcome.planner] = (rows.get(kind)[outcome.planner] || 0) + count;
  }
  if (!rows.size) return el('section', { class: 'card' }, el('h2', {}, 'Infractions'), el('p', { class: 'soft' }, 'None.'));
  const km = summary.km;
  const cell = (value, planner) => (value ? [km[planner] > 0 ? `${number(value / km[planner], 2)} /km` : number(value, 1), el('span', { class: 'range' }, `${number(value, Number.isInteger(value) ? 0 : 1)}×`)] : el('span', { class: 'faint' }, '0'));
  return el('section', { class: 'card scroll' }, el('h2', {}, 'Infractions', el('small', {}, 'per driven kilometre, and how many')),
    el('table', {},
      el('thead', {}, el('tr', {}, el('th', {}, ''), summary.planners.map((planner) => el('th', {}, planner)))),
      el('tbody', {}, [...rows].map(([kind, counts]) => el('tr', {}, el('td', {}, words(kind)), summary.planners.map((planner) => el('td', {}, cell(counts[planner], planner))))))));
};

const latencyTable = (summary) => {
  const names = [...new Set(summary.planners.flatMap((planner) => Object.keys(summary.latency[planner] || {})))];
  if (!names.length) return null;
  return el('section', { class: 'card scroll' }, el('h2', {}, 'Latency per plan', el('small', {}, 'milliseconds: median / 95th percentile / worst')),
    el('table', {},
      el('thead', {}, el('tr', {}, el('th', {}, ''), summary.planners.map((planner) => el('th', {}, planner)))),
      el('tbody', {}, names.map((name) => el('tr', {}, el('td', {}, words(name.replace(/_ms$/, ''))), summary.planners.map((planner) => {
        const row = (summary.latency[planner] || {})[name];
        return el('td', {}, row ? `${number(row[0], 1)} / ${number(row[1], 1)} / ${number(row[2], 1)}` : '–');
      }))))));
};

const SHORT = { collision_vehicle: 'vehicle hit', collision_walker: 'person hit', collision_static: 'scenery hit', red_light: 'red light', stop_sign: 'stop sign', outside_lanes: 'off lane', outside_lanes_percent: 'off lane' };
const blame = (outcomes) => {
  const counts = {};
  for (const outcome of outcomes) for (const [kind, value] of Object.entries(outcome.infractions)) counts[kind] = (counts[kind] || 0) + value;
  const texts = Object.entries(counts).filter(([kind]) => SHORT[kind]).map(([kind, value]) => (Number.isInteger(value) && value > 1 && !kind.endsWith('_percent') ? `${value}× ` : '') + SHORT[kind]);
  const ends = [...new Set(outcomes.map((o) => o.end))].filter((end) => end !== 'completed' && end !== 'collision');
  return [...texts, ...ends].slice(0, 2).join(', ') || 'clean';
};

const heat = (summary) => el('section', { class: 'card scroll' },
  el('h2', {}, 'Scenario by scenario', el('small', {}, 'driving score, mean over the seeds; open a cell to see the drive')),
  el('table', { class: 'heat' },
    el('thead', {}, el('tr', {}, el('th', {}, 'scenario'), summary.planners.map((planner) => el('th', {}, planner)))),
    el('tbody', {}, summary.scenarios.map((scenario) => el('tr', {},
      el('td', {}, el('a', { href: `#/${encodeURIComponent(scenario.id)}` }, scenario.id), el('br'), el('small', { class: 'soft' }, `${scenario.town}, ${scenario.weather}`)),
      summary.planners.map((planner) => {
        const rows = summary.outcomes.filter((o) => o.scenario === scenario.id && o.planner === planner);
        const scores = rows.map((o) => o.measures.driving_score).filter((score) => score !== undefined);
        if (!scores.length) return el('td', { class: 'faint' }, 'missing');
        const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
        return el('td', {}, el('a', { class: 'cell', href: `#/${encodeURIComponent(scenario.id)}/${encodeURIComponent(planner)}`, style: { background: scoreColour(mean / 100) } }, el('b', {}, number(mean, 0)), el('span', {}, blame(rows))));
      }))))));

const suitePage = () => {
  const summary = data('summary');
  const crashed = summary.outcomes.filter((o) => o.end === 'crashed');
  const rate = (name) => perKm(name) || INFRACTION.test(name);
  return [
    header(summary), tiles(summary),
    (crashed.length || summary.missing.length) && el('p', { class: 'bad' }, `${crashed.length} episode(s) crashed and count as 0; ${summary.missing.length} are missing.`),
    el('div', { class: 'columns' }, scorePlot(summary), pairPlot(summary)),
    heat(summary),
    el('div', { class: 'columns' }, infractionTable(summary), latencyTable(summary)),
    measureTable(summary, 'All measures', 'mean and 95 % interval over scenarios and seeds', (name) => !rate(name)),
    measureTable(summary, 'Rates', 'as the scorecard holds them', rate),
  ];
};
