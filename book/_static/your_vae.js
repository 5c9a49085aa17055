// "Is your VAE collapsing?": reads a loss as helpers.objective does, forecasts as helpers.spectrum does, and shows it.
(() => {
  class Refused extends Error {}
  const refuse = what => { throw new Refused(what); };
  const short = v => String(Number(v.toPrecision(6)));
  const data = JSON.parse(document.getElementById("your-vae-data")?.textContent || "{}");

  // ---- A loss in words ----

  // The syntax tree: what Python's parser makes of numbers, names, arithmetic and calls; all else cannot be read.
  function parse(text) {
    const unreadable = () => refuse("it cannot be read");
    const pattern = /\s*(?:((?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?)|([A-Za-z_]\w*)|(\*\*|[-+*/(),=]))/y;
    const tokens = [], length = text.trimEnd().length;
    while (pattern.lastIndex < length) {
      const [whole, number, name, sign] = pattern.exec(text) || unreadable();
      const end = pattern.lastIndex, start = end - whole.trimStart().length;
      if (number && /^0[0-9_]*[1-9][0-9_]*$/.test(number)) unreadable();
      tokens.push({number, name, sign, start, end});
    }
    let at = 0, depth = 0;
    const next = sign => tokens[at]?.sign === sign;
    const take = sign => next(sign) && tokens[at++];
    const node = (kind, first, more) => ({kind, start: first.start, end: tokens[at - 1].end, ...more});
    const binary = (signs, below) => () => {
      let left = below();
      while (signs.some(next)) {
        const op = tokens[at++].sign;
        const right = below();
        left = node("binary", left, {op, left, right});
      }
      return left;
    };
    function atom() {
      const token = tokens[at++] || unreadable();
      if (token.number) return node("number", token, {value: Number(token.number.replaceAll("_", ""))});
      if (token.name) return node("name", token, {name: token.name});
      if (token.sign !== "(" || ++depth > 199) unreadable();
      const inner = sum();
      depth--;
      return take(")") ? inner : unreadable();
    }
    function call() {
      const first = tokens[at], func = atom();
      if (!take("(")) return func;
      const values = [], keywords = [];
      while (!take(")")) {
        const name = tokens[at]?.name && tokens[at + 1]?.sign === "=" ? tokens[at].name : "";
        at += name ? 2 : 0;
        if (!name && keywords.length) unreadable();
        (name ? keywords : values).push(name ? {name, value: sum()} : sum());
        if (!next(")") && !take(",")) unreadable();
      }
      return node("call", first, {func: func.name, values, keywords});
    }
    function power() {
      const left = call();
      if (!take("**")) return left;
      const right = unary();
      return node("binary", left, {op: "**", left, right});
    }
    function unary() {
      const sign = take("-") || take("+");
      if (!sign) return power();
      const inner = unary();
      return node("unary", sign, {op: sign.sign, inner});
    }
    const product = binary(["*", "/"], unary), sum = binary(["+", "-"], product);
    const tree = sum();
    return at === tokens.length ? tree : unreadable();
  }

  // The weights of a loss in words, or by the name of a preset; sizes are n, k and batch, null where not known.
  function read(loss, sizes) {
    const {terms, said, presets} = data;
    loss = Object.hasOwn(presets, loss) ? presets[loss] : loss;
    const refuse = what => {
      const hints = (what.match(/\w+/g) || []).map(word => said[word] || said[word.toLowerCase()]).filter(Boolean);
      throw new Refused(what + hints.map(hint => ` (${hint})`).join(""));
    };
    const used = new Set(), source = node => loss.slice(node.start, node.end);
    const isTerm = name => name === "kl" || Object.hasOwn(terms, name);
    const needed = (name, what) => sizes[name] || refuse(`${what} depends on ${name}, which is not given`);
    const arithmetic = {"+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b,
      "**": (a, b) => a ** b};

    function number(node) {
      if (node.kind === "number") return node.value;
      if (node.kind === "name" && Object.hasOwn(sizes, node.name)) {
        used.add(node.name);
        return needed(node.name, "a factor");
      }
      if (node.kind === "unary" && node.op === "-") return -number(node.inner);
      if (node.kind === "binary") {
        const value = arithmetic[node.op](number(node.left), number(node.right));
        if (Number.isFinite(value)) return value;
      }
      return refuse(`${source(node)} is no number`);
    }
    function hasTerm(node) {
      if (node.kind === "binary") return hasTerm(node.left) || hasTerm(node.right);
      if (node.kind === "unary") return hasTerm(node.inner);
      if (node.kind === "call") return isTerm(node.func) || [...node.values, ...node.keywords.map(k => k.value)].some(hasTerm);
      return node.kind === "name" && isTerm(node.name);
    }
    function expand(node, weight = 1) {
      if (node.kind === "unary") return expand(node.inner, node.op === "-" ? -weight : weight);
      if (node.kind === "binary") {
        const {op, left, right} = node;
        if (op === "+" || op === "-") return [...expand(left, weight), ...expand(right, op === "+" ? weight : -weight)];
        if (op === "*") return hasTerm(left) ? expand(left, weight * number(right)) : expand(right, weight * number(left));
        if (op === "/") return expand(left, weight / (number(right) || refuse("it divides by 0")));
      }
      const term = single(node);
      return [{...term, weight: term.weight * weight}];
    }
    function single(node) {
      const term = {name: "kl", weight: 1, mean: false, batch: "mean", sigma2: null, freeBits: 0};
      if (node.kind === "name" && isTerm(node.name)) {
        return node.name === "nll" ? refuse("nll has no sigma2") : {...term, name: node.name};
      }
      const {func, values = [], keywords = []} = node, [first, second] = values, reduces = ["sum", "mean"];
      if (reduces.includes(func) && values.length === 1) {
        if (reduces.includes(first.func)) refuse(`${source(node)} reduces twice`);
        const [inner, other] = expand(first);
        if (other) refuse(`${source(node)} reduces several terms at once`);
        for (const {name, value} of keywords) {
          if (name !== "batch" || !reduces.includes(value.name)) {
            refuse(`${name}=${source(value)} is no batch=sum or batch=mean`);
          }
          inner.batch = value.name;
        }
        return {...inner, mean: func === "mean"};
      }
      if (func === "max" && values.length === 2 && !keywords.length && first.name === "kl") {
        const freeBits = number(second);
        return freeBits < 0 ? refuse(`free bits are ${short(freeBits)}, below 0`) : {...term, freeBits};
      }
      if (func === "nll" && values.length === 1 && !keywords.length && first.name === "learned") {
        return {...term, name: "nll", sigma2: "learned"};
      }
      if (func === "nll" && values.length === 1 && !keywords.length && first.name === "sigma2") {
        refuse("sigma2 is not given; here write its number, as in nll(sigma2=0.1)");
      }
      if (func === "nll" && !values.length && keywords.length === 1 && keywords[0].name === "sigma2") {
        const sigma2 = number(keywords[0].value);
        return sigma2 > 0 ? {...term, name: "nll", sigma2} : refuse(`sigma2 is ${short(sigma2)}, not above 0`);
      }
      return refuse(`${source(node)} is no term`);
    }

    const found = expand(parse(loss)), kl = found.filter(term => term.name === "kl");
    const others = found.filter(term => term.name !== "kl");
    if (kl.length !== 1 || others.length !== 1) refuse(`it has ${others.length} data terms and ${kl.length} of kl`);
    const parts = {data: others[0], kl: kl[0]}, differ = parts.data.batch !== parts.kl.batch;
    const weight = Object.fromEntries([["data", "n"], ["kl", "k"]].map(([part, size]) => {
      const term = parts[part];
      let value = term.weight / (term.mean ? needed(size, `mean(${term.name})`) : 1);
      if (term.batch === "sum" && differ) value *= needed("batch", `the sum of ${term.name} over the minibatch`);
      if (!(value > 0 && Number.isFinite(value))) refuse(`the weight of ${term.name} is ${short(value)}, not above 0`);
      return [part, value];
    }));
    const notes = [], learned = parts.data.sigma2 === "learned";
    if (differ) {
      notes.push(`Over the minibatch ${(parts.data.batch === "sum" ? parts.data : parts.kl).name} is summed and the other ` +
        `term averaged, so the balance of the two changes with the size of the minibatch, here ${sizes.batch}.`);
    }
    if (parts.data.mean) {
      notes.push(`The mean over the ${sizes.n} features divides the data term by their number, so the same weight asks for ` +
        "something else at another size of the data.");
    }
    if (parts.kl.mean) {
      notes.push(`The mean over the ${sizes.k} latents divides the KL divergence by their number, so more latents are each ` +
        "cheaper.");
    }
    for (const name of [...used].sort()) notes.push(`A factor depends on ${name}, here ${sizes[name]}.`);
    const scale = parts.data.name === "nll" && !learned ? 2 * parts.data.sigma2 : 1; // its other term is a constant
    return {...parts, notes, learned, freeBits: parts.kl.freeBits, likelihood: terms[parts.data.name][0],
      weight: {data: weight.data / scale, kl: weight.kl}, beta: weight.kl / (weight.data / scale)};
  }

  // The text of two terms, as the grammar has it.
  function compose(dataTerm, kl) {
    const written = term => {
      const inside = term.sigma2 === null ? term.name :
        `nll(${term.sigma2 === "learned" ? "learned" : `sigma2=${short(term.sigma2)}`})`;
      const own = term.freeBits ? `max(kl, ${short(term.freeBits)})` : inside;
      const over = term.batch === "sum" ? ", batch=sum" : "";
      const reduced = term.mean || over || ["se", "bce"].includes(own) ? `${term.mean ? "mean" : "sum"}(${own}${over})` : own;
      return (term.weight === 1 ? "" : `${short(term.weight)}*`) + reduced;
    };
    return `${written(dataTerm)} + ${written(kl)}`;
  }

  // ---- The linear VAE at its optimum. A spectrum is {top, rest, n, rank}: its largest eigenvalues, the sum of the others.

  const total = values => values.reduceRight((sum, value) => sum + value, 0); // the smallest first, which keeps digits
  const klOf = (value, theta) => Math.max(Math.log(value / theta), 0) / 2;
  const survivors = (spectrum, k, theta) => spectrum.top.slice(0, k).filter(value => value > theta).length;
  // A unit with free bits leaves min(theta, lambda exp(-2 bits)) of its eigenvalue: a smaller eigenvalue, as it were.
  const lessened = (spectrum, k, bits) => spectrum.top.slice(0, k).map(value => value * Math.exp(-2 * bits));
  const distortion = (spectrum, k, theta, bits = 0) =>
    total(lessened(spectrum, k, bits).map(value => Math.min(value, theta))) + total(spectrum.top.slice(k)) + spectrum.rest;
  function learnedSigma2(spectrum, k, beta, bits = 0) {
    if (spectrum.rank <= k && beta * spectrum.rank <= spectrum.n) return null; // nothing holds it above 0
    const used = lessened(spectrum, k, bits);
    let left = spectrum.rest + total(spectrum.top.slice(k)), least = Infinity;
    for (let a = k; a >= 0; a--) {
      const free = spectrum.n - beta * a;
      if (free > 0) least = Math.min(least, left / free);
      left += a ? used[a - 1] : 0;
    }
    return least;
  }
  const scaled = (spectrum, factor) =>
    ({...spectrum, top: spectrum.top.map(value => value * factor), rest: spectrum.rest * factor});

  // ---- A table of numbers, and the eigenvalues of its covariance ----

  const MOST = {megabytes: 200, side: 1000, products: 3e9};

  function table(text) {
    const lines = text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/).map((line, i) => [i + 1, line.trim()]);
    const filled = lines.filter(([, line]) => line);
    if (!filled.length) refuse("the file is empty; expected rows of numbers");
    const separator = ["\t", ";", ","].find(one => filled[0][1].includes(one)) || /\s+/;
    const cells = line => line.split(separator).map(cell => cell.trim().replace(/^"(.*)"$/, "$1"));
    const isNumber = cell => cell !== "" && Number.isFinite(Number(cell));
    const header = !cells(filled[0][1]).every(isNumber) && filled.length > 1;
    if (header) filled.shift();
    const n = cells(filled[0][1]).length, values = new Float64Array(n * filled.length);
    filled.forEach(([line, content], row) => {
      const found = cells(content);
      if (found.length !== n) {
        refuse(`line ${line} has ${found.length} values and line ${filled[0][0]} has ${n}; expected as many in every row`);
      }
      found.forEach((cell, column) => {
        if (!isNumber(cell)) refuse(`line ${line}, column ${column + 1} is "${cell.slice(0, 40)}"; expected a number`);
        values[row * n + column] = Number(cell);
      });
    });
    if (filled.length < 2) refuse("the file has one row of numbers; expected at least two");
    return {values, n, count: filled.length, header};
  }

  function columnMeans({values, n, count}) {
    const sum = new Float64Array(n), least = new Float64Array(n).fill(Infinity), most = new Float64Array(n).fill(-Infinity);
    values.forEach((value, i) => {
      const column = i % n;
      sum[column] += value;
      least[column] = Math.min(least[column], value);
      most[column] = Math.max(most[column], value);
    });
    return sum.map((value, i) => Math.min(Math.max(value / count, least[i]), most[i])); // exact where nothing varies
  }

  // Of the 1/N covariance of a table, each column divided by its divisor: from the smaller of the two Gram matrices.
  function eigenvaluesOf({values, n, count}, divisors) {
    const mean = columnMeans({values, n, count}), wide = count < n, m = Math.min(n, count), inner = Math.max(n, count);
    const rows = Array.from({length: m}, () => new Float64Array(inner)); // columns of the table, or rows if these are fewer
    values.forEach((value, i) => {
      const row = Math.floor(i / n), column = i % n, centred = (value - mean[column]) / (divisors[column] || 1);
      if (wide) rows[row][column] = centred; else rows[column][row] = centred;
    });
    const gram = Array.from({length: m}, () => new Float64Array(m));
    for (let i = 0; i < m; i++) {
      for (let j = 0; j <= i; j++) {
        const a = rows[i], b = rows[j];
        let sum = 0;
        for (let r = 0; r < inner; r++) sum += a[r] * b[r];
        gram[i][j] = gram[j][i] = sum / count;
      }
    }
    const found = symmetricEigenvalues(gram), rounding = 10 * Math.max(m, 16) * Number.EPSILON * found[0];
    const top = found.map(value => value > rounding ? value : 0);
    return {top: [...top, ...Array(n - m).fill(0)], rest: 0, n, count, rank: top.filter(value => value > 0).length};
  }

  // Descending: Householder's reflections make the matrix tridiagonal, then Sturm's count of those below x is bisected.
  function symmetricEigenvalues(a) {
    const m = a.length, off = new Float64Array(m);
    for (let c = 0; c < m - 1; c++) {
      const v = new Float64Array(m);
      let square = 0;
      for (let i = c + 1; i < m; i++) square += (v[i] = a[i][c]) ** 2;
      off[c + 1] = v[c + 1] > 0 ? -Math.sqrt(square) : Math.sqrt(square);
      const half = square - v[c + 1] * off[c + 1]; // of v's squared length
      v[c + 1] -= off[c + 1];
      if (!half) continue;
      const w = new Float64Array(m);
      let inner = 0;
      for (let i = c + 1; i < m; i++) {
        let sum = 0;
        for (let j = c + 1; j < m; j++) sum += a[i][j] * v[j];
        inner += (w[i] = sum / half) * v[i];
      }
      for (let i = c + 1; i < m; i++) w[i] -= inner / (2 * half) * v[i];
      for (let i = c + 1; i < m; i++) {
        for (let j = c + 1; j < m; j++) a[i][j] -= v[i] * w[j] + w[i] * v[j];
      }
    }
    const below = x => {
      let count = 0, q = 1;
      for (let i = 0; i < m; i++) {
        q = a[i][i] - x - off[i] ** 2 / (q || Number.MIN_VALUE);
        if (q < 0) count++;
      }
      return count;
    };
    const bound = Math.max(...a.map((row, i) => Math.abs(row[i]) + Math.abs(off[i]) + Math.abs(off[i + 1] || 0)));
    return a.map((_, i) => {
      let low = -bound, high = bound;
      for (let step = 0; step < 60; step++) {
        const middle = (low + high) / 2;
        if (below(middle) >= m - i) high = middle; else low = middle;
      }
      return (low + high) / 2;
    });
  }

  window.yourVae = {read, compose, table, eigenvaluesOf, survivors, distortion, learnedSigma2};

  // ---- Words and drawings ----

  const grouped = whole => whole.toLocaleString("en-US");
  const digits = v => v >= 1000 ? grouped(Math.round(v)) : String(Number(v.toPrecision(4)));
  const escaped = text => text.replace(/[&<>"]/g, letter => `&#${letter.charCodeAt(0)};`);
  const write = (x, y, s, more = "") => `<text x="${x}" y="${y}" ${more}>${s}</text>`;

  // Bars of falling height in two colours, from a base upward.
  const bars = (values, x, width, base, y, alive) => ["alive", "dead"].map((kind, dead) => `<path class="${kind}" d="${
    values.map((value, i) => alive(value, i) === !dead && value > 0 ?
      `M${x(i).toFixed(2)} ${base}V${y(value).toFixed(1)}h${width.toFixed(2)}V${base}Z` : "").join("")}"/>`).join("");

  // The picture of the landing page: the logo, alive.
  document.querySelectorAll(".theta-picture").forEach(root => {
    const {eigenvalues, start} = JSON.parse(root.dataset.numbers), count = eigenvalues.length, high = eigenvalues[0];
    root.innerHTML = `<svg viewBox="0 0 640 250" role="img"></svg><label>Move the line, the noise variance θ
      <input type="range" min="0.02" max="${(high * 1.1).toFixed(2)}" step="0.01" value="${start}"></label>
      <output aria-live="polite"></output>`;
    const [svg, slider, words] = ["svg", "input", "output"].map(name => root.querySelector(name));
    const y = value => 240 - 228 * value / (high * 1.1), step = 590 / count;
    function draw() {
      const theta = Number(slider.value), alive = eigenvalues.filter(value => value > theta).length;
      const nats = total(eigenvalues.map(value => klOf(value, theta)));
      const at = y(theta).toFixed(1);
      svg.innerHTML = bars(eigenvalues, i => 25 + step * i, step * 0.7, 240, y, value => value > theta) +
        `<path class="line" d="M15 ${at}H625"/>` +
        write(625, at - 7, `θ = ${digits(theta)}`, 'text-anchor="end" class="halo"');
      const said = `θ = ${digits(theta)}: ${alive} of ${count} latents live, with ${digits(nats)} nats between them.`;
      words.textContent = said;
      svg.setAttribute("aria-label", `The ${count} largest eigenvalues of the digits as bars, and a line at ` +
        `${digits(theta)}; ${alive} bars are higher.`);
      slider.setAttribute("aria-valuetext", said);
    }
    slider.addEventListener("input", draw);
    draw();
  });

  const root = document.querySelector(".your-vae");
  if (!root) return;

  // Eigenvalues on a logarithmic scale with the line, and below them the KL of each latent.
  function drawSpectrum(svg, spectrum, k, theta, bits) {
    const shown = spectrum.top.slice(0, Math.min(spectrum.top.length, k + Math.max(2, Math.round(k / 4))));
    const used = Math.min(k, shown.length), L = 46, R = 414, first = shown[0], last = shown.findLast(value => value > 0);
    const high = Math.log10(Math.max(first, theta)) + 0.15, foot = [124, 208];
    const low = Math.max(Math.log10(Math.min(last, theta)) - 0.2, high - 9);
    const y = value => foot[0] - 114 * Math.min(Math.max((Math.log10(value) - low) / (high - low), 0), 1);
    const step = (R - L) / shown.length, x = i => L + step * i, width = step * (shown.length > 120 ? 1 : 0.8);
    const nats = shown.slice(0, used).map(value => value && Math.max(klOf(value, theta), bits)), most = Math.max(...nats, 0.5);
    const up = value => foot[1] - 58 * value / most, line = y(theta), at = line.toFixed(1), end = 'text-anchor="end"';
    const parts = [bars(shown, x, width, foot[0], y, (value, i) => value > theta && i < used),
      bars(nats, x, width, foot[1], up, () => true)];
    for (let p = Math.ceil(low), every = Math.ceil((high - low) / 5); p <= high; p += every) {
      const text = p > 3 || p < -3 ? `1e${p}` : String(Number((10 ** p).toPrecision(1)));
      parts.push(write(L - 5, (y(10 ** p) + 4).toFixed(1), text, end));
    }
    const ticks = Math.max(1, Math.round(used / 4));
    for (let i = ticks; i <= shown.length; i += ticks) {
      parts.push(write(x(i - 0.5).toFixed(1), foot[1] + 15, i, 'text-anchor="middle"'));
    }
    parts.push(`<path class="axis" d="M${L} 8V${foot[0]}H${R}M${L} 146V${foot[1]}H${R}"/>`,
      `<path class="line" d="M${L} ${at}H${R}"/>`);
    if (used < shown.length) parts.push(`<path class="limit" d="M${x(used).toFixed(1)} 8V${foot[0]}"/>`);
    parts.push(write(R, line < 22 ? line + 16 : line - 6, `θ = ${digits(theta)}`, `${end} class="halo"`),
      write(R, line < 40 ? Math.max(line, 22) + 32 : 18, "eigenvalues λ", `${end} class="halo"`),
      write(L - 5, 154, digits(most), end), write(L - 5, foot[1] + 4, "0", end),
      write(R, 154, "KL of each latent (nats)", `${end} class="halo"`));
    svg.innerHTML = parts.join("");
    svg.setAttribute("aria-label",
      `Bars: eigenvalues of the data with a line at θ = ${digits(theta)}, and the KL of each latent. ` +
      `${survivors(spectrum, k, theta)} of ${k} latents lie above the line.`);
  }

  const control = Object.fromEntries([...root.querySelectorAll("[name]")].map(node => [node.name, node]));
  const part = Object.fromEntries([...root.querySelectorAll("[data-part]")].map(node => [node.dataset.part, node]));
  const option = (value, text) => new Option(text, value);
  const SCALES = {
    image: {given: "in [0, 1]", twice: "in [−1, 1]", bytes: "from 0 to 255",
      all: "standardised: one mean and one deviation for all"},
    pixels: {given: "in [0, 1]", twice: "in [−1, 1]", bytes: "from 0 to 255"}, // of which the eigenvalues alone are known
    table: {given: "each column standardised"},
    pasted: {given: "as pasted", twice: "times 2: [0, 1] made [−1, 1]", bytes: "times 255: [0, 1] made 0 to 255",
      unbytes: "divided by 255: 0 to 255 made [0, 1]"},
    file: {given: "as in the file", twice: "times 2: [0, 1] made [−1, 1]", bytes: "times 255: [0, 1] made 0 to 255",
      unbytes: "divided by 255: 0 to 255 made [0, 1]", all: "standardised: one mean and one deviation for all",
      columns: "standardised: each column by its own"},
  };
  const SIZES = [["28 × 28", 784], ["32 × 32, colour", 3072], ["64 × 64, colour", 12288], ["256 × 256, colour", 196608]];
  let file = null; // the table that was dropped, with the spectra that have been computed of it
  let edited = null; // the control in which the reader is writing, which is left alone

  const kind = () => ({pasted: "pasted", file: "file"})[control.data.value] || data.spectra[control.data.value].kind;

  function whole(node, name, most = 2 ** 53) {
    const value = Number(node.value);
    return Number.isInteger(value) && value >= 1 && value <= most ? value :
      refuse(`${name} is ${node.value || "empty"}; expected a whole number from 1`);
  }

  function pasted() {
    const values = control.eigenvalues.value.split(/[\s,;[\]()]+/).filter(Boolean).map(text => {
      const value = Number(text);
      return Number.isFinite(value) && value >= 0 ? value :
        refuse(`"${text.slice(0, 40)}" is no eigenvalue; expected numbers from 0`);
    }).sort((a, b) => b - a);
    if (!values.length) refuse("no eigenvalues are pasted; expected numbers, in any order");
    if (!values[0]) refuse("all the eigenvalues are 0; expected data that vary");
    const n = control.n.value ? whole(control.n, "n") : values.length, sum = total(values);
    if (n < values.length) refuse(`n is ${n} and there are ${values.length} eigenvalues; expected no more than n`);
    const trace = control.trace.value === "" ? sum : Number(control.trace.value);
    if (!(trace >= sum * (1 - 1e-6))) {
      refuse(`the trace is ${control.trace.value}, below ${digits(sum)}, the sum of the eigenvalues; expected no less`);
    }
    const rest = n > values.length && trace > sum ? trace - sum : 0;
    if (rest && rest > values.at(-1) * (n - values.length) * (1 + 1e-6)) {
      refuse(`the trace leaves ${digits(rest)} for ${n - values.length} more eigenvalues, and none of them can exceed ` +
        `${digits(values.at(-1))}; expected a smaller trace`);
    }
    return {top: values, rest, n, rank: values.filter(value => value > 0).length + (rest ? n - values.length : 0)};
  }

  function ofFile(way) {
    if (!file) refuse("no file has been read yet; choose a CSV of samples, one a row, or drop it here");
    const {n, count, values} = file.table, mean = columnMeans(file.table);
    const divisors = new Float64Array(n).fill(1);
    if (way !== "given") {
      divisors.fill(0);
      values.forEach((value, i) => { divisors[i % n] += (value - mean[i % n]) ** 2 / count; });
      if (way === "bernoulli") divisors.forEach((_, i) => { divisors[i] = mean[i] * (1 - mean[i]); });
      divisors.forEach((variance, i) => { divisors[i] = Math.sqrt(variance); });
    }
    return file[way] ||= eigenvaluesOf(file.table, divisors);
  }

  // The spectrum that the reader chose, its values scaled as chosen.
  function chosen() {
    const way = control.scale.value, factor = {twice: 4, bytes: 255 ** 2, unbytes: 255 ** -2}[way] || 1;
    if (kind() === "pasted") return scaled(pasted(), factor);
    if (kind() === "file") {
      const found = ofFile(way === "columns" ? way : "given");
      return scaled(found, way === "all" ? 1 / file.spread : factor);
    }
    const recorded = data.spectra[control.data.value];
    return scaled(recorded, way === "all" ? 1 / recorded.spread : factor);
  }

  // The beta above which complete collapse is stable in a Bernoulli VAE of this data, and null where it is not known.
  function bernoulliThreshold() {
    if (control.scale.value !== "given") return null;
    if (kind() !== "file") return data.spectra[control.data.value]?.bernoulli ?? null;
    return file && file.table.values.every(value => value >= 0 && value <= 1) ? ofFile("bernoulli").top[0] : null;
  }

  // ---- What to write instead ----

  const CODE = {
    se: "((x_hat - x) ** 2).flatten(1)",
    bce: 'F.binary_cross_entropy(x_hat, x, reduction="none").flatten(1)',
  };
  function pytorch({data: term, kl}) {
    const over = {sum: "sum", mean: "mean"}, reduce = one => `.${one.mean ? "mean" : "sum"}(1).${over[one.batch]}()`;
    const times = (weight, code) => weight === 1 ? code : `${short(weight)} * ${code}`;
    const own = term.sigma2 === null ? CODE[term.name] : `((x_hat - x) ** 2 / ${term.sigma2 === "learned" ?
      "sigma2 + sigma2.log()" : short(term.sigma2)}).flatten(1)`;
    if (!own) return "";
    const half = term.name === "nll" ? {...term, weight: term.weight / 2} : term;
    const price = kl.freeBits ? `kl.mean(0).clamp(min=${short(kl.freeBits)}).${kl.mean ? "mean" : "sum"}()` +
      (kl.batch === "sum" ? " * len(x)" : "") : `kl${reduce(kl)}`;
    return "kl = -0.5 * (1 + logvar - mu ** 2 - logvar.exp()).flatten(1)\n" +
      `loss = ${times(half.weight, own + reduce(half))}\nloss = loss + ${times(kl.weight, price)}`;
  }

  // The least number of digits, from three, at which a weight still does what it is for.
  function rounded(weight, fits) {
    for (let count = 3; count < 12; count++) {
      const value = Number(weight.toPrecision(count));
      if (fits(value)) return value;
    }
    return weight;
  }

  // The theta that keeps `keep` latents: halfway between two eigenvalues, or, to keep them all, a learned sigma2's.
  function thetaFor(spectrum, k, keep) {
    const lowest = spectrum.top[keep - 1], next = spectrum.top[keep] || 0;
    const learned = keep === k ? learnedSigma2(spectrum, k, 1) : null;
    return learned && learned < lowest ? learned : Math.sqrt(lowest * Math.max(next, lowest / 4));
  }

  function remedy(objective, spectrum, k, theta) {
    const {kl} = objective;
    if (objective.likelihood === "gaussian" && !objective.learned) {
      const alive = spectrum.top.slice(0, k).filter(value => value > 0).length;
      const keep = Math.min(control.keep.value ? whole(control.keep, "the number of latents to keep") : k, alive);
      const wanted = thetaFor(spectrum, k, keep), perWeight = theta / kl.weight;
      const keeps = value => survivors(spectrum, k, value * perWeight) === keep;
      const weight = rounded(wanted / perWeight, keeps);
      return {keep, theta: weight * perWeight, loss: {...objective, kl: {...kl, weight}}};
    }
    const limit = objective.learned ? Infinity : bernoulliThreshold();
    if (objective.likelihood !== "gaussian" && objective.likelihood !== "bernoulli" || limit === null) return null;
    const beta = limit > 1 ? 1 : limit / 2;
    const exact = kl.weight * beta / objective.beta, weight = rounded(exact, value => Math.abs(value / exact - 1) < 5e-4);
    return {beta, loss: {...objective, kl: {...kl, weight}}};
  }

  // ---- What is shown ----

  const row = (name, value, words = "") => `<tr><th scope="row">${name}</th><td><b>${value}</b> ${words}</td></tr>`;
  const group = (name, rows) => `<tbody><tr><th colspan="2" scope="colgroup">${name}</th></tr>${rows.join("")}</tbody>`;
  const latents = count => `${count} latent${count === 1 ? "" : "s"}`;

  function gaussian(objective, spectrum, k, theta) {
    const largest = spectrum.top[0], trace = total(spectrum.top) + spectrum.rest, alive = survivors(spectrum, k, theta);
    const {learned, freeBits} = objective, beta = learned ? objective.beta : 1;
    const nats = total(spectrum.top.slice(0, k).map(value => value && Math.max(klOf(value, theta), freeBits)));
    const error = distortion(spectrum, k, theta, freeBits);
    const best = learnedSigma2(spectrum, k, beta, learned ? freeBits : 0);
    const above = spectrum.top.filter(value => value > theta).length;
    const atLeast = above === spectrum.top.length && spectrum.rest ? `${above} or more` : above;
    const more = above > k ? ` ${atLeast} eigenvalues of the data lie above θ: more latents would live too.` : "";
    const verdict = freeBits ? `Free bits keep every latent at ${digits(freeBits)} nats or more; without them ${alive} of ` +
      `${latents(k)} would live, at θ = ${digits(theta)}.` :
      !alive ? `θ = ${digits(theta)}, and no latent lives: the largest eigenvalue of the data is ${digits(largest)}.` :
        alive < k ? `θ = ${digits(theta)}, and ${alive} of ${latents(k)} live in the linear VAE.` +
          " The others have eigenvalues below θ." :
          `θ = ${digits(theta)}, and all ${latents(k)} live in the linear VAE.${more}`;
    const limit = learned ? beta * trace / spectrum.n : theta; // at collapse a learned σ² would be tr S/n
    const stable = freeBits ? ["no", "a step costs nothing while a latent has free bits left"] :
      largest < limit ? ["yes", "a small step away from it loses, whatever the decoder"] :
        largest > limit ? ["no", "a small step along the first eigenvector gains, if the networks can take it"] :
          ["at the threshold", ""];
    const ratio = [row("θ = βσ²", digits(theta), learned ? "at the linear VAE’s optimum, as σ² is learned" : ""),
      row("λ₁/θ", digits(largest / theta), `λ₁ = ${digits(largest)}`)];
    const general = [row("Is complete collapse stable?", ...stable)];
    const together = "nats, all latents together";
    if (!learned && !freeBits) general.push(row("KL of the best VAE, below", digits(trace / (2 * theta)), together));
    const linear = [row("Latents that live", `${alive} of ${k}`, freeBits ? "without free bits" : ""),
      row("KL", digits(nats), together),
      row("Distortion", digits(error), `squared error per sample, ${(100 * error / trace).toFixed(1)}% of the variance; ` +
        `${digits(error / spectrum.n)} per feature`),
      best === null ? row("σ², if learned", "none", `the ${latents(k)} can explain all the data, and σ² would fall to 0`) :
        row("σ², if learned", digits(best), `at β = ${digits(beta)}; then ${survivors(spectrum, k, beta * best)} of ${k} live`)];
    const exact = `Exact for the linear VAE${freeBits ? ", each latent along one eigenvector" : ""}`;
    return {verdict, rows: group("Holds for every Gaussian VAE", learned ? general : [...ratio, ...general]) +
      group(exact, learned ? [...ratio, ...linear] : linear)};
  }

  function otherwise(objective) {
    const {beta, likelihood} = objective, limit = likelihood === "bernoulli" ? bernoulliThreshold() : null;
    const rows = [row("β, the weight of the KL", digits(beta), "beside a data term that weighs 1")];
    if (likelihood !== "bernoulli") {
      return {rows: group("Your loss", rows), verdict: `For a ${likelihood} data term no exact θ is known: what the ` +
        "latents do can be measured, not forecast from eigenvalues."};
    }
    if (limit === null) {
      return {rows: group("Your loss", rows), verdict: "Cross-entropy has no σ², and its threshold in β needs the values " +
        "themselves, in [0, 1]; of this spectrum it is not known."};
    }
    rows.push(row("β*, the threshold", digits(limit), "of these data in [0, 1]"),
      row("Is complete collapse stable?", beta > limit ? "yes" : beta < limit ? "no" : "at the threshold"));
    const verdict = beta > limit ?
      `Complete collapse is stable: β = ${digits(beta)} exceeds the threshold of these data, ${digits(limit)}.` :
      `Complete collapse is not stable: β = ${digits(beta)} does not exceed the threshold of these data, ${digits(limit)}. ` +
        "How many latents live has no closed form under cross-entropy.";
    return {verdict, rows: group("Bernoulli, with logits linear in z", rows)};
  }

  function notes(objective, spectrum, k) {
    const said = [...objective.notes];
    if (objective.freeBits) {
      said.push("Once free bits are removed, θ decides again which latents live.");
    }
    if (objective.data.name === "bce" && control.scale.value !== "given") said.push("Cross-entropy needs values in [0, 1].");
    if (k > spectrum.n) said.push(`More latents than features: at most ${spectrum.n} of ${k} can live in a linear VAE.`);
    if (spectrum.count && spectrum.count < 5 * spectrum.n) {
      said.push(`${grouped(spectrum.count)} samples of ${grouped(spectrum.n)} features: the small eigenvalues carry the ` +
        "noise of the sample, and latents just above θ may stand on it.");
    }
    return said;
  }

  function elsewhere(objective, k) {
    if (objective.likelihood !== "gaussian" || objective.learned) return "";
    const at = SIZES.map(([name, n]) => {
      const found = read(control.loss.value, {n, k, batch: Number(control.batch.value)});
      const theta = digits(found.weight.kl / (2 * found.weight.data));
      return `<tr><th scope="row">${name}</th><td>${grouped(n)}</td><td>${theta}</td></tr>`;
    });
    const head = ["image", "features n", "θ"].map(name => `<th scope="col">${name}</th>`).join("");
    return `<table><thead><tr>${head}</tr></thead><tbody>${at.join("")}</tbody></table>`;
  }

  function state() {
    const names = ["loss", "data", "scale", "k", "batch", "keep"];
    if (kind() === "pasted") names.push("eigenvalues", "n", "trace");
    return new URLSearchParams(names.filter(name => control[name].value).map(name => [name, control[name].value.trim()]));
  }

  function setParts({data: term, kl}) {
    const set = {term: term.name, factor: short(term.weight), features: term.mean ? "mean" : "sum", samples: term.batch,
      sigma2: term.sigma2 === null ? "" : String(term.sigma2), weight: short(kl.weight), latents: kl.mean ? "mean" : "sum",
      klsamples: kl.batch, free: short(kl.freeBits)};
    for (const [name, value] of Object.entries(set)) if (edited !== control[name]) control[name].value = value;
    control.sigma2.disabled = term.name !== "nll";
    if (edited !== control.slider) control.slider.value = Math.log10(kl.weight).toFixed(2);
    part.weight.textContent = short(kl.weight);
    const preset = control.preset.selectedOptions[0]?.value;
    if (data.presets[preset] !== control.loss.value.trim()) {
      control.preset.value = Object.keys(data.presets).find(name => data.presets[name] === control.loss.value.trim()) || "";
    }
  }

  function show() {
    const own = kind();
    for (const [node, when] of [["pasted", own === "pasted"], ["file", own === "file"]]) part[node].hidden = !when;
    if (control.scale.dataset.kind !== own) {
      const before = control.scale.value;
      control.scale.replaceChildren(...Object.entries(SCALES[own]).map(([value, text]) => option(value, text)));
      if (before in SCALES[own]) control.scale.value = before;
      control.scale.dataset.kind = own;
    }
    let spectrum = null, objective = null, answer = null, said = "", about = "";
    for (const node of [control.loss, control.eigenvalues, control.k, control.batch]) node.removeAttribute("aria-invalid");
    try {
      const k = whole(control.k, "the number of latents k"), batch = whole(control.batch, "the batch size");
      about = "The data: ";
      spectrum = chosen();
      about = "";
      if (own !== "pasted") control.n.value = spectrum.n;
      about = "The loss: ";
      objective = read(control.loss.value, {n: spectrum.n, k, batch});
      setParts(objective);
      about = "";
      const used = Math.min(k, spectrum.n);
      if (used > spectrum.top.length && spectrum.rest) {
        refuse(`k is ${k}, and of this spectrum the ${spectrum.top.length} largest eigenvalues are known; expected no more ` +
          "latents than these");
      }
      let theta = null;
      if (objective.likelihood === "gaussian") {
        const {beta, learned, freeBits, weight} = objective;
        theta = learned ? beta * learnedSigma2(spectrum, used, beta, freeBits) : weight.kl / (2 * weight.data);
        if (!theta) {
          refuse(`σ² is learned, and k = ${k} latents can explain all the data (rank ${spectrum.rank} of n = ` +
            `${spectrum.n}): no σ² above 0 is the best; expected fewer latents`);
        }
      }
      answer = theta ? gaussian(objective, spectrum, used, theta) : otherwise(objective);
      const advice = remedy(objective, spectrum, used, theta);
      part.chart.toggleAttribute("hidden", !theta);
      if (theta) drawSpectrum(part.chart, spectrum, used, theta, objective.freeBits);
      part.notes.innerHTML = notes(objective, spectrum, k).map(one => `<li>${escaped(one)}</li>`).join("");
      part.remedy.hidden = !advice;
      part.keep.hidden = !advice?.keep;
      if (advice) {
        const text = compose(advice.loss.data, advice.loss.kl);
        const kept = advice.keep === used ? `all ${latents(used)}` : `${advice.keep} of ${latents(used)}`;
        part.instead.textContent = advice.keep ? `To keep ${kept}, write this instead (θ = ${digits(advice.theta)}):` :
          `At β = ${digits(advice.beta)}${objective.learned ? ", the ELBO itself" : ""}:`;
        part.line.textContent = text;
        part.free.hidden = !advice.keep;
        part.free.textContent = advice.keep ? `${short(1 / (2 * advice.theta))}*sum(se) + kl` : "";
        part.code.textContent = pytorch(advice.loss);
        part.code.hidden = !part.code.textContent;
      }
      part.sizes.innerHTML = elsewhere(objective, k);
      part.elsewhere.hidden = !part.sizes.innerHTML;
      part.elsewhere.open &&= Boolean(part.sizes.innerHTML);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      said = about + error.message + ".";
      const wrong = {"The loss: ": control.loss, "The data: ": own === "pasted" ? control.eigenvalues : null}[about];
      wrong?.setAttribute("aria-invalid", "true");
    }
    part.verdict.classList.toggle("refused", !answer);
    part.verdict.textContent = answer ? answer.verdict : said;
    part.words.hidden = !said.startsWith("The loss");
    for (const name of ["numbers", "more"]) part[name].hidden = !answer;
    if (!answer) part.chart.setAttribute("hidden", "");
    if (answer) part.numbers.innerHTML = answer.rows;
    control.slider.disabled = !objective;
    control.slider.setAttribute("aria-valuetext", `${part.weight.textContent}. ${part.verdict.textContent}`);
    const query = String(state());
    part.link.value = `${location.href.split("#")[0]}#${query}`; // no <a>: the theme takes the hash of any for a selector
    part.lost.hidden = own !== "file" && query.length < 6000;
  }

  // ---- What the reader does ----

  const number = node => Number(node.value);
  function fromParts() {
    const previous = control.sigma2.value, isNll = control.term.value === "nll";
    const sigma2 = !isNll ? null : previous === "learned" ? "learned" : Number(previous) || 1;
    control.loss.value = compose(
      {name: control.term.value, weight: number(control.factor), mean: control.features.value === "mean",
        batch: control.samples.value, sigma2, freeBits: 0},
      {name: "kl", weight: number(control.weight), mean: control.latents.value === "mean", batch: control.klsamples.value,
        sigma2: null, freeBits: number(control.free)});
  }

  function shape(node) {
    edited = node;
    fromParts();
    show();
    edited = null;
  }

  async function take(dropped) {
    if (!dropped) return;
    control.data.value = "file";
    part.status.textContent = `Reading ${dropped.name} …`;
    file = null;
    await new Promise(done => setTimeout(done, 30)); // so that the words are seen
    try {
      if (dropped.size > MOST.megabytes * 1e6) {
        const size = Math.round(dropped.size / 1e6);
        refuse(`it has ${size} MB; expected at most ${MOST.megabytes}: take some of its rows at random`);
      }
      const found = table(await dropped.text()), side = Math.min(found.n, found.count);
      if (side > MOST.side || found.n * found.count * side / 2 > MOST.products) {
        const rows = Math.min(MOST.side, Math.floor(2 * MOST.products / found.n / Math.min(found.n, MOST.side)));
        refuse(`${grouped(found.count)} rows of ${grouped(found.n)} columns are too many for this page; expected fewer: ` +
          `take ${grouped(rows)} rows at random, or paste eigenvalues`);
      }
      const mean = columnMeans(found), grand = total([...mean]) / found.n;
      file = {table: found, spread: 0};
      found.values.forEach(value => { file.spread += (value - grand) ** 2 / found.values.length; });
      if (!ofFile("given").rank) refuse("no column varies; expected data that do");
      part.status.textContent = `${dropped.name}: ${grouped(found.count)} rows, ${grouped(found.n)} columns` +
        `${found.header ? ", the first line taken as names" : ""}. Every column counts as a feature.`;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      file = null;
      part.status.textContent = `${dropped.name}: ${error.message}.`;
    }
    show();
  }

  function restore() {
    const query = new URLSearchParams(location.hash.slice(1));
    if (!query.has("loss")) return;
    for (const name of ["data", "loss", "k", "batch", "keep", "eigenvalues", "n", "trace"]) {
      control[name].value = query.get(name) ?? control[name].defaultValue ?? control[name].value;
    }
    if (control.data.selectedIndex < 0) control.data.selectedIndex = 0;
    show(); // which lists the scales of this data
    if (query.get("scale") in SCALES[kind()]) control.scale.value = query.get("scale");
    show();
  }

  control.preset.append(option("", "your own"), ...Object.keys(data.presets).map(name => option(name, name)));
  control.term.append(...Object.entries(data.terms).map(([name, [, text]]) => option(name, `${name}: ${text}`)));
  control.data.append(...Object.entries(data.spectra).map(([name, {title}]) => option(name, title)),
    option("pasted", "eigenvalues that I paste"), option("file", "a CSV of samples, read here"));
  part.words.textContent = `A loss is ${data.grammar}.`;
  control.preset.value = root.dataset.preset;
  control.loss.value = data.presets[root.dataset.preset];

  control.preset.addEventListener("change", () => {
    if (control.preset.value) control.loss.value = data.presets[control.preset.value];
    show();
  });
  control.slider.addEventListener("input", () => {
    control.weight.value = Number((10 ** number(control.slider)).toPrecision(3));
    shape(control.slider);
  });
  part.builder.addEventListener("input", event => shape(event.target));
  for (const name of ["loss", "data", "scale", "k", "batch", "keep", "eigenvalues", "n", "trace"]) {
    control[name].addEventListener("input", show);
  }
  control.upload.addEventListener("change", () => take(control.upload.files[0]));
  root.addEventListener("dragover", event => event.preventDefault());
  root.addEventListener("drop", event => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  root.querySelectorAll("[data-copy]").forEach(button => button.addEventListener("click", async () => {
    const node = part[button.dataset.copy], text = node.value || node.textContent, before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch { // without permission it is selected, for the reader to copy
      if (node.select) node.select(); else getSelection().selectAllChildren(node);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = before; }, 1500);
  }));
  root.querySelector("form").addEventListener("submit", event => event.preventDefault());
  addEventListener("hashchange", restore);

  root.classList.remove("asleep");
  show();
  restore();
})();
