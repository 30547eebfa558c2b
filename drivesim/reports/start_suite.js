// Where the page is, is in the address: #/ is the suite, #/scenario/planner a drive.
const show = () => {
  if (active) active.stop();
  active = null;
  const [scenario, planner, time] = location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
  const parts = scenario ? scenarioPage(scenario, planner) : suitePage();
  document.getElementById('page').replaceChildren(...parts.flat(Infinity).filter(Boolean));
  if (active && time) active.seek(Number(time));
  window.scrollTo(0, 0);
};
window.addEventListener('hashchange', show);
show();
