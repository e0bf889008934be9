// The explorer's front end: one module, for a page with a server, a notebook and a page without.
//
// It asks questions and shows answers. A question and an answer are each a header of JSON's types
// and arrays as they lie in memory (message.py says how). A transport has ask(header, arrays, told),
// which promises an answer, or null where a newer question of the same kind overtook it, and
// stop(kind). Its address (what follows # on the page) says all that is seen.

// ---------------------------------------------------------------- messages

const ARRAYS = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, int32: Int32Array,
  float32: Float32Array, float64: Float64Array,
};
const aligned = (length) => length + ((8 - (length % 8)) % 8);

export function pack(header, arrays = {}) {
  const table = [];
  let offset = 0;
  for (const [name, array] of Object.entries(arrays)) {
    table.push([name, "uint8", [array.length], offset]);
    offset += aligned(array.length);
  }
  const text = new TextEncoder().encode(JSON.stringify({ ...header, arrays: table }));
  const start = aligned(4 + text.length);
  const bytes = new Uint8Array(start + offset).fill(32, 4, start);
  new DataView(bytes.buffer).setUint32(0, start - 4, true);
  bytes.set(text, 4);
  Object.values(arrays).forEach((array, i) => bytes.set(array, start + table[i][3]));
  return bytes;
}

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const [name, dtype, shape, offset] of header.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    arrays[name] = { shape, data: new ARRAYS[dtype](buffer, 4 + length + offset, count) };
  }
  delete header.arrays;
  return { header, arrays };
}

// ---------------------------------------------------------------- transports

// Questions by their number, and who waits for the answers.
function correspondence(send) {
  const waiting = new Map();
  let number = 0;
  return {
    ask(header, arrays, told) {
      const id = ++number;
      return new Promise((resolve) => {
        waiting.set(id, { resolve, told });
        if (!send(pack({ ...header, id }, arrays))) waiting.delete(id), resolve(null);
      });
    },
    stop: (kind) => send(pack({ kind: "stop", of: kind })),
    receive(buffer) {
      const answer = unpack(buffer);
      const asked = waiting.get(answer.header.id);
      if (!asked) return;
      if (answer.header.progress !== undefined) return asked.told?.(answer.header);
      waiting.delete(answer.header.id);
      asked.resolve(answer.header.dropped ? null : answer);
    },
    forget() {
      for (const { resolve } of waiting.values()) resolve(null);
      waiting.clear();
    },
  };
}

// A server, asked by a WebSocket; lost(true) when it is gone and lost(false) when it is back.
export function socketTransport(url) {
  let socket = null;
  let opened = null;
  const self = correspondence((bytes) => {
    if (socket?.readyState !== WebSocket.OPEN) return false;
    socket.send(bytes);
    return true;
  });
  self.lost = () => {};
  const connect = () => {
    socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => self.receive(event.data);
    socket.onopen = () => (opened(), self.lost(false));
    socket.onclose = () => {
      self.forget();
      self.lost(true);
      setTimeout(connect, 2000);
    };
  };
  self.ready = new Promise((resolve) => (opened = resolve));
  self.address = pageAddress;
  connect();
  return self;
}

// What follows # in the window's address.
const pageAddress = {
  get: () => location.hash.slice(1),
  set: (text) => history.replaceState(null, "", "#" + text),
  link: () => location.href,
  changed: (told) => window.addEventListener("hashchange", told),
};

// A notebook's kernel, asked through anywidget's model, which several views may share: answers
// come to all of them, each with the name of the view that asked.
function commTransport(model) {
  const view = Math.random().toString(36).slice(2);
  const self = correspondence((bytes) => {
    model.send({ view }, undefined, [bytes.buffer]);
    return true;
  });
  const listeners = [];
  const on = (event, heard) => (model.on(event, heard), listeners.push([event, heard]));
  on("msg:custom", (content, buffers) => {
    if (content.view !== view) return;
    const [part] = buffers;
    const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
    self.receive(bytes.slice().buffer);
  });
  self.ready = Promise.resolve();
  self.address = {
    get: () => model.get("address"),
    set: (text) => (model.set("address", text), model.save_changes()),
    link: () => model.get("address"),
    changed: (told) => on("change:address", told),
  };
  self.close = () => {
    for (const [event, heard] of listeners) model.off(event, heard);
    self.forget();
    model.send({ view, closed: true });
  };
  return self;
}

// No server: every field of a local network lies in the page, 8 bits for each number.
export function bundledTransport(bundle) {
  const { header, arrays } = bundle;
  const { q, scale, corner, offset } = { ...arrays };
  const [C, H, W] = header.opened.output_shape;
  const [c, h, w] = header.opened.input_shape;

  const row = ([i, j], channel) => {
    const p = i * W + j;
    const [top, left, height, width] = corner.data.subarray(4 * p, 4 * p + 4);
    const values = new Float32Array(c * height * width);
    let error = 0;
    for (const k of channel === null ? [...Array(C).keys()] : [channel]) {
      const unit = scale.data[p * C + k] / 127;
      const start = offset.data[p] + k * values.length;
      for (let n = 0; n < values.length; n++) values[n] += unit * q.data[start + n];
      error += unit / 2;
    }
    return { box: [[0, c], [top, top + height], [left, left + width]], values, error };
  };

  const column = ([y, x], channel) => {
    const hits = [];
    for (let p = 0; p < H * W; p++) {
      const [top, left, height, width] = corner.data.subarray(4 * p, 4 * p + 4);
      if (y >= top && y < top + height && x >= left && x < left + width) hits.push(p);
    }
    const rows = hits.map((p) => Math.floor(p / W));
    const columns = hits.map((p) => p % W);
    const [top, bottom] = [Math.min(...rows), Math.max(...rows) + 1];
    const [left, right] = [Math.min(...columns), Math.max(...columns) + 1];
    const values = new Float32Array(C * (bottom - top) * (right - left));
    let error = 0;
    for (const p of hits) {
      const [t, l, height, width] = corner.data.subarray(4 * p, 4 * p + 4);
      const at = (Math.floor(p / W) - top) * (right - left) + (p % W) - left;
      for (let k = 0; k < C; k++) {
        const unit = scale.data[p * C + k] / 127;
        for (const d of channel === null ? [...Array(c).keys()] : [channel]) {
          const n = ((k * c + d) * height + y - t) * width + x - l;
          values[k * (bottom - top) * (right - left) + at] += unit * q.data[offset.data[p] + n];
        }
        error = Math.max(error, (unit / 2) * (channel === null ? c : 1));
      }
    }
    return { box: [[0, C], [top, bottom], [left, right]], values, error };
  };

  const field = (asked) => {
    const receptive = asked.at === "output";
    const channel = asked.channel ?? null;
    const found = (receptive ? row : column)(asked.pixel, channel);
    const shape = found.box.map(([a, b]) => b - a);
    const [probed, answered] = receptive ? [[H, W], [h, w]] : [[h, w], [H, W]];
    const kind = receptive ? "receptive" : "projective";
    const place = (channel === null ? 0 : channel + 1) * probed[0] * probed[1]
      + asked.pixel[0] * probed[1] + asked.pixel[1];
    return {
      header: {
        pixel: asked.pixel, field: kind, box: found.box, extents: answered,
        centre: asked.pixel.map((p, d) => ((p + 0.5) * answered[d]) / probed[d] - 0.5),
        share: header.share, within: header.within, window: null,
        radius: arrays[kind + "_radius"].data[place], away: arrays[kind + "_away"].data[place],
        rounding: found.error,
        python: header.lines[kind].replace("PIXEL", `(${asked.pixel.join(", ")})`)
          .replace("CHANNELS", channel === null ? "" : `, channels=[${channel}]`),
      },
      arrays: { values: { shape, data: found.values } },
    };
  };

  const answers = {
    home: () => ({ header: header.home, arrays: {} }),
    open: () => ({ header: header.opened, arrays: { input: arrays.input, output: arrays.output } }),
    field,
  };
  const none = () => ({ header: { error: header.nothing }, arrays: {} });
  return {
    ready: Promise.resolve(),
    ask: async (asked) => (answers[asked.kind] ?? none)(asked),
    stop() {},
    address: pageAddress,
  };
}

// ---------------------------------------------------------------- elements

function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const option = (value, text, selected) => h("option", { value, selected }, text);
const chooser = (label, choices, chosen, change, names = (c) => c) =>
  h("label", { class: "choice" }, h("span", {}, label),
    h("select", { onchange: (event) => change(event.target.value) },
      ...choices.map((c) => option(c, names(c), c === chosen))));

const digits = (value, count = 3) =>
  value === null || value === undefined ? "none"
    : String(Number(value.toPrecision(count))).replace("-", "\u2212");
const pixels = (value) => (value === null ? "none" : `${digits(value)} pixel${digits(value) === "1" ? "" : "s"}`);
const percent = (share) => (share === null ? "none" : `${digits(100 * share)} %`);
const short = (name, most = 28) => (name.length <= most ? name : name.slice(0, most - 1) + "\u2026");

// ---------------------------------------------------------------- colours

// Blue below and red above a white zero (ColorBrewer's RdBu), told apart by the colour-blind.
const STOPS = ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582",
  "d6604d", "b2182b", "67001f"].map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
// Okabe and Ito's colours, which all of the colour-blind tell apart.
const LABELS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178],
  [213, 94, 0], [204, 121, 167], [60, 60, 60]];
const OTHERS = [190, 190, 190];

// -1 ... 1 to a colour.
function signedColour(value) {
  const place = (Math.min(Math.max(value, -1), 1) + 1) * 5;
  const i = Math.min(Math.floor(place), 9);
  return STOPS[i].map((low, c) => Math.round(low + (place - i) * (STOPS[i + 1][c] - low)));
}
const TABLE = Uint8Array.from(Array.from({ length: 513 }, (_, i) => signedColour(i / 256 - 1)).flat());

// One channel of values (C, h, w), or their mean, and its largest magnitude.
function plane({ shape: [channels, height, width], data }, shown) {
  const size = height * width;
  const values = new Float32Array(size);
  const some = shown === "mean" ? [...Array(channels).keys()] : [Math.min(Number(shown), channels - 1)];
  for (const c of some) for (let n = 0; n < size; n++) values[n] += data[c * size + n] / some.length;
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  return { values, height, width, largest };
}

function picture(height, width, fill) {
  const canvas = h("canvas", { width: Math.max(width, 1), height: Math.max(height, 1) });
  const pixels = new ImageData(canvas.width, canvas.height);
  fill(pixels.data);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

const photoOf = ({ shape: [height, width], data }) =>
  picture(height, width, (pixels) => {
    for (let n = 0; n < height * width; n++) {
      pixels.set(data.subarray(3 * n, 3 * n + 3), 4 * n);
      pixels[4 * n + 3] = 255;
    }
  });

// Signed values as colours; `clear`: the smaller, the more is seen of what lies beneath.
const signedPicture = ({ values, height, width }, scale, clear = false) =>
  picture(height, width, (pixels) => {
    for (let n = 0; n < values.length; n++) {
      const value = scale ? Math.min(Math.max(values[n] / scale, -1), 1) : 0;
      const at = 3 * Math.round(256 * (value + 1));
      pixels[4 * n] = TABLE[at];
      pixels[4 * n + 1] = TABLE[at + 1];
      pixels[4 * n + 2] = TABLE[at + 2];
      pixels[4 * n + 3] = clear ? 255 * Math.sqrt(Math.abs(value)) : 255;
    }
  });

// ---------------------------------------------------------------- panels

// A figure that shows a picture of so many rows and columns; `touched(event, [row, column], how)`
// is told where the pointer is ("move"), what is clicked or entered ("pin"), and arrow keys.
class Panel {
  constructor(title, label, [rows, columns], touched = null) {
    Object.assign(this, { rows, columns, layers: [], marks: [] });
    this.canvas = h("canvas", { role: "img", "aria-label": label });
    this.canvas.style.aspectRatio = `${columns} / ${rows}`;
    this.caption = h("figcaption", {}, title);
    this.element = h("figure", { class: "panel" }, this.canvas, this.caption);
    if (touched) this.listen(touched);
    this.place = [Math.floor(rows / 2), Math.floor(columns / 2)];
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  listen(touched) {
    const canvas = this.canvas;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.classList.add("touched");
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const inside = (share, n) => Math.min(Math.max(Math.floor(share * n), 0), n - 1);
      this.place = [inside((event.clientY - box.top) / box.height, this.rows),
        inside((event.clientX - box.left) / box.width, this.columns)];
      return this.place;
    };
    canvas.addEventListener("pointermove", (event) => touched(event, at(event), "move"));
    canvas.addEventListener("click", (event) => touched(event, at(event), "pin"));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      const pin = event.key === "Enter" || event.key === " ";
      if (!step && !pin) return;
      event.preventDefault();
      event.stopPropagation();  // a notebook has its own use for these keys
      const [i, j] = this.place.map((p, d) => p + (step ? step[d] : 0));
      this.place = [Math.min(Math.max(i, 0), this.rows - 1), Math.min(Math.max(j, 0), this.columns - 1)];
      touched(event, this.place, pin ? "pin" : "move");
    });
  }

  // Layers are [picture, top, left, faded]; marks {frame: [top, left, rows, columns]},
  // {circle: [row, column, radius]}, {cross: [row, column]}.
  show(layers, marks = [], view = null) {
    Object.assign(this, { layers, marks, view });
    this.draw();
  }

  draw() {
    const [top, left, rows, columns] = this.view ?? [0, 0, this.rows, this.columns];
    const width = Math.round(this.canvas.clientWidth * Math.min(devicePixelRatio || 1, 2));
    if (!width) return;
    const height = Math.max(1, Math.round((width * this.rows) / this.columns));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const to = this.canvas.getContext("2d");
    const [sx, sy] = [width / columns, height / rows];
    to.setTransform(1, 0, 0, 1, 0, 0);
    to.globalAlpha = 1;
    to.fillStyle = "#f7f7f7";
    to.fillRect(0, 0, width, height);
    for (const [image, row, column, faded] of this.layers) {
      to.globalAlpha = faded ?? 1;
      to.imageSmoothingEnabled = image.width > width || image.height > height;
      to.drawImage(image, (column - left) * sx, (row - top) * sy, image.width * sx, image.height * sy);
    }
    to.globalAlpha = 1;
    // A white line under each dark one keeps marks visible on any ground.
    for (const [colour, thick] of [["#fff", 4], ["#111", 1.6]]) {
      to.strokeStyle = colour;
      to.lineWidth = thick;
      for (const mark of this.marks) this.stroke(to, mark, top, left, sx, sy);
    }
  }

  stroke(to, { frame, circle, cross }, top, left, sx, sy) {
    to.beginPath();
    if (frame) to.rect((frame[1] - left) * sx, (frame[0] - top) * sy, frame[3] * sx, frame[2] * sy);
    if (circle) {
      const [x, y] = [(circle[1] + 0.5 - left) * sx, (circle[0] + 0.5 - top) * sy];
      to.ellipse(x, y, Math.max(circle[2] * sx, 2), Math.max(circle[2] * sy, 2), 0, 0, 2 * Math.PI);
    }
    if (cross) {
      const [x, y] = [(cross[1] + 0.5 - left) * sx, (cross[0] + 0.5 - top) * sy];
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        to.moveTo(x + 5 * dx, y + 5 * dy);
        to.lineTo(x + 14 * dx, y + 14 * dy);
      }
    }
    to.stroke();
  }

  say(title, label) {
    this.caption.textContent = title;
    if (label) this.canvas.setAttribute("aria-label", label);
  }
}

// The colours of signed values, from -scale to scale.
function colourBar() {
  const image = h("canvas", { width: 256, height: 1, class: "ramp", "aria-hidden": "true" });
  const pixels = new ImageData(256, 1);
  for (let n = 0; n < 256; n++) pixels.data.set([...signedColour(n / 127.5 - 1), 255], 4 * n);
  image.getContext("2d").putImageData(pixels, 0, 0);
  const [low, high] = [h("span"), h("span")];
  const element = h("div", { class: "bar", role: "img", hidden: true }, low, image, high);
  return {
    element,
    set(scale) {
      low.textContent = digits(-scale);
      high.textContent = "+" + digits(scale);
      element.hidden = false;
      element.setAttribute("aria-label", `colours from ${digits(-scale)}, blue, to ${digits(scale)}, red`);
    },
  };
}

function readings(element, pairs) {
  const shown = Object.fromEntries([...element.querySelectorAll("dd")].map((d) => [d.dataset.name, d]));
  for (const [name, value] of pairs) {
    if (shown[name]) shown[name].textContent = value;
    else element.append(h("div", {}, h("dt", {}, name), h("dd", { "data-name": name }, value)));
  }
}

// ---------------------------------------------------------------- the address

const DEFAULTS = {
  view: "", model: "", policy: "paper", photo: "", size: "", crop: "", model2: "", policy2: "",
  at: "output", pixel: "", channel: "", shown: "mean", scale: "", pins: "",
  label: "", show: "discussion", part: "", candidates: "10", k: "6", triplet: "0", t: "0",
};
const pair = (text) => text.split(",").map(Number);

function stateOf(address) {
  const said = new URLSearchParams(address);
  return Object.fromEntries(Object.keys(DEFAULTS).map((key) => [key, said.get(key) ?? DEFAULTS[key]]));
}

function addressOf(state) {
  const said = Object.entries(state).filter(([key, value]) => value !== "" && value !== DEFAULTS[key]);
  return new URLSearchParams(said).toString();
}

// ---------------------------------------------------------------- panes

// The pixel at the same place of a picture of another shape, (channels, rows, columns).
const moved = (pixel, from, to) => pixel.map((p, d) =>
  Math.min(Math.max(Math.floor(((p + 0.5) * to[d + 1]) / from[d + 1]), 0), to[d + 1] - 1));

// What an output's pixel uses and an input's affects, of one network: the photo, the answer, the
// field close up, and its readings.
class FieldPane {
  constructor(explorer, lane, opened, subject) {
    Object.assign(this, { explorer, lane, opened, subject });
    const facts = opened.header;
    this.photos = { input: photoOf(opened.arrays.input), output: photoOf(opened.arrays.output) };
    const touched = (at) => (event, own, how) => {
      const pixel = moved(own, facts[`${at}_shape`], explorer.opened.header[`${at}_shape`]);
      explorer.touch(at, pixel, event.timeStamp);
      if (how === "pin") explorer.pin(at, pixel);
    };
    const sides = { input: facts.input_shape.slice(1), output: facts.output_shape.slice(1) };
    this.panels = Object.fromEntries(["input", "output"].map((at) => [at,
      new Panel("", `${at}; arrow keys move the probed pixel, Enter pins it`, sides[at], touched(at))]));
    this.close = new Panel("", "the field, close up", [1, 1]);
    this.bar = colourBar();
    this.numbers = h("dl", { class: "readings" });
    this.element = h("section", { class: "pane", "aria-label": facts.system },
      lane || explorer.state.view === "compare" ? h("h3", {}, `${facts.system}, ${facts.policy}`) : null,
      h("div", { class: "panels three" }, this.panels.input.element, this.panels.output.element,
        this.close.element, h("div", { class: "beneath" }, this.bar.element, this.numbers)));
  }

  // The question about a pixel of the first network, as it is put to this one.
  asked(at, pixel) {
    const shape = this.opened.header[`${at}_shape`];
    const { channel } = this.explorer.state;
    return {
      subject: this.subject, at,
      pixel: moved(pixel, this.explorer.opened.header[`${at}_shape`], shape),
      channel: channel === "" ? null : Math.min(Number(channel), shape[0] - 1),
    };
  }

  async look(asked) {
    const question = this.asked(this.explorer.state.at, pair(this.explorer.state.pixel));
    this.panels[question.at].place = question.pixel;  // where keys go on from, also before there is an answer
    const answer = await this.explorer.ask("field", question, this.lane);
    if (!answer || !this.element.isConnected) return;
    this.draw(answer);
    this.explorer.shown(this.lane ? "field2" : "field", answer, asked);
  }

  draw({ header, arrays }) {
    this.last = { header, arrays };
    const { state } = this.explorer;
    const probed = header.field === "receptive" ? "output" : "input";
    const answered = probed === "output" ? "input" : "output";
    const values = plane(arrays.values, state.shown);
    const scale = Number(state.scale) || values.largest || 1;
    const [, [top, bottom], [left, right]] = header.box;
    const support = [top, left, bottom - top, right - left];
    const unit = header.extents[0] / this.opened.header.input_shape[1];
    const circle = header.radius === null ? [] : [{ circle: [...header.centre, (header.radius + 0.5) * unit] }];
    const window = header.window ? [header.window[0], header.window[1], header.window[2], header.window[2]] : support;
    const { panels, photos, close } = this;
    const [row, column] = header.pixel;
    panels[probed].show([[photos[probed], 0, 0]], [{ cross: header.pixel }]);
    panels[answered].show(
      [[photos[answered], 0, 0, 0.45], [signedPicture(values, scale, true), top, left]],
      [{ frame: support }, ...circle]);
    panels[probed].say(`${probed === "input" ? "Input x\u2080" : "Output y"}: row ${row}, column ${column} is probed`);
    panels[answered].say(answered === "input"
      ? "Input x\u2080: what that output pixel uses" : "Output y: what that input pixel affects",
      `${answered} with the field; arrow keys move the probed pixel, Enter pins it`);
    Object.assign(close, { rows: window[2], columns: window[3] });
    close.canvas.style.aspectRatio = `${window[3]} / ${window[2]}`;
    close.show([[signedPicture(values, scale), top, left]], circle, window);
    close.say(`The ${header.field} field, close up: rows ${window[0]} to ${window[0] + window[2] - 1}, `
      + `columns ${window[1]} to ${window[1] + window[3] - 1}`);
    this.bar.set(scale);
    this.scale = values.largest;
    readings(this.numbers, [
      [`${percent(header.share)} of the energy within`, pixels(header.radius)],
      [`further than ${digits(header.within)} pixels`, percent(header.away)],
      ["the network lets through", `${support[2]} \u00d7 ${support[3]} pixels`],
      ["largest coefficient", digits(values.largest)],
      ...(header.rounding === undefined ? [] : [["rounded to 8 bits, off by at most", digits(header.rounding, 2)]]),
    ]);
    if (!this.lane) {
      this.explorer.tell("field", `${probed} row ${row}, column ${column}: ${percent(header.share)} of the energy within `
        + `${pixels(header.radius)}, largest coefficient ${digits(values.largest)}`);
    }
  }
}

// What adds to a score of a classifier, over the picture and layer by layer, and what a pixel adds
// to all scores.
class LabelPane {
  constructor(explorer, lane, opened, subject) {
    Object.assign(this, { explorer, lane, opened, subject });
    const facts = opened.header;
    this.photo = photoOf(opened.arrays.input);
    this.order = [...opened.arrays.scores.data.keys()]
      .sort((a, b) => opened.arrays.scores.data[b] - opened.arrays.scores.data[a]);
    this.panel = new Panel("", "the picture, arrow keys read its pixels", facts.input_shape.slice(1),
      (event, own) => explorer.touch("input",
        moved(own, facts.input_shape, explorer.opened.header.input_shape), event.timeStamp));
    this.bar = colourBar();
    this.numbers = h("dl", { class: "readings" });
    this.list = h("ul", { class: "labels", "aria-label": "labels, best scores first" });
    this.search = h("input", { type: "search", placeholder: "search a label", "aria-label": "search a label",
      oninput: () => this.fill() });
    this.legend = h("ul", { class: "legend", "aria-label": "colours of the labels, and their share of the votes" });
    this.entries = h("ul", { class: "entries", "aria-label": "what each layer adds to the score" });
    this.total = h("p", { class: "note" });
    this.pointed = h("h4", {});
    this.column = h("ul", { class: "entries", "aria-label": "scores that the pixel raises and lowers most" });
    this.element = h("section", { class: "pane", "aria-label": facts.system },
      lane || explorer.state.view === "compare" ? h("h3", {}, `${facts.system}, ${facts.policy}`) : null,
      h("div", { class: "panels" },
        h("div", { class: "column" }, this.panel.element, this.bar.element, this.legend, this.numbers),
        h("div", { class: "column" }, h("h4", {}, "Labels, best scores first"), this.search, this.list,
          this.pointed, this.column),
        h("div", { class: "column" }, h("h4", {}, "The score, layer by layer"), this.total, this.entries)));
    this.panel.show([[this.photo, 0, 0]]);
    this.fill();
  }

  get label() {
    const label = this.explorer.state.label;
    return label === "" ? this.order[0] : Math.min(Number(label), this.order.length - 1);
  }

  fill() {
    const { labels } = this.opened.header;
    const wanted = this.search.value.toLowerCase();
    const found = this.order.filter((k) => labels[k].toLowerCase().includes(wanted)).slice(0, 8);
    this.list.replaceChildren(...found.map((k) => h("li", {},
      h("button", {
        type: "button", "data-label": String(k), "aria-pressed": String(k === this.label),
        onpointermove: (event) => this.preview(k, event.timeStamp),
        onpointerleave: () => this.preview(null),
        onclick: (event) => this.explorer.set({ label: String(k), part: "", ...(this.explorer.state.show === "part"
          ? { show: "discussion" } : {}) }, event.timeStamp),
      }, h("span", {}, short(labels[k])), h("b", {}, digits(this.opened.arrays.scores.data[k]))))));
    if (!found.length) this.list.replaceChildren(h("li", { class: "note" }, "no label is called so"));
  }

  // While the pointer is over a label, its picture is shown in place of the chosen one's.
  preview(label, asked) {
    if (this.previewed === label || (label === null && this.previewed === undefined)) return;
    this.previewed = label ?? undefined;
    this.over(label ?? this.label, asked);
  }

  // The pixel that is pointed at, which the address has as one of the first network's pictures.
  get pixel() {
    const { state: { at, pixel }, opened } = this.explorer;
    return moved(pair(pixel), opened.header[`${at}_shape`], this.opened.header.input_shape);
  }

  // Scores and layers are asked about anew where another label or way to show it is meant, the
  // pixel where another one is.
  async look(asked) {
    const { label, show, part, candidates, shown, scale, channel, pixel } = this.explorer.state;
    const changed = (key, ...values) => this[key] !== (this[key] = values.join());
    const scores = changed("asked", label, show, part, candidates, shown, scale);
    await Promise.all([scores && this.scores(asked),
      changed("askedPixel", pixel, channel) && this.read(scores ? null : asked)]);
  }

  async scores(asked) {
    this.previewed = undefined;
    for (const button of this.list.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.label) === this.label));
    }
    await Promise.all([this.over(this.label, asked), this.account()]);
  }

  async over(label, asked) {
    const { explorer, subject, lane } = this;
    const { show, part, candidates } = explorer.state;
    if (show === "votes") return this.votes(Math.min(Number(candidates), this.order.length), asked);
    const answer = await explorer.ask("label", { subject, label, show, part: part || null }, lane);
    if (!answer || !this.element.isConnected) return;
    const { header, arrays } = answer;
    this.values = plane(arrays.values, explorer.state.shown);
    const scale = Number(explorer.state.scale) || header.scale || 1;
    this.panel.show([[this.photo, 0, 0, 0.4], [signedPicture(this.values, scale, true), 0, 0]]);
    const what = { row: "The weights of", discussion: "Where it is seen what adds to",
      part: `${readable(header.part)}: its part of` }[show];
    this.panel.say(`${what} the score ${digits(header.score, 4)} of \u201c${header.name}\u201d`);
    this.bar.set(scale);
    this.scale = header.scale;
    this.legend.replaceChildren();
    this.value();
    explorer.tell("label", this.panel.caption.textContent);
    explorer.shown(lane ? "label2" : "label", answer, asked);
  }

  value() {
    if (!this.values) return;
    const [i, j] = this.pixel;
    readings(this.numbers, [["row, column", `${i}, ${j}`],
      ["value there", digits(this.values.values[i * this.values.width + j])]]);
  }

  async read(asked) {
    const { explorer, subject, lane, pixel, opened: { header: facts } } = this;
    const { channel } = explorer.state;
    this.panel.place = pixel;  // where keys go on from
    this.value();
    const probed = channel === "" ? null : Math.min(Number(channel), facts.input_shape[0] - 1);
    const answer = await explorer.ask("column", { subject, pixel, channel: probed }, lane);
    if (!answer || !this.element.isConnected) return;
    const [i, j] = answer.header.pixel;
    const { data } = answer.arrays.values;
    this.pointed.textContent = `What the pixel in row ${i}, column ${j} adds for each unit: its column of F`;
    extremes(this.column, data, facts.labels);
    if (asked && !lane) {
      const most = [...data.keys()].reduce((best, k) => (Math.abs(data[k]) > Math.abs(data[best]) ? k : best), 0);
      explorer.tell("pixel", `row ${i}, column ${j} moves \u201c${facts.labels[most]}\u201d most, by ${digits(data[most])}`);
    }
    explorer.shown(lane ? "column2" : "column", answer, asked);
  }

  async votes(candidates, asked) {
    const { explorer, subject, lane } = this;
    const answer = await explorer.work("votes", { subject, candidates }, lane);
    if (!answer || !this.element.isConnected) return;
    const { header, arrays: { votes: { shape: [height, width], data } } } = answer;
    const colours = new Map(header.popular.slice(0, LABELS.length).map(({ label }, i) => [label, LABELS[i]]));
    const map = picture(height, width, (pixels) => {
      for (let n = 0; n < data.length; n++) {
        pixels.set([...(data[n] < 0 ? [255, 255, 255] : colours.get(data[n]) ?? OTHERS), 215], 4 * n);
      }
    });
    this.values = null;
    this.bar.element.hidden = true;
    this.panel.show([[this.photo, 0, 0], [map, 0, 0]]);
    this.panel.say(`Each pixel votes for the one of the ${header.candidates} best labels that it adds most to`);
    this.legend.replaceChildren(...header.popular.map(({ label, name, votes }) => {
      const swatch = h("i", { "aria-hidden": "true" });
      swatch.style.background = `rgb(${colours.get(label) ?? OTHERS})`;
      return h("li", {}, swatch, h("span", {}, short(name, 22)), h("b", {}, percent(votes / header.pixels)));
    }));
    this.numbers.replaceChildren();
    explorer.shown(lane ? "votes2" : "votes", answer, asked);
  }

  async account() {
    const { explorer, subject, lane, label } = this;
    const answer = await explorer.ask("ledger", { subject, label }, lane);
    if (!answer || !this.element.isConnected) return;
    const { header } = answer;
    const rows = [["the input, F x\u2080", "", header.input],
      ...header.names.map((name, i) => [header.readable[i], name, header.values[i]])];
    const largest = Math.max(...rows.map((row) => Math.abs(row[2]))) || 1;
    this.total.textContent = `\u201c${short(header.name)}\u201d: ${digits(header.score, 4)} is the sum of these. `
      + "Choose one to see its part over the picture.";
    this.entries.replaceChildren(...rows.map(([name, part, value]) => {
      const bar = h("i", { class: value < 0 ? "less" : "more", "aria-hidden": "true" });
      bar.style.width = `${(50 * Math.abs(value)) / largest}%`;
      const pressed = explorer.state.show === "part" && explorer.state.part === part;
      return h("li", {}, h("button", {
        type: "button", "data-part": part, "aria-pressed": String(pressed),
        onclick: (event) => explorer.set({ show: "part", part }, event.timeStamp),
      }, h("span", { title: name }, name), h("span", { class: "room" }, bar), h("b", {}, digits(value))));
    }));
    explorer.shown(lane ? "ledger2" : "ledger", answer);
  }
}

const readable = (name) => {
  if (!name) return "The input";
  const [called, module] = name.split(" in ");
  return `${module ?? ""} ${called.split(".").pop()}`.trim();
};

// ---------------------------------------------------------------- views

const SIGNS = "red adds, blue takes away";
const VIEWS = {
  pixel: ["Pixel", `Point at a pixel of the output to see what it uses of the input, or at one of the input to see `
    + `what it affects, with all decisions of the network as they are for this photo: ${SIGNS}.`],
  labels: ["Labels", `Point at a label to see which pixels of the photo, and which layers, its score is made of `
    + `(${SIGNS}), or at a pixel to see which scores it moves.`],
  compare: ["Compare", "The same question to two networks, or to one network frozen in two ways, on one photo."],
  spectrum: ["Spectrum", "Eigen-inputs are the directions in which the photo moves the output most; the slider walks "
    + "along one of them and shows where the frozen network stops being the real one."],
  photo: ["Photo", "Choose a network and what it looks at, and see the two parts of its answer; a file that you drop "
    + "here stays in this machine's memory.",
    "The photo that op was frozen for, and the two parts of its answer."],  // where none can be chosen
};

// ---- pixel, labels, compare: one pane, or two

async function panesView(explorer, body, both) {
  const { state } = explorer;
  const subjects = [explorer.subject(), ...(both ? [explorer.subject(true)] : [])];
  const controls = h("div", { class: "controls" });
  const places = subjects.map(() => h("div", { class: "place" }));
  body.replaceChildren(controls, ...places, explorer.pinned);
  if (both && !explorer.home.fixed) {
    const [first, second] = subjects;
    controls.append(
      chooser("second network", explorer.home.networks, second.model, (model2) => explorer.set({ model2 }, null, true)),
      chooser("its policy", explorer.home.policies, second.policy, (policy2) => explorer.set({ policy2 }, null, true)));
    controls.append(h("span", { class: "note" }, `beside ${first.model}, ${first.policy}`));
  }
  const panes = [];
  for (const [lane, subject] of subjects.entries()) {
    const opened = lane ? await explorer.work("open", { subject }, lane) : explorer.opened;
    if (!opened || !places[lane].isConnected) return null;
    const pane = new (opened.header.classifier ? LabelPane : FieldPane)(explorer, lane, opened, subject);
    places[lane].replaceWith(pane.element);
    panes.push(pane);
  }
  const facts = panes[0].opened.header;
  const colours = [["mean", "mean of colours"], ...facts.channels.input.map((name, c) => [String(c), name])];
  const names = Object.fromEntries(colours);
  if (facts.classifier) {
    controls.append(
      chooser("show", ["discussion", "row", "votes", ...(state.show === "part" ? ["part"] : [])], state.show,
        (show) => explorer.set({ show, part: "" }, null, true),
        (show) => ({ row: "row of F", part: "one layer's part", votes: "votes of the pixels" }[show] ?? show)),
      chooser("among", [10, 100, facts.labels.length].filter((n) => n <= facts.labels.length).map(String),
        state.candidates, (candidates) => explorer.set({ candidates, show: "votes" }, null, true),
        (n) => `${n} labels`));
    state.at = "input";  // where alone there are pixels to point at
  }
  const probed = facts.channels[facts.classifier ? "input" : "output"];
  controls.append(chooser("probe", ["", ...probed.keys()].map(String), state.channel,
    (channel) => explorer.set({ channel }), (c) => (c === "" ? "all colours" : probed[c])));
  controls.append(
    chooser("colours shown", colours.map(([value]) => value), state.shown, (shown) => explorer.set({ shown }),
      (value) => names[value]),
    h("label", { class: "choice check" },
      h("input", { type: "checkbox", checked: state.scale !== "",
        onchange: (event) => explorer.set({ scale: event.target.checked ? String(panes[0].scale) : "" }) }),
      h("span", {}, "hold the colour scale")));
  if (state.pixel === "") state.pixel = moved(facts.pixel, facts.input_shape, facts[`${state.at}_shape`]).join(",");
  explorer.panes = panes.filter((pane) => pane instanceof FieldPane);
  explorer.drawPins();
  return { look: (asked) => Promise.all(panes.map((pane) => pane.look(asked))) };
}

// ---- spectrum

async function spectrumView(explorer, body) {
  const { state, opened } = explorer;
  const facts = opened.header;
  const subject = explorer.subject();
  const k = Number(state.k);
  const place = h("div");
  body.replaceChildren(
    h("div", { class: "controls" },
      chooser("triplets", ["2", "4", "6", "8", "12", "16"].filter((n) => n <= Math.min(16, facts.least)), state.k,
        (chosen) => explorer.set({ k: chosen, triplet: "0", t: "0" }, null, true))),
    place);
  const answer = await explorer.work("svd", { subject, k });
  if (!answer || !place.isConnected) return null;
  const { header, arrays: { V, U } } = answer;
  explorer.shown("svd", answer);

  const one = ({ shape: [, ...rest], data }, i) => {
    const size = rest.reduce((a, b) => a * b, 1);
    return { shape: rest, data: data.subarray(i * size, (i + 1) * size) };
  };
  const chart = sigmaChart(header, (i) => explorer.set({ triplet: String(i), t: "0" }));
  const v = new Panel("", "eigen-input", facts.input_shape.slice(1));
  const u = facts.classifier ? null : new Panel("", "eigen-output", facts.output_shape.slice(1));
  const moved = new Panel("", "the photo, moved", facts.input_shape.slice(1));
  const answers = facts.classifier ? null : ["frozen network", "real network"].map((name) =>
    new Panel("", `what the ${name} answers`, facts.output_shape.slice(1)));
  const table = h("table", { class: "scores", "aria-label": "the best scores before and after the step" });
  const bars = h("ul", { class: "entries", "aria-label": "entries of the eigen-output" });
  const numbers = h("dl", { class: "readings" });
  const far = h("p", { class: "note", role: "status" });
  const slider = h("input", { type: "range", min: "-1", max: "1", step: "0.01", "aria-label": "t, how far along v",
    oninput: (event) => explorer.set({ t: String(Number(event.target.value) * header.most[Number(state.triplet)]) },
      event.timeStamp) });
  const output = h("output", {});
  place.replaceChildren(
    h("div", { class: "panels three" }, h("div", { class: "column" }, chart.element), v.element,
      u ? u.element : h("div", { class: "column" }, h("h4", {}, "Eigen-output: its largest entries"), bars)),
    h("h3", {}, "Walk along it: x\u2080 + t v"),
    h("div", { class: "controls" }, h("label", { class: "choice wide" }, h("span", {}, "t"), slider, output),
      h("button", { type: "button", onclick: () => askFar() }, "How far does it hold?")),
    numbers, far,
    h("div", { class: "panels three" }, moved.element, ...(answers ? answers.map((a) => a.element) : [table])));
  if (header.k < header.asked || !header.converged) {
    place.prepend(h("p", { class: "note" }, `Stopped: ${header.k} of ${header.asked} triplets are done.`));
  }

  const askFar = async () => {
    const answer = await explorer.work("reach", { subject, k, triplet: Number(state.triplet) });
    if (!answer) return;
    const { first, close, tenth, most } = answer.header;
    const beyond = (t) => (t >= most ? `beyond ${digits(t)}` : digits(t));
    far.textContent = `The first decision flips at |t| = ${beyond(first)}; up to |t| = ${beyond(close)} the frozen answer `
      + `is within ${percent(tenth)} of the change that it predicts.`;
    explorer.shown("reach", answer);
  };

  // Close up, where it can be seen in a part of the picture only.
  const show = (panel, vector, title, window) => {
    const values = plane(vector, state.shown);
    const [top, left, side] = window ?? [0, 0, 0];
    const view = window ? [top, left, side, side] : null;
    const [rows, columns] = window ? [side, side] : vector.shape.slice(1);
    Object.assign(panel, { rows, columns });
    panel.canvas.style.aspectRatio = `${columns} / ${rows}`;
    panel.show([[signedPicture(values, values.largest), 0, 0]], [], view);
    panel.say(title + (window ? `; close up, rows ${top} to ${top + side - 1}, columns ${left} to ${left + side - 1}` : ""));
  };
  let drawn = null;
  const look = async (asked) => {
    const i = Math.min(Number(state.triplet), header.k - 1);
    if (!header.k) return;
    if (drawn !== i) {
      drawn = i;
      chart.choose(i);
      far.textContent = "";
      delete explorer.answers.reach;
      const [ofOutput, ofInput] = header.windows[i] ?? [null, null];
      show(v, one(V, i), `Eigen-input v${i + 1}: ${SIGNS}`, ofInput);
      if (u) show(u, one(U, i), `Eigen-output u${i + 1}: the answer to it`, ofOutput);
      else extremes(bars, one(U, i).data, facts.labels);
    }
    const t = Number(state.t);
    slider.value = String(t / header.most[i]);
    output.textContent = digits(t);
    if (header.k < header.asked) return;
    const answer = await explorer.ask("step", { subject, k, triplet: i, t });
    if (!answer || !place.isConnected) return;
    const { header: step, arrays } = answer;
    const [, window] = header.windows[i] ?? [];
    moved.show([[photoOf(arrays.input), 0, 0]], window ? [{ frame: [window[0], window[1], window[2], window[2]] }] : []);
    moved.say(`x\u2080 + t v, t = ${digits(step.t)}`);
    if (answers) {
      answers[0].show([[photoOf(arrays.frozen), 0, 0]]);
      answers[1].show([[photoOf(arrays.real), 0, 0]]);
      answers[0].say("The frozen network: y + t \u03c3 u");
      answers[1].say("The real network, which decides anew");
    } else {
      scoreTable(table, ["label", "before", "frozen", "real"],
        step.scores.map((row) => [row.name, row.before, row.frozen, row.real]));
    }
    readings(numbers, [
      ["decisions that have flipped", `${step.flipped.toLocaleString("en")} of ${step.decisions.toLocaleString("en")}`],
      ["frozen answer off by", `${percent(step.departure)} of its change`],
    ]);
    explorer.shown("step", answer, asked);
  };
  return { look };
}

function sigmaChart({ sigma, errors, proven }, choose) {
  const largest = Math.max(...sigma.map((s, i) => s + errors[i])) || 1;
  const buttons = sigma.map((s, i) => {
    const bar = h("i", { "aria-hidden": "true", class: "column-bar" });
    const error = h("i", { "aria-hidden": "true", class: "error-bar" });
    bar.style.height = `${(100 * s) / largest}%`;
    error.style.bottom = `${(100 * Math.max(s - errors[i], 0)) / largest}%`;
    error.style.height = `max(${(200 * errors[i]) / largest}%, 2px)`;
    const kind = proven[i] ? "a bound" : "an estimate";
    return h("button", { type: "button", onclick: () => choose(i), "aria-pressed": "false",
      "aria-label": `triplet ${i + 1}, sigma ${digits(s, 5)}, error bar ${digits(errors[i], 2)}, ${kind}`,
      title: `\u03c3${i + 1} = ${digits(s, 5)} \u00b1 ${digits(errors[i], 2)}, ${kind}` },
      h("span", { class: "tall" }, bar, error), h("span", {}, String(i + 1)));
  });
  const line = h("p", { class: "note" });
  return {
    element: h("figure", { class: "sigma" }, h("div", { class: "sigmas" }, ...buttons),
      h("figcaption", {}, "Singular values with their error bars; choose one."), line),
    choose(i) {
      buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(n === i)));
      line.textContent = `\u03c3${i + 1} = ${digits(sigma[i], 5)} \u00b1 ${digits(errors[i], 2)} `
        + `(${proven[i] ? "a bound" : "an estimate"})`;
    },
  };
}

function extremes(list, values, labels) {
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]);
  const largest = Math.max(...values.map(Math.abs)) || 1;
  const some = order.length <= 8 ? order : [...order.slice(0, 4), ...order.slice(-4)];
  list.replaceChildren(...some.map((n) => {
    const bar = h("i", { class: values[n] < 0 ? "less" : "more", "aria-hidden": "true" });
    bar.style.width = `${(50 * Math.abs(values[n])) / largest}%`;
    return h("li", { class: "row" }, h("span", { title: labels[n] }, short(labels[n], 24)), h("span", { class: "room" }, bar),
      h("b", {}, digits(values[n])));
  }));
}

// ---- photo

async function photoView(explorer, body) {
  const { home, opened } = explorer;
  const parts = opened ? partsOf(explorer) : null;
  if (home.fixed) {
    parts.row.prepend(parts.taken);
    body.replaceChildren(parts.made);
  } else {
    const { choosers, photo } = photoChoice(explorer);
    body.replaceChildren(...choosers, h("div", { class: "panels three" }, ...photo, parts?.taken ?? ""), parts?.made ?? "");
  }
  return { look: (asked) => parts?.look(asked) };
}

// What the network takes of the photo, and what it makes of it: y = F x0 + r.
function partsOf(explorer) {
  const { opened: { header: facts, arrays: photos }, state } = explorer;
  const subject = explorer.subject();
  const [, height, width] = facts.input_shape;
  const taken = new Panel(`What the network takes: x\u2080, ${width} \u00d7 ${height} pixels`, "x0, the network's input", [height, width]);
  taken.show([[photoOf(photos.input), 0, 0]]);
  const panel = (label) => new Panel("", label, facts.output_shape.slice(1));
  const panels = facts.classifier ? null
    : [panel("y, the network's answer"), panel("F x0, the filter's part of it"), panel("r, the residual")];
  const table = facts.classifier ? h("table", { class: "scores", "aria-label": "the best scores and their two parts" }) : null;
  const bar = colourBar();
  const row = h("div", { class: `panels ${panels && explorer.home.fixed ? "four" : "three"}` }, ...(panels
    ? [panels[0].element, panels[1].element, h("div", { class: "column" }, panels[2].element, bar.element)] : [table]));
  const made = h("section", {}, h("h3", {}, "What it answers: y = F x\u2080 + r"),
    h("p", { class: "note" }, "With all its decisions as they are, the network is what its filter F makes of x\u2080, and "
      + "the residual r, its answer to an input of zeros."), row);
  const look = async (asked) => {
    const answer = await explorer.ask("parts", { subject });
    if (!answer || !made.isConnected) return;
    const { header, arrays } = answer;
    if (panels) {
      const residual = plane(arrays.residual, state.shown);
      const [y, filtered, rest] = panels;
      y.show([[photoOf(photos.output), 0, 0]]);
      y.say("The answer y");
      filtered.show([[photoOf(arrays.shown), 0, 0]]);
      filtered.say("The filter\u2019s part F x\u2080, " + (facts.output_shape[0] === facts.input_shape[0]
        ? "in the colours of y, cut off below black and above white" : "the mean of its channels, from least to most"));
      rest.show([[signedPicture(residual, residual.largest), 0, 0]]);
      const colours = state.shown === "mean" ? "mean over colours" : facts.channels.output[state.shown] ?? "last colour";
      rest.say(`The residual r, ${colours}: ${SIGNS}`);
      bar.set(residual.largest);
    } else {
      scoreTable(table, ["label", "F x\u2080", "r", "y = F x\u2080 + r"],
        header.best.map((row) => [row.name, row.filtered, row.residual, row.score]));
    }
    explorer.shown("parts", answer, asked);
  };
  return { taken: taken.element, made, row, look };
}

// A table of labels and what there is of their scores.
function scoreTable(table, head, rows) {
  table.replaceChildren(
    h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name))),
    ...rows.map(([name, ...values]) => h("tr", {}, h("th", { scope: "row" }, short(name, 20)),
      ...values.map((value) => h("td", {}, digits(value, 4))))));
}

// Choosers of network and photo, where a file is dropped, and the photo with the part that is cut out.
function photoChoice(explorer) {
  const { state, home } = explorer;
  const panel = new Panel("", "the photo; drag a square to cut it out", [1, 1]);
  const chosen = { crop: state.crop ? pair(state.crop) : null, width: 1, height: 1 };
  const file = h("input", { type: "file", accept: "image/*", "aria-label": "a picture file",
    onchange: (event) => event.target.files[0] && drop(event.target.files[0]) });
  const numbers = ["left", "top", "side"].map((name, d) => h("input", { type: "number", min: "0", "aria-label": name,
    onchange: () => cut(numbers.map((n) => Math.round(Number(n.value)) || 0)), "data-crop": String(d) }));
  const zone = h("div", { class: "drop" }, "Drop a picture here, or choose one: ", file);
  for (const name of ["dragover", "drop"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      if (name === "drop" && event.dataTransfer.files[0]) drop(event.dataTransfer.files[0]);
    });
  }
  const size = h("input", { type: "number", min: String(home.sizes[0]), max: String(home.sizes[1]), value: state.size,
    placeholder: "its own", "aria-label": "side of the input in pixels",
    onchange: (event) => explorer.set({ size: event.target.value }, null, true) });
  const choosers = h("div", { class: "controls" },
      chooser("network", home.networks, state.model, (model) => explorer.set({ model, label: "" }, null, true)),
      chooser("policy", home.policies, state.policy, (policy) => explorer.set({ policy }, null, true)),
      h("label", { class: "choice" }, h("span", {}, "input side"), size),
      chooser("photo", [...new Set([...home.photos, state.photo])], state.photo,
        (photo) => explorer.set({ photo, crop: "" }, null, true)));
  const part = h("div", { class: "column" }, h("h4", {}, "Part of the photo"),
    h("div", { class: "controls" }, ...numbers.map((n, d) => h("label", { class: "choice" },
      h("span", {}, ["left", "top", "side"][d]), n))),
    h("p", { class: "note" }, "Drag a square over the photo, or type its corner and side in pixels."),
    h("button", { type: "button", onclick: () => explorer.set({ crop: "" }, null, true) }, "All of it"),
    h("h4", {}, "The network"),
    h("p", { class: "note" }, explorer.opened?.header.source ?? ""));

  const draw = () => {
    const { crop, scale } = chosen;
    const frame = crop ? [{ frame: [crop[1], crop[0], crop[2], crop[2]].map((n) => n * scale) }] : [];
    panel.show([[chosen.image, 0, 0]], frame);
    numbers.forEach((n, d) => (n.value = crop ? String(crop[d]) : ""));
  };
  const cut = (crop) => {
    const side = Math.min(Math.max(crop[2], 8), chosen.width, chosen.height);
    const [left, top] = [[crop[0], chosen.width], [crop[1], chosen.height]].map(([at, n]) =>
      Math.min(Math.max(at, 0), n - side));
    chosen.crop = [left, top, side];
    draw();
    explorer.set({ crop: chosen.crop.join(",") }, null, true);
  };
  const take = (answer) => {
    if (!answer || !zone.isConnected) return null;
    const { header, arrays } = answer;
    const [rows, columns] = arrays.picture.shape;
    Object.assign(chosen, { image: photoOf(arrays.picture), width: header.width, height: header.height,
      scale: columns / header.width });
    Object.assign(panel, { rows, columns });
    panel.canvas.style.aspectRatio = `${columns} / ${rows}`;
    panel.say(`${header.photo}, ${header.width} \u00d7 ${header.height} pixels`);
    draw();
    explorer.shown("photo", answer);
    return header;
  };
  const drop = async (chosenFile) => {
    if (chosenFile.size > 32 * 2 ** 20) {
      return explorer.complain(`\u201c${chosenFile.name}\u201d has ${chosenFile.size.toLocaleString("en")} bytes, `
        + "and a picture of at most 33,554,432 is wanted");
    }
    const bytes = new Uint8Array(await chosenFile.arrayBuffer());
    const taken = take(await explorer.ask("photo", { name: chosenFile.name }, 0, { file: bytes }));
    if (taken) explorer.set({ photo: taken.photo, crop: "" }, null, true);
  };

  let from = null;
  const at = (event) => {
    const box = panel.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * chosen.width,
      ((event.clientY - box.top) / box.height) * chosen.height];
  };
  panel.canvas.addEventListener("pointerdown", (event) => {
    from = at(event);
    panel.canvas.setPointerCapture(event.pointerId);
  });
  panel.canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event);
    const side = Math.round(Math.max(...to.map((p, d) => Math.abs(p - from[d]))));
    chosen.crop = [...to.map((p, d) => Math.round(p < from[d] ? from[d] - side : from[d])), side];
    draw();
  });
  panel.canvas.addEventListener("pointerup", () => {
    from = null;
    if (chosen.crop?.[2] > 8) cut(chosen.crop);
  });
  explorer.ask("photo", { photo: state.photo }).then(take);
  return { choosers: [choosers, zone], photo: [panel.element, part] };
}

// ---------------------------------------------------------------- the explorer

let shownHere = 0;  // explorers on this page

class Explorer {
  constructor(root, transport) {
    Object.assign(this, { root, transport, answers: {}, timings: [], pins: [], pinnedAnswers: [], panes: [] });
    this.state = stateOf(transport.address.get());
    this.tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "views", onkeydown: (e) => this.nextTab(e) });
    this.said = h("p", { class: "sentence" });
    this.summary = h("p", { class: "summary" });
    this.error = h("p", { class: "error", role: "alert", hidden: true });
    this.share = h("progress", { max: 1, "aria-label": "progress" });
    this.doing = h("span", {});
    this.working = h("p", { class: "working", role: "status", hidden: true }, this.share, this.doing,
      h("button", { type: "button", onclick: () => this.transport.stop(this.kind) }, "Stop"));
    this.body = h("div", { class: "body", role: "tabpanel", id: `linscope-view-${++shownHere}` });
    this.pinned = h("div", { class: "pins", role: "list", "aria-label": "pinned fields" });
    this.copied = h("span", { class: "copied", role: "status" });
    this.told = h("p", { class: "told", role: "status" });
    this.untold = new Map();
    this.lines = h("pre", { tabIndex: 0, "aria-label": "Python lines that make the same" });
    root.classList.add("linscope");
    root.setAttribute("data-lm-suppress-shortcuts", "");  // Jupyter's, which also want the arrow keys
    root.replaceChildren(
      h("header", {}, h("h1", {}, "linscope explore"), this.summary), this.tabs, this.said, this.error, this.working,
      this.body, this.told,
      h("footer", {},
        h("button", { type: "button", "data-save": "png", onclick: () => this.savePicture() }, "Save as PNG"),
        h("button", { type: "button", "data-save": "json", onclick: () => this.saveNumbers() }, "Save as JSON"),
        h("button", { type: "button", "data-save": "link", onclick: () => this.copy() }, "Copy the address"),
        h("details", {}, h("summary", {}, "The same in Python"), this.lines), this.copied));
    transport.lost = (gone) => {
      if (gone) this.complain("The explorer's server does not answer: start linscope explore again, or wait.");
      else if (this.home) this.quiet(), this.view?.look();
    };
  }

  async start() {
    await this.transport.ready;
    const answer = await this.ask("home", {});
    if (!answer) return;
    this.home = answer.header;
    this.state.model ||= this.home.networks[0];
    this.state.photo ||= this.home.photos[0];
    this.readPins();
    this.transport.address.changed(() => this.reload());
    await this.open();
  }

  async reload() {
    const state = stateOf(this.transport.address.get());
    this.written = addressOf(state);
    if (this.written === addressOf(this.state)) return;
    Object.assign(this.state, state);
    this.readPins();
    this.state.model ||= this.home.networks[0];
    this.state.photo ||= this.home.photos[0];
    await this.open();
  }

  readPins() {
    this.pins = this.state.pins ? this.state.pins.split(";").map((text) => {
      const [at, ...pixel] = text.split(",");
      return { at, pixel: pixel.map(Number) };
    }) : [];
  }

  subject(second = false) {
    const { model, policy, photo, size, crop, model2, policy2 } = this.state;
    const other = this.home.fixed ? {} : {
      model: model2 || model,
      policy: policy2 || (model2 && model2 !== model ? policy : policy === "taylor" ? "paper" : "taylor"),
    };
    return { model, policy, photo, size: size === "" ? null : Math.round(Number(size)), crop: crop ? pair(crop) : null,
      ...(second ? other : {}) };
  }

  // An answer, or null where it was overtaken or is none; an error is shown.
  async ask(kind, fields, lane = 0, arrays = {}, told = null) {
    const answer = await this.transport.ask({ kind, lane, ...fields }, arrays, told);
    if (answer?.header.error) {
      this.complain(answer.header.error);
      return null;
    }
    if (answer) this.quiet();
    return answer;
  }

  // The same for what takes long: with progress and a button that stops it.
  async work(kind, fields, lane = 0) {
    this.kind = kind;
    const mine = (this.job = Symbol(kind));
    const shown = setTimeout(() => this.job === mine && (this.working.hidden = false), 150);
    this.share.removeAttribute("value");
    this.doing.textContent = "";
    const answer = await this.ask(kind, fields, lane, {}, ({ progress, text }) => {
      if (progress > 0) this.share.value = progress;
      this.doing.textContent = text;
    });
    clearTimeout(shown);
    if (this.job === mine) this.working.hidden = true;
    return answer;
  }

  complain(sentence) {
    this.error.textContent = sentence;
    this.error.hidden = false;
  }

  quiet() {
    this.error.hidden = true;
  }

  // Freezes what the address names, and shows it.
  async open() {
    const { state } = this;
    const subject = this.subject();
    const name = JSON.stringify(subject);
    if (this.openedName !== name) {
      this.opened = null;
      this.openedName = name;
      this.drawTabs();
      this.summary.textContent = `${subject.model} on ${subject.photo}`;
      const opened = await this.work("open", { subject });
      if (this.openedName !== name) return;
      if (opened) this.opened = opened;
      else this.openedName = null;
    }
    if (this.opened) {
      const { header } = this.opened;
      header.least = [header.input_shape, header.output_shape]
        .reduce((least, shape) => Math.min(least, shape.reduce((a, b) => a * b, 1)), Infinity);
      this.answers = { open: this.opened };
      this.lines.textContent = header.python;
      const shape = (s) => s.join(" \u00d7 ");
      this.summary.textContent = `${header.system} on ${subject.photo}: ${shape(header.input_shape)} \u2192 `
        + `${shape(header.output_shape)}, frozen by policy \u201c${header.policy}\u201d; |r| / |y| = `
        + percent(header.norm_residual_over_output);
    }
    await this.showView();
  }

  names() {
    const classifier = this.opened?.header.classifier;
    const first = classifier ? "labels" : "pixel";
    return this.home.views ?? (this.home.fixed ? [first, "spectrum", "photo"] : [first, "compare", "spectrum", "photo"]);
  }

  drawTabs() {
    const names = this.names();
    if (!names.includes(this.state.view)) this.state.view = names[0];
    this.tabs.replaceChildren(...names.map((name) => h("button", {
      type: "button", role: "tab", "data-view": name, "aria-selected": String(name === this.state.view),
      "aria-controls": this.body.id, tabIndex: name === this.state.view ? 0 : -1,
      onclick: () => this.set({ view: name }, null, true),
    }, VIEWS[name][0])));
    const [title, sentence, ofFixed] = VIEWS[this.state.view];
    this.said.textContent = (this.home.fixed && ofFixed) || sentence;
    this.body.setAttribute("aria-label", title);
  }

  nextTab(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const names = this.names();
    const view = names[(names.indexOf(this.state.view) + step + names.length) % names.length];
    this.set({ view }, null, true).then(() => {});
    this.tabs.querySelector(`[data-view=${view}]`)?.focus();
  }

  async showView() {
    this.view = null;
    this.drawTabs();
    const { view } = this.state;
    const mine = (this.shownView = Symbol(view));
    if (!this.opened && (view !== "photo" || this.home.fixed)) {
      this.body.replaceChildren(h("p", { class: "note" }, "Nothing is shown: choose another network or photo under Photo."));
      return;
    }
    const make = { spectrum: spectrumView, photo: photoView }[view] ?? ((e, b) => panesView(e, b, view === "compare"));
    const made = await make(this, this.body);
    if (this.shownView !== mine) return;
    this.view = made;
    this.write();
    await made?.look();
  }

  // Changes what is seen: at once, or with the view made anew.
  async set(changes, asked = null, anew = false) {
    Object.assign(this.state, changes);
    this.copied.replaceChildren();
    this.write();
    if (anew) await this.open();
    else await this.view?.look(asked);
  }

  // Not at every move of the pointer: browsers refuse an address that changes too often.
  write() {
    clearTimeout(this.writing);
    this.writing = setTimeout(() => {
      const text = addressOf(this.state);
      if (text !== this.written) this.transport.address.set((this.written = text));
    }, 250);
  }

  // A notebook's cell is cleared.
  close() {
    clearTimeout(this.writing);
    clearTimeout(this.telling);
    this.transport.close();
  }

  // Says it to whoever listens to the page, once what is shown stays for a moment: the last sentence
  // about each thing.
  tell(what, sentence) {
    clearTimeout(this.telling);
    this.untold.delete(what);
    this.untold.set(what, sentence);
    this.telling = setTimeout(() => {
      this.told.textContent = [...this.untold.values()].join("; ");
      this.untold.clear();
    }, 400);
  }

  touch(at, pixel, asked) {
    const text = pixel.join(",");
    if (this.state.at === at && this.state.pixel === text) return;
    this.set({ at, pixel: text }, asked);
  }

  pin(at, pixel) {
    const found = this.pins.findIndex((p) => p.at === at && p.pixel.join() === pixel.join());
    if (found >= 0) this.pins.splice(found, 1);
    else this.pins.push({ at, pixel: [...pixel] });
    this.pins = this.pins.slice(-8);
    this.drawPins();
  }

  // Close-ups of pinned pixels, of each network that is seen, which stay while the pointer goes on.
  async drawPins() {
    this.state.pins = this.pins.map(({ at, pixel }) => [at, ...pixel].join(",")).join(";");
    this.write();
    const mine = (this.drawing = Symbol("pins"));
    const shown = (this.pinnedAnswers = []);
    this.pinned.replaceChildren();
    for (const [pin, pane] of this.pins.flatMap((pin) => this.panes.map((pane) => [pin, pane]))) {
      const answer = await this.ask("field", pane.asked(pin.at, pin.pixel), 2);
      if (this.drawing !== mine) return;
      if (!answer) continue;
      shown.push(answer);
      const { header, arrays } = answer;
      const [, [top, bottom], [left, right]] = header.box;
      const [y, x, height, width] = header.window
        ? [header.window[0], header.window[1], header.window[2], header.window[2]]
        : [top, left, bottom - top, right - left];
      const values = plane(arrays.values, this.state.shown);
      const { system, policy } = pane.opened.header;
      const whose = this.panes.length > 1 ? `${system}, ${policy}: ` : "";
      const place = `${pin.at} ${header.pixel.join(", ")}`;
      const panel = new Panel("", `${whose}${header.field} field of ${place}`, [height, width]);
      panel.show([[signedPicture(values, Number(this.state.scale) || values.largest), top, left]], [], [y, x, height, width]);
      panel.say(`${whose}${place}: ${pixels(header.radius)}`);
      panel.element.setAttribute("role", "listitem");
      panel.element.append(
        h("button", { type: "button", onclick: () => this.set({ at: pin.at, pixel: pin.pixel.join(",") }) }, "show"),
        h("button", { type: "button", onclick: () => this.pin(pin.at, pin.pixel),
          "aria-label": `unpin ${pin.at} ${pin.pixel.join(", ")}` }, "unpin"));
      this.pinned.append(panel.element);
    }
  }

  // What was drawn, its lines of Python, and how long it took from the pointer to the picture.
  shown(name, answer, asked = null) {
    this.answers[name] = answer;
    this.lines.textContent = this.python();
    if (!asked) return;
    requestAnimationFrame(() => setTimeout(() => {
      this.timings.push(performance.now() - asked);
      if (this.timings.length > 1000) this.timings.shift();
    }));
  }

  // ---- export

  // The lines that make all that is shown, those of a second network after those of the first; what
  // was said already is not said again.
  python() {
    const said = Object.entries(this.answers).filter(([, { header }]) => header.python);
    const of = (second) => {
      const lines = said.filter(([name]) => name.endsWith("2") === second)
        .flatMap(([, { header }]) => header.python.split("\n"));
      return lines.filter((line, n) => !line || lines.indexOf(line) === n).join("\n").replace(/\n{3,}/g, "\n\n");
    };
    return [of(false), of(true)].filter(Boolean).join("\n# the second one\n");
  }

  savePicture() {
    drawn(this.body, this.summary.textContent).toBlob((blob) => this.save(blob, "png"));
  }

  saveNumbers() {
    const plain = ({ header, arrays }) => ({ ...header,
      arrays: Object.fromEntries(Object.entries(arrays).map(([name, { shape, data }]) => [name, { shape, data: [...data] }])) });
    const shown = Object.fromEntries(Object.entries(this.answers).map(([name, answer]) => [name, plain(answer)]));
    const pinned = this.panes.length ? this.pinnedAnswers.map(plain) : [];
    const text = JSON.stringify({ address: addressOf(this.state), shown, pinned, python: this.python() });
    this.save(new Blob([text], { type: "application/json" }), "json");
  }

  save(blob, end) {
    const link = h("a", { href: URL.createObjectURL(blob), download: `linscope-${this.state.view}.${end}`, hidden: true });
    this.root.append(link);  // where whoever watches for clicks sees it, too
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  async copy() {
    this.transport.address.set(addressOf(this.state));
    const link = this.transport.address.link();
    const taken = await navigator.clipboard?.writeText(link).then(() => true, () => false);
    if (taken) return this.copied.replaceChildren("The address is copied.");
    const field = h("input", { type: "text", readOnly: true, value: link, "aria-label": "the address" });
    this.copied.replaceChildren("The browser does not let this page copy; here is the address:", field);
    field.focus();
    field.select();
  }
}

// What a view shows as one picture: panels with their captions, colour bars, lists of names and numbers.
const DRAWN = ["figure.panel", ".bar", ".sigmas, .readings, .legend, .labels, .entries, .scores", ".pins figure"];
const [SIDE, GAP, LINE] = [360, 18, 18];

function drawn(body, title) {
  const rank = (element) => DRAWN.findLastIndex((selector) => element.matches(selector));
  const width = GAP + 3 * (SIDE + GAP);
  const canvas = h("canvas", { width, height: 1 });
  const to = canvas.getContext("2d");
  const groups = [[]];  // each heading begins one
  for (const element of body.querySelectorAll(["h3", ...DRAWN].join())) {
    if (!element.checkVisibility() || element.matches("figure + .bar")) continue;
    if (element.tagName === "H3") groups.push([element]);
    else groups.at(-1).push(element);
  }
  const strokes = [];
  let low = [52, 52, 52];  // where each of three columns goes on
  for (const group of groups) {
    low = low.map(() => Math.max(...low));
    for (const element of group.sort((a, b) => rank(a) - rank(b))) {
      if (element.tagName === "H3") {
        const y = low[0] + 22;
        strokes.push(() => write(to, element.textContent, GAP, y, width - 2 * GAP, "bold 15px"));
        low = low.map((top) => top + 34);
        continue;
      }
      const column = low.indexOf(Math.min(...low));
      const [height, draw] = blockOf(to, element);
      const [x, y] = [GAP + column * (SIDE + GAP), low[column]];
      strokes.push(() => draw(x, y));
      low[column] += height + GAP;
    }
  }
  canvas.height = Math.ceil(Math.max(...low));
  to.fillStyle = "#fff";
  to.fillRect(0, 0, canvas.width, canvas.height);
  to.fillStyle = "#1f2328";
  to.imageSmoothingEnabled = false;
  write(to, title, GAP, 30, width - 2 * GAP, "15px");
  for (const stroke of strokes) stroke();
  return canvas;
}

// The height of an element's picture, and what draws it at a place.
function blockOf(to, element) {
  if (element.matches(".bar")) {
    const [least, ramp, most] = element.children;
    return [LINE, (x, y) => {
      to.drawImage(ramp, x + 60, y + 2, SIDE - 120, 12);
      write(to, least.textContent, x, y + 13, 56);
      write(to, most.textContent, x + SIDE - 54, y + 13, 54);
    }];
  }
  if (element.matches("figure")) {
    const image = element.querySelector("canvas");
    const scale = Math.min(SIDE / image.width, SIDE / image.height);
    const caption = wrapped(to, element.querySelector("figcaption").textContent, SIDE);
    const [wide, high] = [image.width * scale, image.height * scale];
    const under = high + caption.length * LINE;
    const bar = element.nextElementSibling;
    const [more, draw] = bar?.matches(".bar") && bar.checkVisibility() ? blockOf(to, bar) : [0, () => {}];
    return [under + (more && more + GAP / 2), (x, y) => {
      to.drawImage(image, x, y, wide, high);
      caption.forEach((text, n) => write(to, text, x, y + high + (n + 1) * LINE, SIDE));
      draw(x, y + under + GAP / 2);
    }];
  }
  const rows = rowsOf(element).filter((row) => row.length).slice(0, 40);
  if (!rows.length) return [0, () => {}];
  const title = element.getAttribute("aria-label");
  const head = title ? LINE + 2 : 0;
  const swatches = element.matches(".legend") ? [...element.querySelectorAll("i")] : [];
  to.font = FONT;
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((row) => to.measureText(row[c] ?? "").width)) + 12);
  return [head + rows.length * LINE, (x, y) => {
    if (title) write(to, title, x, y + LINE - 5, SIDE, "bold 13px");
    rows.forEach((row, n) => {
      const at = y + head + (n + 1) * LINE - 5;
      let right = x + SIDE;
      for (let c = row.length - 1; c > 0; c--) write(to, row[c], (right -= widths[c]), at, widths[c]);
      const left = x + (swatches[n] ? LINE : 0);
      write(to, row[0], left, at, right - left - 8);
      if (!swatches[n]) return;
      const ink = to.fillStyle;
      to.fillStyle = getComputedStyle(swatches[n]).backgroundColor;
      to.fillRect(x, at - 10, 12, 12);
      to.fillStyle = ink;
    });
  }];
}

const FONT = "13px system-ui, sans-serif";

function write(to, text, x, y, most, size = "") {
  to.font = size ? FONT.replace("13px", size) : FONT;
  to.fillText(text, x, y, most);
}

function wrapped(to, text, most) {
  to.font = FONT;
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (to.measureText(longer).width > most && lines.at(-1)) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}

// A list as names and numbers.
function rowsOf(element) {
  if (element.matches(".sigmas")) {
    return [...element.querySelectorAll("button")].map((b) => b.title.split(" = "));
  }
  const rows = element.matches(".scores") ? [...element.rows] : [...element.children];
  return rows.map((row) => (row.querySelector("button") ?? row)).map((row) =>
    [...row.children].map((cell) => cell.textContent).filter(Boolean));
}

// ---------------------------------------------------------------- homes

export function explore(root, transport) {
  const explorer = new Explorer(root, transport);
  explorer.start();
  return explorer;
}

// A notebook's cell: what anywidget calls.
export default {
  render({ model, el }) {
    const root = h("div");
    el.append(root);
    const explorer = explore(root, commTransport(model));
    return () => explorer.close();
  },
};

// A page without a server has its fields in it, compressed.
async function bundled(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return bundledTransport(unpack(await new Response(stream).arrayBuffer()));
}

const home = document.getElementById("linscope");
const bundle = document.getElementById("linscope-bundle");
if (home && bundle) {
  bundled(bundle.textContent).then((transport) => (window.linscope = explore(home, transport)));
} else if (home) {
  const url = new URL("questions", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  window.linscope = explore(home, socketTransport(url));
}
