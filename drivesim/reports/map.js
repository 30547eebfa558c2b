// The map: roads, lights, actors, the driven path by speed, and what the planner imagined.
const LIGHT_COLOURS = ['#e5484d', '#f5b83d', '#30a46c', '#8b93a1'];

class RoadLayer {
  constructor(map) {
    this.groups = new Map();
    this.marks = [];
    this.crosswalks = [];
    if (!map) return;
    for (const lane of map.lanes) {
      const key = `${lane.k}|${lane.w.toFixed(1)}`;
      if (!this.groups.has(key)) this.groups.set(key, { kind: lane.k, width: lane.w, path: new Path2D() });
      trace(this.groups.get(key).path, points(lane.p, 10));
    }
    for (const mark of map.marks) {
      const path = new Path2D();
      trace(path, points(mark.p, 10));
      this.marks.push({ kind: mark.k, colour: mark.c, path });
    }
    for (const polygon of map.crosswalks) {
      const path = new Path2D();
      trace(path, points(polygon, 10));
      path.closePath();
      this.crosswalks.push(path);
    }
  }

  draw(context) {
    const fills = { 0: '--map-road', 1: '--map-walk', 2: '--map-walk', 3: '--map-park', 4: '--map-park', 5: '--map-walk' };
    const groups = [...this.groups.values()].sort((a, b) => (a.kind === 0) - (b.kind === 0));
    context.lineCap = 'butt';
    context.lineJoin = 'round';
    for (const group of groups) {
      context.strokeStyle = theme(fills[group.kind] || '--map-walk');
      context.lineWidth = group.width + 0.15;
      context.stroke(group.path);
    }
    context.globalAlpha = 0.35;
    context.fillStyle = theme('--map-paint');
    for (const path of this.crosswalks) context.fill(path);
    context.globalAlpha = 0.9;
    for (const mark of this.marks) {
      context.strokeStyle = theme(mark.kind === 3 ? '--map-walk' : mark.colour === 1 ? '--map-yellow' : '--map-paint');
      context.lineWidth = mark.kind === 4 ? 0.4 : mark.kind === 3 ? 0.25 : 0.18;
      context.setLineDash(mark.kind === 1 ? [2.5, 3.5] : []);
      context.stroke(mark.path);
    }
    context.setLineDash([]);
    context.globalAlpha = 1;
  }
}

const trace = (path, line) => line.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
const polyline = (context, line) => {
  context.beginPath();
  trace(context, line);
  context.stroke();
};
const carBox = (context, x, y, yaw, length, width, ahead = 0) => {
  context.save();
  context.translate(x, y);
  context.rotate(yaw);
  context.translate(ahead, 0);
  context.beginPath();
  context.roundRect(-length / 2, -width / 2, length, width, Math.min(length, width) * 0.22);
  context.fill();
  context.stroke();
  context.beginPath();
  context.moveTo(length / 2 - 0.35 * Math.min(length, 4), -width * 0.36);
  context.lineTo(length / 2 - 0.35 * Math.min(length, 4), width * 0.36);
  context.stroke();
  context.restore();
};

// drive: decoded episode (see episode.js); others: [{hue, line}] paths of the other planners.
class MapView {
  constructor(map, drive, others, ownHue, player) {
    this.roads = new RoadLayer(map);
    Object.assign(this, { drive, others, ownHue, player, follow: true, showOthers: true, scale: 6, centre: [0, 0], fitted: false });
    this.view = canvas((context, width, height, ratio) => this.draw(context, width, height, ratio));
    this.topSpeed = Math.max(8, ...drive.speed);
    this.listen();
    player.onChange(this.view.paint);
  }

  // Whole route in view.
  fit(width, height) {
    const all = [...this.drive.route, ...this.drive.line];
    const xs = all.map((p) => p[0]);
    const ys = all.map((p) => p[1]);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    this.centre = [(x0 + x1) / 2, (y0 + y1) / 2];
    this.scale = clamp(Math.min(width / (x1 - x0 + 30), height / (y1 - y0 + 30)), 0.3, 12);
  }

  listen() {
    const node = this.view.node;
    let last = null;
    node.addEventListener('pointerdown', (event) => { last = [event.clientX, event.clientY]; node.setPointerCapture(event.pointerId); });
    node.addEventListener('pointermove', (event) => {
      if (!last || !(event.buttons & 1)) return;
      this.setFollow(false);
      this.centre = [this.centre[0] - (event.clientX - last[0]) / this.scale, this.centre[1] + (event.clientY - last[1]) / this.scale];
      last = [event.clientX, event.clientY];
      this.view.paint();
    });
    node.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.scale = clamp(this.scale * Math.exp(-event.deltaY * 0.0015), 0.3, 40);
      this.view.paint();
    }, { passive: false });
  }

  setFollow(follow) {
    this.follow = follow;
    if (this.onFollow) this.onFollow(follow);
  }

  draw(context, width, height, ratio) {
    const t = this.player.time;
    const ego = this.drive.at(t);
    if (!this.fitted) {
      this.fit(width, height);
      this.fitScale = this.scale;
      this.scale = Math.max(8, this.scale);
      this.fitted = true;
    }
    if (this.follow) this.centre = [ego.x + 12 * Math.cos(ego.yaw), ego.y + 12 * Math.sin(ego.yaw)];
    context.fillStyle = theme('--map-ground');
    context.fillRect(0, 0, width, height);
    const s = this.scale * ratio;
    context.setTransform(s, 0, 0, -s, (width / 2) * ratio - this.centre[0] * s, (height / 2) * ratio + this.centre[1] * s);
    this.px = 1 / this.scale;
    this.roads.draw(context);
    this.drawPaths(context, t);
    this.drawLights(context, t);
    this.drawActors(context, t);
    this.drawPlan(context, t);
    context.fillStyle = this.ownHue;
    context.strokeStyle = '#ffffff';
    context.lineWidth = Math.max(0.14, 1.2 * this.px);
    carBox(context, ego.x, ego.y, ego.yaw, this.drive.size[0], this.drive.size[1], this.drive.size[2]);
    this.drawEvents(context);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawScale(context, width, height);
  }

  drawPaths(context, t) {
    context.lineCap = 'round';
    context.lineJoin = 'round';
    context.strokeStyle = theme('--map-route');
    context.globalAlpha = 0.22;
    context.lineWidth = Math.max(1.1, 3 * this.px);
    polyline(context, this.drive.route);
    context.globalAlpha = 0.9;
    if (this.showOthers) for (const other of this.others) {
      context.strokeStyle = other.hue;
      context.lineWidth = Math.max(0.28, 1.4 * this.px);
      context.setLineDash([4 * this.px, 4 * this.px]);
      polyline(context, other.line);
    }
    context.setLineDash([]);
    context.lineWidth = Math.max(0.4, 2.4 * this.px);
    const { line, times, speed } = this.drive;
    for (let i = 2; i < line.length; i += 2) {
      context.globalAlpha = times[i] <= t ? 1 : 0.3;
      context.strokeStyle = speedColour(speed[i] / this.topSpeed);
      context.beginPath();
      context.moveTo(...line[i - 2]);
      context.lineTo(...line[i]);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  drawLights(context, t) {
    const { stops, t: times, states } = this.drive.lights;
    if (!states.length) return;
    const state = states[indexAt(times, t)];
    context.lineCap = 'butt';
    stops.forEach(([x, y, yaw, half], i) => {
      const [dx, dy] = [-Math.sin(yaw) * half, Math.cos(yaw) * half];
      context.strokeStyle = LIGHT_COLOURS[Number(state[i])];
      context.lineWidth = Math.max(0.7, 3 * this.px);
      polyline(context, [[x + dx, y + dy], [x - dx, y - dy]]);
    });
  }

  drawActors(context, t) {
    for (const actor of this.drive.actorsAt(t)) {
      context.fillStyle = theme(actor.kind === 1 ? '--map-person' : '--map-car');
      context.strokeStyle = theme('--map-ground');
      context.lineWidth = Math.max(0.1, this.px);
      if (actor.kind === 1) {
        context.beginPath();
        context.arc(actor.x, actor.y, Math.max(0.5, 3.5 * this.px), 0, 7);
        context.fill();
        context.stroke();
      } else carBox(context, actor.x, actor.y, actor.yaw, actor.length, actor.width);
    }
  }

  drawPlan(context, t) {
    const plan = this.drive.planAt(t);
    if (!plan) return;
    context.lineCap = 'round';
    const worst = plan.lines.length - 1;
    for (let i = worst; i >= 0; i -= 1) {
      context.globalAlpha = 0.2 + 0.5 * (1 - i / Math.max(1, worst));
      context.strokeStyle = plan.share ? `hsl(${Math.round(150 - 145 * plan.share[i])} 70% 45%)` : theme('--soft');
      context.lineWidth = Math.max(0.16, 1.6 * this.px);
      polyline(context, plan.lines[i]);
    }
    context.globalAlpha = 1;
    context.strokeStyle = theme('--ink');
    context.lineWidth = Math.max(0.3, 2.2 * this.px);
    polyline(context, plan.path);
    context.fillStyle = theme('--ink');
    for (const [x, y] of plan.path.slice(1)) {
      context.beginPath();
      context.arc(x, y, Math.max(0.3, 2.2 * this.px), 0, 7);
      context.fill();
    }
  }

  drawEvents(context) {
    const arm = Math.max(1.1, 6 * this.px);
    context.lineCap = 'round';
    for (const event of this.drive.events) {
      for (const [colour, width] of [['#ffffff', 5], [theme('--bad'), 2.6]]) {
        context.strokeStyle = colour;
        context.lineWidth = width * this.px;
        polyline(context, [[event.x - arm, event.y - arm], [event.x + arm, event.y + arm]]);
        polyline(context, [[event.x - arm, event.y + arm], [event.x + arm, event.y - arm]]);
      }
    }
  }

  drawScale(context, width, height) {
    const metres = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((m) => m * this.scale > 60) || 1000;
    context.strokeStyle = theme('--map-label');
    context.fillStyle = theme('--map-label');
    context.lineWidth = 1.5;
    context.lineCap = 'butt';
    polyline(context, [[14, height - 20], [14, height - 14], [14 + metres * this.scale, height - 14], [14 + metres * this.scale, height - 20]]);
    context.font = '12px system-ui, sans-serif';
    context.fillText(`${metres} m`, 20, height - 20);
  }
}
