// Small things that need a script: boxes that scroll are reached by the keyboard, links show what they lead to.
(() => {
  const boxes = "mjx-container, div.math, pre, .pst-scrollable-table-container, .text_html, td";
  function reachable() {
    document.querySelectorAll('mjx-container:not([display="true"])').forEach(formula => {
      const room = formula.closest("p, li, td, th, dd, dt, h1, h2, h3, h4, div").getBoundingClientRect().width;
      formula.classList.toggle("wide", formula.firstElementChild.getBoundingClientRect().width > room);
    });
    document.querySelectorAll(boxes).forEach(box => {
      const scrolls = /auto|scroll/.test(getComputedStyle(box).overflowX) && box.scrollWidth > box.clientWidth + 1;
      if (scrolls) {
        box.tabIndex = 0;
      } else if (box.hasAttribute("tabindex")) {
        box.removeAttribute("tabindex");
      }
    });
  }

  // What share of its size lets a display fit on a sheet of paper, where nothing scrolls.
  const PAPER = 640; // px: A4 less its margins
  function measure() {
    const width = node => node ? node.getBoundingClientRect().width : 0;
    document.querySelectorAll('mjx-container[display="true"]').forEach(display => {
      const numbered = display.querySelector("mjx-mtable[width='full'], mjx-container[width='full'] mjx-mtable");
      const needed = numbered // the number stands on the right, and as much is left free on the left
        ? width(numbered.querySelector("mjx-itable")) + 2 * width(numbered.querySelector("mjx-labels mjx-mtd"))
        : width(display.querySelector("mjx-math"));
      if (needed > PAPER) {
        display.style.setProperty("--fits", (PAPER / needed).toFixed(3));
        display.classList.add("shrunk-on-paper");
      }
    });
  }

  // A link to an equation or to an entry of the references shows it; the texts are fetched when first wanted.
  let texts, card, wanted;
  const key = link => (new URL(link.href).hash.match(/^#(equation-\d+|[a-z]+\d{4}[a-z]?)$/) || [])[1];
  function fetchTexts() {
    return texts ||= new Promise(done => {
      window.bookPreviews = done;
      const script = document.createElement("script");
      script.src = new URL("previews.js", document.querySelector('script[src*="book.js"]').src).href;
      document.head.append(script);
    });
  }
  function hide() {
    wanted = null;
    card?.remove();
    card = null;
  }
  async function show(link) {
    wanted = link;
    const text = (await fetchTexts())[key(link)];
    if (!text || wanted !== link) return;
    card?.remove();
    card = document.createElement("div");
    card.className = "book-preview mathjax_process";
    card.setAttribute("role", "tooltip");
    card.innerHTML = text;
    document.body.append(card);
    if (text.startsWith("\\[")) await window.MathJax?.typesetPromise?.([card]);
    if (wanted !== link || !card) return;
    const at = link.getBoundingClientRect(), size = card.getBoundingClientRect();
    const below = at.bottom + size.height + 8 < innerHeight, room = document.documentElement.clientWidth - size.width - 8;
    card.style.left = `${scrollX + Math.max(8, Math.min(at.left, room))}px`;
    card.style.top = `${scrollY + (below ? at.bottom + 6 : Math.max(8, at.top - size.height - 6))}px`;
    card.style.visibility = "visible";
  }
  const link = event => event.target.closest?.("article a[href*='#']");
  for (const [begin, end] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    document.addEventListener(begin, event => link(event) && key(link(event)) && show(link(event)));
    document.addEventListener(end, event => link(event) && hide());
  }
  document.addEventListener("keydown", event => event.key === "Escape" && hide());

  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    measure();
    reachable();
    addEventListener("resize", reachable);
    document.addEventListener("toggle", reachable, true);
  });

  // Paper has what is folded, too.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("article details:not([open])")];
    opened.forEach(fold => { fold.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach(fold => { fold.open = false; }));
})();
