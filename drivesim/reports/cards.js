// Cards that a drive of a suite and a replayed log share: cameras and map.
const cameraCard = (drive, player) => {
  const { t: times, jpeg } = drive.pictures;
  if (!jpeg.length) return el('section', { class: 'card cameras' }, el('div', { class: 'empty' }, 'This planner looks at no camera: nothing was rendered for it.'));
  const image = el('img', { alt: 'what the cameras saw', src: `data:image/jpeg;base64,${jpeg[0]}` });
  const stamp = el('span', { class: 'stamp' });
  const count = Math.min(8, jpeg.length);
  const picked = Array.from({ length: count }, (_, i) => Math.round((i * (jpeg.length - 1)) / Math.max(1, count - 1)));
  const frames = picked.map((i) => el('img', { alt: `at ${number(times[i], 1)} s`, src: `data:image/jpeg;base64,${jpeg[i]}`, onclick: () => player.seek(times[i]) }));
  let current = -1;
  player.onChange((time) => {
    const i = indexAt(times, time);
    if (i === current) return;
    current = i;
    image.src = `data:image/jpeg;base64,${jpeg[i]}`;
    stamp.textContent = `${number(times[i], 1)} s`;
    frames.forEach((frame, j) => frame.classList.toggle('now', i >= picked[j] && (j + 1 === count || i < picked[j + 1])));
  });
  return el('section', { class: 'card cameras' }, el('div', { style: { position: 'relative' } }, image, stamp), el('div', { class: 'film' }, frames));
};

const mapCard = (map, drive, others, own, player) => {
  const view = new MapView(map, drive, others, own, player);
  const toggle = (label, pressed, act) => {
    const button = el('button', { class: 'small', 'aria-pressed': String(pressed), onclick: () => { act(); view.view.paint(); } }, label);
    return button;
  };
  const follow = toggle('follow', true, () => { view.setFollow(!view.follow); if (view.follow) view.scale = Math.max(8, view.scale); });
  view.onFollow = (on) => follow.setAttribute('aria-pressed', String(on));
  const whole = toggle('whole route', false, () => { view.setFollow(false); view.fit(view.view.node.clientWidth, view.view.node.clientHeight); });
  whole.removeAttribute('aria-pressed');
  const rest = others.length > 0 && toggle('other planners', true, () => { view.showOthers = !view.showOthers; rest.setAttribute('aria-pressed', String(view.showOthers)); });
  const ramp = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map(speedColour).join(',')})`;
  return el('section', { class: 'card map' }, view.view.node, el('div', { class: 'tools' }, follow, whole, rest),
    el('div', { class: 'legend' },
      el('span', {}, '0 ', el('i', { style: { background: ramp, width: '54px', height: '6px' } }), ` ${number(view.topSpeed, 0)} m/s`),
      drive.plans.length > 0 && el('span', {}, el('i', { style: { background: theme('--ink') } }), 'plan'),
      drive.plans.some((plan) => plan.lines.length) && el('span', {}, el('i', { style: { background: `linear-gradient(90deg, hsl(150 70% 45%), hsl(5 70% 45%))` } }), 'imagined, good to bad'),
      drive.events.length > 0 && el('span', { class: 'bad' }, '× infraction')));
};
