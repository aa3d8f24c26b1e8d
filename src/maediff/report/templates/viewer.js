// Slice viewer of a scan: three planes or a mosaic, with healthy reference, anomaly map and mask as layers.
//
// The page holds, for each scan, a JSON description and its volumes: gzip, base64, one byte per voxel, x fastest.
// Layers: scan and reference (0 to 255 between `low` and `high`), map (0 to 255 between 0 and `top`), mask (0 or 1).
// A session has more images and maps on the same grid; `images` and `maps` list their layers and names, and `ranges`
// has `low` and `high` of each contrast besides the first.
// Voxels are cubes on RAS+ axes, cropped to the brain; `affine` leads from voxels to mm.
"use strict";

(() => {
  // `ends`: the patient's side at the left, right, bottom and top of a picture.
  const PLANES = [
    { name: "Sagittal", across: 1, up: 2, through: 0, ends: ["P", "A", "I", "S"] },
    { name: "Coronal", across: 0, up: 2, through: 1, ends: ["L", "R", "I", "S"] },
    { name: "Axial", across: 0, up: 1, through: 2, ends: ["L", "R", "P", "A"] },
  ];
  const MOSAIC = 20; // axial slices
  const BAR_MM = 50; // length of the scale bar
  const GAP_MM = 6; // the crosshair leaves its centre free, so that it hides no lesion
  const KEYS = [
    ["click or drag", "move the crosshair"], ["wheel, Page Up, Page Down", "change the slice"],
    ["arrow keys", "move the crosshair by one voxel"], ["R", "scan or healthy reference"], ["M", "anomaly map on or off"],
    ["K", "mask on or off"], ["C", "crosshair on or off"], ["N, P", "next or previous region"],
  ];
  const MASK_COLOUR = [255, 140, 26];
  const LINE = "rgba(120, 200, 255, 0.7)";
  const page = { side: "left", viewers: [] }; // the side on the left of the pictures, for all viewers of the page

  async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const apply = (m, p) => [0, 1, 2].map((row) => m[row][0] * p[0] + m[row][1] * p[1] + m[row][2] * p[2] + m[row][3]);
  const round3 = (value) => String(Number(value.toPrecision(3))); // 1900, not 1.90e+3
  const position = (mm) => mm.map((value) => String(Math.round(value))).join(", "); // 0, not -0
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const element = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };

  class Viewer {
    constructor(root, info, bytes, colours) {
      this.root = root;
      this.info = info;
      this.colours = colours;
      const size = info.shape[0] * info.shape[1] * info.shape[2];
      this.layers = {};
      info.layers.forEach((name, n) => { this.layers[name] = bytes.subarray(n * size, (n + 1) * size); });
      this.stride = [1, info.shape[0], info.shape[0] * info.shape[1]];
      this.toVoxel = invert(info.affine);
      this.state = { at: info.shape.map((n) => Math.floor(n / 2)), ...this.initial() };
      this.current = -1; // index of the region that the crosshair was last moved to
      this.region = -1; // the same while the crosshair is there
      this.mask = this.layers.mask;
      this.regions = info.regions;
      this.exact = true;
      this.build();
      this.fillTable();
      if (info.regions.length) this.goToRegion(0); else this.draw();
      page.viewers.push(this);
    }

    // The state that Reset restores: all but the position.
    initial() {
      return {
        base: "scan", layer: "map", swipe: 0.5, map: true, mask: true, cross: true, opacity: 0.6,
        threshold: this.info.maps[0].threshold, low: 0, high: 255, view: "planes",
      };
    }

    get mirrored() { return page.side === "right"; }

    // ---- layout -------------------------------------------------------------------------------------------------

    build() {
      this.stage = element("div", { class: "planes" });
      this.canvases = PLANES.map((plane, n) => {
        const canvas = element("canvas", { tabindex: "0", role: "img", "data-plane": plane.name });
        canvas.style.flexGrow = this.info.shape[plane.across]; // one scale for all planes
        canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); this.point(event, n); });
        canvas.addEventListener("pointermove", (event) => { if (event.buttons) this.point(event, n); });
        canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.step(plane.through, Math.sign(event.deltaY)); }, { passive: false });
        canvas.addEventListener("keydown", (event) => this.key(event, plane));
        this.stage.append(canvas);
        return canvas;
      });
      this.mosaic = element("canvas", { class: "mosaic", tabindex: "0", role: "img", "aria-label": "Mosaic of axial slices", hidden: "" });
      this.mosaic.addEventListener("pointerdown", (event) => this.pointMosaic(event));
      this.readout = element("p", { class: "readout", role: "status", "aria-live": "polite" });
      this.root.replaceChildren(this.controls(), this.stage, this.mosaic, this.scale(), this.readout, this.help());
      this.root.addEventListener("keydown", (event) => this.shortcut(event));
      window.addEventListener("resize", () => this.draw());
    }

    // The colour scale of the map; drawScale() moves its threshold.
    scale() {
      const row = element("div", { class: "colours" });
      this.bar = element("canvas", { width: "256", height: "14", role: "img", "aria-label": "Colour scale of the anomaly map" });
      const most = `${Number(this.info.maximum.toPrecision(3))} and more (${this.info.unit})`;
      this.mark = element("span");
      row.append(element("span", {}, "Anomaly map: 0"), this.bar, element("span", {}, most), this.mark);
      return row;
    }

    drawScale() {
      const context = this.bar.getContext("2d"), { width, height } = this.bar, image = context.createImageData(width, height);
      for (let n = 0; n < width * height; n++) image.data.set([...this.colours.subarray(3 * (n % width), 3 * (n % width) + 3), 255], 4 * n);
      context.putImageData(image, 0, 0);
      const at = Math.min(width - 1, this.state.threshold / this.info.maximum * width);
      context.fillStyle = "#fff";
      context.fillRect(at - 1, 0, 2, height);
      this.mark.textContent = `white line: threshold ${this.state.threshold.toPrecision(2)}; orange line: edge of the mask`;
    }

    help() {
      const box = element("details", { class: "keys" }), list = element("dl");
      for (const [key, meaning] of KEYS) {
        const row = element("div");
        row.append(element("dt", {}, key), element("dd", {}, meaning));
        list.append(row);
      }
      box.append(element("summary", {}, "Mouse and keys"), list);
      return box;
    }

    // The map that is shown: its layer and mask, and threshold and growth of this mask.
    get shown() { return this.info.maps.find(({ layer }) => layer === this.state.layer); }

    changeMap() {
      this.state.threshold = this.shown.threshold;
      this.show.threshold();
      this.rethreshold();
    }

    controls() {
      this.show = {};
      const bar = element("div", { class: "controls" });
      const alone = PLANES.map(({ name }) => [name, `${name.toLowerCase()} alone`]);
      this.choice(bar, "View", "view", [["planes", "three planes"], ...alone, ["mosaic", "mosaic"]]);
      const contrasts = Object.keys(this.info.ranges || {}), first = this.info.images ? this.info.images[0][1] : "scan";
      const swipes = [["swipe", `swipe: ${first} | reference`], ...contrasts.map((name) => [`swipe-${name}`, `swipe: ${name} | reference`])];
      this.choice(bar, "Image", "base", [...this.images(), ...swipes], () => { this.show.low(); this.show.high(); });
      this.choice(bar, "Left in the picture", "side", [["left", "patient's left"], ["right", "patient's right (radiological)"]]);
      const maps = this.info.maps.map(({ layer, name }) => [layer, name]);
      if (maps.length > 1) this.choice(bar, "Map of", "layer", maps, () => this.changeMap());
      this.slider(bar, "Swipe", "swipe", 0, 1, 0.01);
      this.swipe = bar.lastChild;
      this.check(bar, "Anomaly map", "map");
      this.check(bar, "Mask", "mask");
      this.check(bar, "Crosshair", "cross");
      this.slider(bar, "Opacity", "opacity", 0, 1, 0.05);
      this.slider(bar, "Threshold", "threshold", 0, this.info.top, this.info.top / 255, () => this.rethreshold());
      const intensity = (value) => round3(this.intensity(this.state.base, value));
      this.slider(bar, "Black", "low", 0, 254, 1, null, intensity);
      this.slider(bar, "White", "high", 1, 255, 1, null, intensity);
      const reset = element("button", { type: "button", class: "reset" }, "Reset");
      reset.addEventListener("click", () => this.reset());
      bar.append(reset);
      return bar;
    }

    images() { return this.info.images || [["scan", "scan"], ["reference", "healthy reference"]]; }

    // Scan and reference of the contrast that an image or a swipe shows.
    pair(base) {
      const name = Object.keys(this.info.ranges || {}).find((contrast) => [contrast, `${contrast}-reference`, `swipe-${contrast}`].includes(base));
      return name ? [name, `${name}-reference`] : ["scan", "reference"];
    }

    // Intensity of the scan for a byte of an image.
    intensity(base, byte) {
      const [low, high] = (this.info.ranges || {})[this.pair(base)[0]] || [this.info.low, this.info.high];
      return low + (high - low) * byte / 255;
    }

    labelled(bar, text, input) {
      const label = element("label", {}, text + " ");
      label.append(input);
      bar.append(label);
      return input;
    }

    choice(bar, text, key, options, also = null) {
      const select = this.labelled(bar, text, element("select", { name: key }));
      const state = () => (key === "side" ? page : this.state);
      for (const [value, shown] of options) select.append(element("option", { value }, shown));
      this.show[key] = () => { select.value = state()[key]; };
      this.show[key]();
      select.addEventListener("change", () => { state()[key] = select.value; if (also) also(); this.redraw(key); });
    }

    // A change of the side concerns all viewers of the page.
    redraw(key) {
      for (const viewer of key === "side" ? page.viewers : [this]) { viewer.show[key](); viewer.draw(); }
    }

    check(bar, text, key) {
      const box = this.labelled(bar, text, element("input", { type: "checkbox", name: key }));
      this.show[key] = () => { box.checked = this.state[key]; };
      this.show[key]();
      box.addEventListener("change", () => { this.state[key] = box.checked; this.draw(); });
    }

    slider(bar, text, key, min, max, step, also, format = (value) => value.toPrecision(2)) {
      const range = this.labelled(bar, text, element("input", { type: "range", name: key, min, max, step }));
      range.value = this.state[key];
      const shown = element("output");
      const show = () => { shown.textContent = format(Number(range.value)); };
      show();
      range.after(shown);
      this.show[key] = () => { range.value = this.state[key]; show(); };
      range.addEventListener("input", () => { this.state[key] = Number(range.value); show(); if (also) also(); this.draw(); });
    }

    reset() {
      this.state = { ...this.state, ...this.initial() };
      const bar = this.controls();
      this.root.replaceChild(bar, this.root.firstChild);
      bar.querySelector(".reset").focus(); // the old button is gone, and with it the focus
      this.rethreshold();
      this.draw();
    }

    // ---- moving -------------------------------------------------------------------------------------------------

    goTo(mm) {
      this.region = -1;
      this.state.at = apply(this.toVoxel, mm).map((value, axis) => clamp(Math.round(value), 0, this.info.shape[axis] - 1));
    }

    goToRegion(n) {
      if (!this.regions[n]) return;
      this.goTo(this.regions[n].center_mm);
      this.current = this.region = n;
      this.draw();
    }

    step(axis, by) {
      this.region = -1;
      this.state.at[axis] = clamp(this.state.at[axis] + by, 0, this.info.shape[axis] - 1);
      this.draw();
    }

    point(event, n) {
      const plane = PLANES[n], box = this.canvases[n].getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      const shape = this.info.shape;
      const across = this.isMirrored(plane.across) ? 1 - x : x;
      this.region = -1;
      this.state.at[plane.across] = clamp(Math.floor(across * shape[plane.across]), 0, shape[plane.across] - 1);
      this.state.at[plane.up] = clamp(Math.floor((1 - y) * shape[plane.up]), 0, shape[plane.up] - 1);
      this.draw();
    }

    pointMosaic(event) {
      const box = this.mosaic.getBoundingClientRect(), { columns, rows, slices } = this.grid();
      const x = (event.clientX - box.left) / box.width * columns, y = (event.clientY - box.top) / box.height * rows;
      const chosen = slices[Math.floor(y) * columns + Math.floor(x)], [width, height] = this.info.shape;
      if (chosen === undefined) return;
      const across = this.mirrored ? 1 - x % 1 : x % 1;
      this.region = -1;
      this.state.at = [clamp(Math.floor(across * width), 0, width - 1), clamp(Math.floor((1 - y % 1) * height), 0, height - 1), chosen];
      this.draw();
    }

    isMirrored(axis) { return axis === 0 && this.mirrored; }

    key(event, plane) {
      const right = this.isMirrored(plane.across) ? -1 : 1;
      const moves = {
        ArrowLeft: [plane.across, -right], ArrowRight: [plane.across, right], ArrowDown: [plane.up, -1], ArrowUp: [plane.up, 1],
        PageDown: [plane.through, -1], PageUp: [plane.through, 1],
      };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      this.step(...move);
    }

    shortcut(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
      const toggle = (key) => { this.state[key] = !this.state[key]; this.show[key](); this.draw(); };
      const { length } = this.regions, [scan, reference] = this.pair(this.state.base);
      const actions = {
        r: () => { this.state.base = this.state.base === reference ? scan : reference; this.show.base(); this.draw(); },
        m: () => toggle("map"), k: () => toggle("mask"), c: () => toggle("cross"),
        n: () => this.goToRegion((this.current + 1) % length), p: () => this.goToRegion((Math.max(this.current, 0) + length - 1) % length),
      };
      const action = actions[event.key.toLowerCase()];
      if (!action) return;
      event.preventDefault();
      action();
    }

    // ---- regions ------------------------------------------------------------------------------------------------

    rethreshold() {
      const { info, state, shown } = this;
      this.exact = Math.abs(state.threshold - shown.threshold) < info.top / 510;
      if (this.exact) {
        this.mask = this.layers[shown.mask];
        this.regions = shown === info.maps[0] ? info.regions : this.flood(this.mask, 0, () => true).regions;
      } else {
        ({ mask: this.mask, regions: this.regions } = this.components(state.threshold / info.top * 255));
      }
      this.fillTable();
    }

    // Components above the level that are large enough, and their surroundings above a share of it.
    components(level) {
      const map = this.layers[this.shown.layer], { extent, min_volume_mm3: volume } = this.shown;
      const least = Math.max(1, Math.ceil(volume / 1000 / this.info.voxel_ml * (1 - 1e-5)));
      const cores = this.flood(map, level, (members) => members.length >= least);
      return extent < 1 ? this.flood(map, level * extent, (members) => members.some((at) => cores.mask[at])) : cores;
    }

    // Components of the voxels of a layer above a level, with values of the map that is shown.
    flood(layer, level, isKept) {
      const { shape, affine, top, voxel_ml: ml, to_mni: toMni } = this.info;
      const map = this.layers[this.shown.layer], mask = new Uint8Array(map.length), regions = [];
      const near = [];
      for (let z = -1; z <= 1; z++) for (let y = -1; y <= 1; y++) for (let x = -1; x <= 1; x++) if (x || y || z) near.push([x, y, z]);
      const seen = new Uint8Array(map.length);
      for (let start = 0; start < map.length; start++) {
        if (seen[start] || layer[start] <= level) continue;
        const members = [start];
        seen[start] = 1;
        let peak = 0, total = 0;
        const sum = [0, 0, 0];
        for (let n = 0; n < members.length; n++) {
          const at = members[n], x = at % shape[0], y = Math.floor(at / this.stride[1]) % shape[1], z = Math.floor(at / this.stride[2]);
          peak = Math.max(peak, map[at]);
          total += map[at];
          sum[0] += x; sum[1] += y; sum[2] += z;
          for (const [dx, dy, dz] of near) {
            const i = x + dx, j = y + dy, k = z + dz;
            if (i < 0 || j < 0 || k < 0 || i >= shape[0] || j >= shape[1] || k >= shape[2]) continue;
            const next = i + j * this.stride[1] + k * this.stride[2];
            if (!seen[next] && layer[next] > level) { seen[next] = 1; members.push(next); }
          }
        }
        if (!isKept(members)) continue;
        for (const at of members) mask[at] = 1;
        const center = apply(affine, sum.map((v) => v / members.length));
        regions.push({
          volume_ml: members.length * ml, peak: peak / 255 * top, mean: total / members.length / 255 * top,
          center_mm: center, mni_mm: toMni ? apply(toMni, center) : null,
        });
      }
      regions.sort((a, b) => b.volume_ml - a.volume_ml);
      return { mask, regions };
    }

    fillTable() {
      this.current = this.region = -1;
      const body = document.querySelector(`#${this.info.id}-regions tbody`);
      if (!body) return;
      body.replaceChildren(...this.regions.slice(0, 50).map((region, n) => {
        const row = element("tr");
        const head = element("th", { scope: "row" });
        const button = element("button", { type: "button", class: "jump" }, `${n + 1}`);
        button.setAttribute("aria-label", `Go to region ${n + 1}`);
        head.append(button);
        row.append(head);
        const mean = region.mean === null ? "" : region.mean.toPrecision(3);
        const cells = [
          `${region.volume_ml.toFixed(2)} ml`, region.peak.toPrecision(3), mean, region.location || "",
          position(region.center_mm), region.mni_mm ? position(region.mni_mm) : "",
        ];
        for (const text of cells) row.append(element("td", {}, text));
        row.addEventListener("click", () => this.goToRegion(n));
        return row;
      }));
      const caption = document.querySelector(`#${this.info.id}-regions caption`);
      if (caption) {
        const total = this.regions.reduce((ml, region) => ml + region.volume_ml, 0);
        caption.textContent = `${this.regions.length} region${this.regions.length === 1 ? "" : "s"}, ${total.toFixed(1)} ml above ${this.state.threshold.toPrecision(2)}` + (this.regions === this.info.regions ? "" : ", counted in this viewer") + (this.exact ? "" : ", with the edge of the brain");
      }
    }

    // ---- drawing ------------------------------------------------------------------------------------------------

    picture(across, up, through, at) {
      const { shape } = this.info, { state, layers, stride, colours, mask } = this;
      const width = shape[across], height = shape[up], image = new ImageData(width, height);
      const level = state.threshold / this.info.top * 255, span = Math.max(1, state.high - state.low);
      const swipes = state.base.startsWith("swipe"), border = Math.round(state.swipe * width), mirrored = this.isMirrored(across);
      const [scan, reference] = this.pair(state.base), whole = layers[swipes ? scan : state.base], map = layers[state.layer];
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          const x = mirrored ? width - 1 - column : column;
          const voxel = at * stride[through] + x * stride[across] + (height - 1 - row) * stride[up];
          const source = swipes && column >= border ? layers[reference] : whole;
          const grey = clamp((source[voxel] - state.low) / span * 255, 0, 255);
          let colour = [grey, grey, grey];
          const value = map[voxel];
          if (state.map && value > 0.1 * level) {
            // The colour scale runs from 0 to the maximum of the still pictures, whatever the threshold is.
            const shade = clamp(Math.round(value * this.info.top / this.info.maximum), 0, 255) * 3;
            const weight = state.opacity * Math.min(1, value / Math.max(level, 1));
            colour = colour.map((c, n) => c * (1 - weight) + colours[shade + n] * weight);
          }
          if (state.mask && mask[voxel] && this.onEdge(voxel, column, row, width, height, across, up)) colour = MASK_COLOUR;
          image.data.set([...colour, 255], 4 * (row * width + column));
        }
      }
      return image;
    }

    onEdge(voxel, column, row, width, height, across, up) {
      const { mask, stride } = this;
      return column === 0 || row === 0 || column === width - 1 || row === height - 1
        || !mask[voxel - stride[across]] || !mask[voxel + stride[across]] || !mask[voxel - stride[up]] || !mask[voxel + stride[up]];
    }

    paint(canvas, image, scale) {
      const source = new OffscreenCanvas(image.width, image.height);
      source.getContext("2d").putImageData(image, 0, 0);
      canvas.width = image.width * scale;
      canvas.height = image.height * scale;
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = true;
      context.drawImage(source, 0, 0, canvas.width, canvas.height);
      return context;
    }

    draw() {
      const { state, info, region } = this, mosaic = state.view === "mosaic";
      this.swipe.hidden = !state.base.startsWith("swipe");
      this.stage.hidden = mosaic;
      this.mosaic.hidden = !mosaic;
      this.canvases.forEach((canvas, n) => { canvas.hidden = !["planes", PLANES[n].name].includes(state.view); });
      this.stage.classList.toggle("alone", state.view !== "planes");
      if (mosaic) this.drawMosaic(); else PLANES.forEach((plane, n) => this.drawPlane(plane, n));
      this.drawScale();
      document.querySelectorAll(`#${info.id}-regions tbody tr`).forEach((row, n) => row.classList.toggle("current", n === region));
      const voxel = state.at.reduce((sum, at, axis) => sum + at * this.stride[axis], 0), mm = apply(info.affine, state.at);
      const mni = info.to_mni ? `; MNI152 ${position(apply(info.to_mni, mm))} mm` : "";
      const images = this.images().map(([layer, name]) => `${name} ${round3(this.intensity(layer, this.layers[layer][voxel]))}`).join(", ");
      const where = region < 0 ? "" : `; region ${region + 1} of ${this.regions.length}`;
      this.readout.textContent = `x, y, z: ${position(mm)} mm (RAS+)${mni}; ${images}; anomaly map ${(this.layers[state.layer][voxel] / 255 * info.top).toFixed(2)}${where}`;
    }

    write(context, text, x, y, align, baseline) {
      context.textAlign = align;
      context.textBaseline = baseline;
      context.lineWidth = 2;
      context.strokeStyle = "rgba(0, 0, 0, 0.8)";
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    }

    drawPlane(plane, n) {
      const { across, up, through } = plane, { shape } = this.info, { at } = this.state;
      const canvas = this.canvases[n], scale = Math.max(1, Math.round((this.state.view === "planes" ? 420 : 840) / Math.max(...shape)));
      const context = this.paint(canvas, this.picture(across, up, through, at[through]), scale);
      const { width, height } = canvas, voxelMm = Math.cbrt(1000 * this.info.voxel_ml), mirrored = this.isMirrored(across);
      const x = ((mirrored ? shape[across] - 1 - at[across] : at[across]) + 0.5) * scale, y = (shape[up] - at[up] - 0.5) * scale;
      const unit = width / (canvas.clientWidth || width), gap = GAP_MM / voxelMm * scale; // unit: a pixel of the screen
      if (this.state.cross) {
        context.strokeStyle = LINE;
        context.lineWidth = unit;
        context.beginPath();
        for (const [x1, y1, x2, y2] of [[x, 0, x, y - gap], [x, y + gap, x, height], [0, y, x - gap, y], [x + gap, y, width, y]]) {
          context.moveTo(x1, y1);
          context.lineTo(x2, y2);
        }
        context.stroke();
      }
      const [first, last, bottom, top] = plane.ends, edge = 4 * unit;
      context.fillStyle = "#e6ebf0";
      context.font = `600 ${13 * unit}px sans-serif`;
      this.write(context, mirrored ? last : first, edge, height / 2, "left", "middle");
      this.write(context, mirrored ? first : last, width - edge, height / 2, "right", "middle");
      this.write(context, top, width / 2, edge, "center", "top");
      this.write(context, bottom, width / 2, height - edge, "center", "bottom");
      const mm = apply(this.info.affine, at)[through].toFixed(0);
      context.font = `${12 * unit}px sans-serif`;
      this.write(context, `${"xyz"[through]} ${mm} mm`, edge, edge, "left", "top");
      const length = BAR_MM / voxelMm * scale;
      this.write(context, `${BAR_MM / 10} cm`, edge + length / 2, height - edge - 3 * unit, "center", "bottom");
      context.fillRect(edge, height - edge - 2 * unit, length, 2 * unit);
      canvas.setAttribute("aria-label", `${plane.name} slice at ${mm} mm; arrow keys move the crosshair, Page Up and Page Down change the slice`);
    }

    grid() {
      const depth = this.info.shape[2], count = Math.min(MOSAIC, depth), columns = Math.min(5, count);
      const slices = Array.from({ length: count }, (_, n) => Math.round((n + 0.5) * depth / count - 0.5));
      return { columns, rows: Math.ceil(count / columns), slices };
    }

    drawMosaic() {
      const { columns, rows, slices } = this.grid(), [width, height] = this.info.shape;
      const whole = new ImageData(columns * width, rows * height);
      whole.data.fill(255);
      slices.forEach((at, n) => {
        const tile = this.picture(0, 1, 2, at), left = (n % columns) * width, top = Math.floor(n / columns) * height;
        for (let row = 0; row < height; row++) {
          whole.data.set(tile.data.subarray(4 * row * width, 4 * (row + 1) * width), 4 * ((top + row) * columns * width + left));
        }
      });
      const context = this.paint(this.mosaic, whole, 2), unit = this.mosaic.width / (this.mosaic.clientWidth || this.mosaic.width);
      const [left, right] = this.mirrored ? ["R", "L"] : ["L", "R"];
      context.fillStyle = "#e6ebf0";
      context.font = `${12 * unit}px sans-serif`;
      slices.forEach((at, n) => {
        const x = 2 * (n % columns) * width, y = 2 * Math.floor(n / columns) * height, mm = apply(this.info.affine, [0, 0, at])[2].toFixed(0);
        this.write(context, `z ${mm}`, x + 3 * unit, y + 3 * unit, "left", "top");
        this.write(context, left, x + 3 * unit, y + height, "left", "middle");
        this.write(context, right, x + 2 * width - 3 * unit, y + height, "right", "middle");
      });
    }
  }

  function invert(m) {
    const [a, b, c] = m.map((row) => row.slice(0, 3)), shift = m.map((row) => row[3]);
    const cross = (p, q) => [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
    const columns = [cross(b, c), cross(c, a), cross(a, b)];
    const det = a[0] * columns[0][0] + a[1] * columns[0][1] + a[2] * columns[0][2];
    return [0, 1, 2].map((row) => {
      const inverse = columns.map((column) => column[row] / det);
      return [...inverse, -inverse.reduce((sum, value, n) => sum + value * shift[n], 0)];
    });
  }

  async function start(root) {
    const id = root.id;
    const info = JSON.parse(document.getElementById(`${id}-info`).textContent);
    const bytes = await unpack(document.getElementById(`${id}-volumes`).textContent);
    const colours = Uint8Array.from(atob(document.getElementById("colour-scale").textContent.trim()), (letter) => letter.charCodeAt(0));
    root.viewer = new Viewer(root, { ...info, id }, bytes, colours);
    root.hidden = false;
    root.viewer.draw(); // labels have the size of the screen, which a hidden canvas does not know
    const still = document.getElementById(`${id}-still`);
    if (still) still.open = false;
  }

  // A browser without these functions keeps the still pictures.
  if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined") return;
  const visible = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      visible.unobserve(entry.target);
      start(entry.target.querySelector(".viewer")).catch((error) => console.error(error));
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll(".viewer-box").forEach((box) => visible.observe(box));
})();
