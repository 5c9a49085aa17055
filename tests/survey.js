// What the tests of the pages ask a browser: run inside the page, returns lists of what is wrong.
() => {
  const article = document.querySelector("article") || document.body, found = {};
  const name = node => `${node.tagName.toLowerCase()}.${node.className} ${(node.textContent || "").trim().slice(0, 50)}`;
  const shown = node => node.getClientRects().length > 0 && getComputedStyle(node).visibility !== "hidden";
  const scrolls = node => ["auto", "scroll"].includes(getComputedStyle(node).overflowX);

  // Text that should have been mathematics.
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  found.raw = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("mjx-container, code, pre, script, style, svg, noscript")) continue;
    if (/\$|\\[a-zA-Z]{2,}/.test(node.data)) found.raw.push(node.data.trim().slice(0, 80));
  }

  // Does a reader reach both ends of a box? The nearest box around it that scrolls must begin at its left.
  function outOfReach(node) {
    const box = node.getBoundingClientRect();
    for (let up = node.parentElement; up && up !== document.documentElement; up = up.parentElement) {
      const frame = up.getBoundingClientRect(), left = frame.left + up.clientLeft, right = left + up.clientWidth;
      if (getComputedStyle(up).display === "inline" || !up.clientWidth) continue;
      if (scrolls(up)) {
        if (box.left + up.scrollLeft < left - 1) return "its left end cannot be scrolled to";
        if (up.scrollLeft !== 0) return "opens scrolled";
        return "";
      }
      const hides = ["hidden", "clip"].includes(getComputedStyle(up).overflowX);
      if (hides && (box.left < left - 1.5 || box.right > right + 1.5)) return "cut off";
    }
    return box.left < -1 || box.right > document.documentElement.clientWidth + 1 ? "outside of the page" : "";
  }
  const formulas = [...article.querySelectorAll("mjx-container")].filter(shown);
  found.formulas = formulas.length;
  found.cut = [...formulas.map(node => node.querySelector("mjx-math") || node),
    ...article.querySelectorAll("img, table, pre, .admonition, input")].filter(shown)
    .map(node => [outOfReach(node), name(node)]).filter(([why]) => why).map(pair => pair.join(": "));
  found.errors = article.querySelectorAll("mjx-merror").length;

  found.undrawn = [...article.querySelectorAll(".math")].filter(node => !node.querySelector("mjx-container")).map(name);
  found.unnamed = [...article.querySelectorAll("svg, canvas")].filter(node => !node.closest("[aria-hidden='true']"))
    .filter(node => !node.getAttribute("aria-label") && !node.querySelector("title")).map(name);

  // Tab stops: a formula only where there is something to scroll to.
  found.stops = formulas.filter(node => node.tabIndex >= 0 && node.scrollWidth <= node.clientWidth).map(name);
  found.unreachable = [...article.querySelectorAll("*")].filter(node => scrolls(node) && shown(node))
    .filter(node => node.scrollWidth > node.clientWidth + 12 && node.tabIndex < 0 && !node.querySelector("a, button"))
    .map(name);

  // Tables: printed ones keep their lines, the others have room for words.
  found.tables = [...article.querySelectorAll("pre.columns")].filter(shown).filter(node => {
    const style = getComputedStyle(node), lines = node.textContent.replace(/\n$/, "").split("\n").length;
    const inside = node.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    return inside > (lines + 0.5) * parseFloat(style.lineHeight);
  }).map(name);
  found.tables.push(...[...article.querySelectorAll("td")].filter(shown).filter(node =>
    node.clientWidth < 90 && node.textContent.trim().length > 30).map(name));

  found.code = [...article.querySelectorAll("pre")].filter(node => shown(node) && node.scrollWidth > node.clientWidth + 1)
    .map(name);

  found.sideways = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.figures = [...article.querySelectorAll("img")].filter(shown).filter(node => node.complete && node.naturalWidth)
    .map(node => [node.currentSrc, node.getBoundingClientRect().width / node.naturalWidth]);
  found.broken = [...document.images].filter(node => shown(node) && node.complete && !node.naturalWidth).map(node => node.src);
  return found;
}
