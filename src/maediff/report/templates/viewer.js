// Slice viewer of a scan: three planes or a mosaic, with healthy reference, anomaly map and mask as layers.
//
// The page holds, for each scan, a JSON description and its volumes: gzip, base64, one byte per voxel, x fastest.
// Layers: scan and reference (0 to 255 between `low` and `high`), map (0 to 255 between 0 and `top`), mask (0 or 1).
// A session has more images and maps on the same grid; `images` and `maps` list their layers and names.
// Voxels are cubes on RAS+ axes, cropped to the brain; `affine` leads from voxels to mm.
"use strict";

(() => {
  const PLANES = [
    { name: "Sagittal", across: 1, up: 2, through: 0, ends: ["P", "A"] },
    { name: "Coronal", across: 0, up: 2, through: 1, ends: ["L", "R"] },
    { name: "Axial", across: 0, up: 1, through: 2, ends: ["L", "R"] },
  ];
  const MOSAIC = 20; // axial slices
  const MASK_COLOUR = [255, 140, 26];
  const LINE = "rgba(120, 200, 255, 0.7)";

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
      this.state = {
        at: info.shape.map((n) => Math.floor(n / 2)), base: "scan", layer: "map", swipe: 0.5, map: true, mask: true,
        opacity: 0.6, threshold: info.threshold, low: 0, high: 255, view: "planes",
      };
      this.mask = this.layers.mask;
      this.regions = info.regions;
      this.build();
      if (info.regions.length) this.goTo(info.regions[0].center_mm);
      this.fillTable();
      this.draw();
    }

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
      this.mosaic = element("canvas", { class: "mosaic", role: "img", "aria-label": "Mosaic of axial slices", hidden: "" });
      this.mosaic.addEventListener("pointerdown", (event) => this.pointMosaic(event));
      this.readout = element("p", { class: "readout", role: "status", "aria-live": "polite" });
      this.root.replaceChildren(this.controls(), this.stage, this.mosaic, this.readout);
    }

    // The map of a contrast has the threshold 1; that of all contrasts has its own.
    changeMap() {
      this.state.threshold = this.state.layer === "map" ? this.info.threshold : 1;
      this.show.threshold();
      this.rethreshold();
    }

    controls() {
      this.show = {};
      const bar = element("div", { class: "controls" });
      this.choice(bar, "View", "view", [["planes", "three planes"], ["mosaic", "mosaic"]]);
      const images = this.info.images || [["scan", "scan"], ["reference", "healthy reference"]];
      this.choice(bar, "Image", "base", [...images, ["swipe", "swipe: scan | reference"]]);
      if (this.info.maps) this.choice(bar, "Map of", "layer", this.info.maps, () => this.changeMap());
      this.slider(bar, "Swipe", "swipe", 0, 1, 0.01);
      this.swipe = bar.lastChild;
      this.check(bar, "Anomaly map", "map");
      this.check(bar, "Mask", "mask");
      this.slider(bar, "Opacity", "opacity", 0, 1, 0.05);
      this.slider(bar, "Threshold", "threshold", 0, this.info.top, this.info.top / 255, () => this.rethreshold());
      const intensity = (value) => round3(this.info.low + (this.info.high - this.info.low) * value / 255);
      this.slider(bar, "Black", "low", 0, 254, 1, null, intensity);
      this.slider(bar, "White", "high", 1, 255, 1, null, intensity);
      const reset = element("button", { type: "button" }, "Reset");
      reset.addEventListener("click", () => this.reset());
      bar.append(reset);
      return bar;
    }

    labelled(bar, text, input) {
      const label = element("label", {}, text + " ");
      label.append(input);
      bar.append(label);
      return input;
    }

    choice(bar, text, key, options, also = null) {
      const select = this.labelled(bar, text, element("select", { name: key }));
      for (const [value, shown] of options) select.append(element("option", { value }, shown));
      select.addEventListener("change", () => { this.state[key] = select.value; if (also) also(); this.draw(); });
    }

    check(bar, text, key) {
      const box = this.labelled(bar, text, element("input", { type: "checkbox", name: key }));
      box.checked = this.state[key];
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
      const { at } = this.state;
      this.state = { ...this.state, at, base: "scan", layer: "map", swipe: 0.5, map: true, mask: true, opacity: 0.6, threshold: this.info.threshold, low: 0, high: 255, view: "planes" };
      this.root.replaceChild(this.controls(), this.root.firstChild);
      this.rethreshold();
      this.draw();
    }

    // ---- moving -------------------------------------------------------------------------------------------------

    goTo(mm) {
      this.state.at = apply(this.toVoxel, mm).map((value, axis) => clamp(Math.round(value), 0, this.info.shape[axis] - 1));
    }

    step(axis, by) {
      this.state.at[axis] = clamp(this.state.at[axis] + by, 0, this.info.shape[axis] - 1);
      this.draw();
    }

    point(event, n) {
      const plane = PLANES[n], box = this.canvases[n].getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      const shape = this.info.shape;
      this.state.at[plane.across] = clamp(Math.floor(x * shape[plane.across]), 0, shape[plane.across] - 1);
      this.state.at[plane.up] = clamp(Math.floor((1 - y) * shape[plane.up]), 0, shape[plane.up] - 1);
      this.draw();
    }

    pointMosaic(event) {
      const box = this.mosaic.getBoundingClientRect(), { columns, rows, slices } = this.grid();
      const column = Math.floor((event.clientX - box.left) / box.width * columns);
      const row = Math.floor((event.clientY - box.top) / box.height * rows);
      const chosen = slices[row * columns + column];
      if (chosen !== undefined) { this.state.at[2] = chosen; this.draw(); }
    }

    key(event, plane) {
      const moves = {
        ArrowLeft: [plane.across, -1], ArrowRight: [plane.across, 1], ArrowDown: [plane.up, -1], ArrowUp: [plane.up, 1],
        PageDown: [plane.through, -1], PageUp: [plane.through, 1],
      };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      this.step(...move);
    }

    // ---- regions ------------------------------------------------------------------------------------------------

    rethreshold() {
      const { info, state } = this;
      if (state.layer === "map" && Math.abs(state.threshold - info.threshold) < info.top / 510) {
        this.mask = this.layers.mask;
        this.regions = info.regions;
      } else {
        ({ mask: this.mask, regions: this.regions } = this.components(state.threshold / info.top * 255));
      }
      this.fillTable();
    }

    // Components above the level that are large enough, and their surroundings above a share of it.
    components(level) {
      const { min_voxels: least, extent } = this.info;
      const cores = this.flood(level, (members) => members.length >= least);
      return extent < 1 ? this.flood(level * extent, (members) => members.some((at) => cores.mask[at])) : cores;
    }

    flood(level, isKept) {
      const { shape, affine, top, voxel_ml: ml, to_mni: toMni } = this.info;
      const map = this.layers[this.state.layer], mask = new Uint8Array(map.length), regions = [];
      const near = [];
      for (let z = -1; z <= 1; z++) for (let y = -1; y <= 1; y++) for (let x = -1; x <= 1; x++) if (x || y || z) near.push([x, y, z]);
      const seen = new Uint8Array(map.length);
      for (let start = 0; start < map.length; start++) {
        if (seen[start] || map[start] <= level) continue;
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
            if (!seen[next] && map[next] > level) { seen[next] = 1; members.push(next); }
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
      const body = document.querySelector(`#${this.info.id}-regions tbody`);
      if (!body) return;
      const exact = this.regions === this.info.regions;
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
        row.addEventListener("click", () => { this.goTo(region.center_mm); this.draw(); });
        return row;
      }));
      const caption = document.querySelector(`#${this.info.id}-regions caption`);
      if (caption) {
        const total = this.regions.reduce((ml, region) => ml + region.volume_ml, 0);
        caption.textContent = `${this.regions.length} region${this.regions.length === 1 ? "" : "s"}, ${total.toFixed(1)} ml above ${this.state.threshold.toPrecision(2)}` + (exact ? "" : ", counted in this viewer");
      }
    }

    // ---- drawing ------------------------------------------------------------------------------------------------

    picture(across, up, through, at) {
      const { shape } = this.info, { state, layers, stride, colours, mask } = this;
      const width = shape[across], height = shape[up], image = new ImageData(width, height);
      const level = state.threshold / this.info.top * 255, span = Math.max(1, state.high - state.low);
      const swipes = state.base === "swipe", border = Math.round(state.swipe * width);
      const whole = layers[swipes ? "scan" : state.base], map = layers[state.layer];
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          const voxel = at * stride[through] + column * stride[across] + (height - 1 - row) * stride[up];
          const source = swipes && column >= border ? layers.reference : whole;
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
      const { state, info } = this, mosaic = state.view === "mosaic";
      this.swipe.hidden = state.base !== "swipe";
      this.stage.hidden = mosaic;
      this.mosaic.hidden = !mosaic;
      if (mosaic) this.drawMosaic(); else PLANES.forEach((plane, n) => this.drawPlane(plane, n));
      const voxel = state.at.reduce((sum, at, axis) => sum + at * this.stride[axis], 0);
      const grey = (layer) => round3(info.low + (info.high - info.low) * this.layers[layer][voxel] / 255);
      const mm = apply(info.affine, state.at);
      const mni = info.to_mni ? `; MNI152 ${position(apply(info.to_mni, mm))} mm` : "";
      this.readout.textContent = `x, y, z: ${position(mm)} mm (RAS+)${mni}; scan ${grey("scan")}, reference ${grey("reference")}, anomaly map ${(this.layers[state.layer][voxel] / 255 * info.top).toFixed(3)}`;
    }

    drawPlane(plane, n) {
      const { across, up, through } = plane, { shape } = this.info, { at } = this.state;
      const canvas = this.canvases[n], scale = Math.max(1, Math.round(420 / Math.max(...shape)));
      const context = this.paint(canvas, this.picture(across, up, through, at[through]), scale);
      const x = (at[across] + 0.5) * scale, y = (shape[up] - at[up] - 0.5) * scale;
      context.strokeStyle = LINE;
      context.beginPath();
      context.moveTo(x, 0); context.lineTo(x, canvas.height);
      context.moveTo(0, y); context.lineTo(canvas.width, y);
      context.stroke();
      context.fillStyle = "#cfd6de";
      context.font = `${5 * scale}px sans-serif`;
      context.fillText(plane.ends[0], 2, canvas.height / 2);
      context.fillText(plane.ends[1], canvas.width - 5 * scale, canvas.height / 2);
      const mm = apply(this.info.affine, at)[through].toFixed(0);
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
      this.paint(this.mosaic, whole, 1);
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
